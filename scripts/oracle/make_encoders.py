"""Writes the two tiny encoders as GGUF files, and what transformers makes of texts with the same weights.

    python scripts/oracle/make_encoders.py --out tests/fixtures

tiny-bert.gguf gives embeddings, tiny-bert-rank.gguf has a classifier on top and scores pairs of texts. The files are
written with the `gguf` package alone, so that no part of llama.cpp has a say in them. Needs the packages of
requirements.txt.

oracle/tiny-bert.safetensors, for N in 0, 1, …:
  text.N.ids      [n]          int32    a text as its tokenizer cuts it, [CLS] and [SEP] included
  text.N.states   [n, HIDDEN]  float32  the last layer's states
oracle/tiny-bert-rank.safetensors, for N in 0, 1, …:
  pair.N.ids      [n]          int32    [CLS] query [SEP] document [SEP]
  pair.N.score    [1]          float32  the classifier's output
Texts are in the tests too: `TEXTS`, `QUERY` and `DOCUMENTS`. Both oracles take all tokens as of the first segment, as
llama.cpp does.
"""

import argparse
import string
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

HIDDEN, HEADS, INTERMEDIATE, LAYERS, CONTEXT, EPS = 32, 4, 64, 2, 128, 1e-12
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the a cat dog sat on mat river carries sand to sea stock market fell today who what where is in of and rain".split()
PIECES = "s ing ed er ly es al ion".split()
TEXTS = ["The cat sat on the mat.", "Rain", "a river carries sand to the sea, and rain fell today"]
QUERY = "where is the cat?"
DOCUMENTS = ["the cat sat on the mat", "the stock market fell today", "rain", "Dogs and cats in the river!"]
MADE_BY = "transformers 5.23.0, float32, eager"


def vocabulary() -> list[str]:
    """WordPiece tokens in BERT's own writing: words whole, what goes on inside a word behind ##."""
    letters = list(string.ascii_lowercase + string.digits)
    pieces = [f"##{piece}" for piece in letters + [p for p in PIECES if len(p) > 1]]
    return SPECIALS + list(".,!?'-") + letters + pieces + [word for word in WORDS if len(word) > 1]


def weights(n_vocab: int, rank: bool) -> dict[str, np.ndarray]:
    """All tensors by their names in GGUF, float32, from the seed alone."""
    rng = np.random.Generator(np.random.PCG64(23))

    def normal(*shape, std):
        return (rng.standard_normal(shape) * std).astype(np.float32)

    def norm(name):
        return {f"{name}.weight": 1.0 + normal(HIDDEN, std=0.2), f"{name}.bias": normal(HIDDEN, std=0.2)}

    def linear(name, n_out, n_in, gain=1.0):
        return {f"{name}.weight": normal(n_out, n_in, std=gain / np.sqrt(n_in)), f"{name}.bias": normal(n_out, std=0.3)}

    tensors = {
        "token_embd.weight": normal(n_vocab, HIDDEN, std=1.0),
        "token_types.weight": normal(2, HIDDEN, std=0.3),
        "position_embd.weight": normal(CONTEXT, HIDDEN, std=0.7),
    } | norm("token_embd_norm")
    for i in range(LAYERS):
        p = f"blk.{i}."
        for name in ("attn_q", "attn_k"):
            tensors |= linear(p + name, HIDDEN, HIDDEN, gain=2.0)
        tensors |= linear(p + "attn_v", HIDDEN, HIDDEN) | linear(p + "attn_output", HIDDEN, HIDDEN)
        tensors |= norm(p + "attn_output_norm") | norm(p + "layer_output_norm")
        tensors |= linear(p + "ffn_up", INTERMEDIATE, HIDDEN, gain=1.5)
        tensors |= linear(p + "ffn_down", HIDDEN, INTERMEDIATE, gain=1.5)
    if rank:
        tensors |= linear("cls", HIDDEN, HIDDEN) | linear("cls.output", 1, HIDDEN, gain=2.0)
    return tensors


# GGUF's names of a block's parts and those of transformers.
BLOCK = {
    "attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense", "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm",
}
TOP = {
    "token_embd": "embeddings.word_embeddings", "token_types": "embeddings.token_type_embeddings",
    "position_embd": "embeddings.position_embeddings", "token_embd_norm": "embeddings.LayerNorm",
    "cls": "pooler.dense",
}


def name_in_transformers(name: str) -> str:
    """The same tensor's name in BertForSequenceClassification."""
    stem, kind = name.rsplit(".", 1)
    if stem == "cls.output":
        return f"classifier.{kind}"
    if stem.startswith("blk."):
        _, layer, part = stem.split(".")
        return f"bert.encoder.layer.{layer}.{BLOCK[part]}.{kind}"
    return f"bert.{TOP[stem]}.{kind}"


def reference(tensors: dict[str, np.ndarray], n_vocab: int, rank: bool):
    """transformers' model with these weights."""
    config = BertConfig(
        vocab_size=n_vocab, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INTERMEDIATE, max_position_embeddings=CONTEXT, layer_norm_eps=EPS, num_labels=1,
        attn_implementation="eager",
    )
    state = {name_in_transformers(name): torch.from_numpy(value) for name, value in tensors.items()}
    if rank:
        model = BertForSequenceClassification(config)
    else:
        model = BertModel(config, add_pooling_layer=False)
        state = {name.removeprefix("bert."): value for name, value in state.items()}
    model.load_state_dict(state, strict=True)
    return model.eval()


def write_gguf(path: Path, tokens: list[str], tensors: dict[str, np.ndarray], rank: bool) -> None:
    """The model with its vocabulary."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(path.stem)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPS)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if rank else gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_token_type_count(2)
    # A word's beginning is marked instead of its inside.
    written = [t if t in SPECIALS else t[2:] if t.startswith("##") else "\u2581" + t for t in tokens]
    writer.add_token_list(written)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in SPECIALS else normal for token in tokens])
    for role, token in (("pad", "[PAD]"), ("unk", "[UNK]"), ("bos", "[CLS]"), ("sep", "[SEP]"), ("mask", "[MASK]")):
        getattr(writer, f"add_{role}_token_id")(tokens.index(token))
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    tokens = vocabulary()
    assert len(set(tokens)) == len(tokens)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "vocab.txt"
        file.write_text("\n".join(tokens) + "\n")
        tokenizer = BertTokenizer(str(file), do_lower_case=True)
        texts = [tokenizer(text)["input_ids"] for text in TEXTS]
        pairs = [tokenizer(QUERY, document)["input_ids"] for document in DOCUMENTS]
    for name, rank in (("tiny-bert", False), ("tiny-bert-rank", True)):
        tensors = weights(len(tokens), rank)
        write_gguf(out / f"{name}.gguf", tokens, tensors, rank)
        model = reference(tensors, len(tokens), rank)
        entries = {}
        for index, ids in enumerate(pairs if rank else texts):
            what = "pair" if rank else "text"
            with torch.no_grad():
                result = model(input_ids=torch.tensor([ids]), token_type_ids=torch.zeros((1, len(ids)), dtype=torch.long))
            entries[f"{what}.{index}.ids"] = np.array(ids, np.int32)
            key, value = ("score", result.logits[0]) if rank else ("states", result.last_hidden_state[0])
            entries[f"{what}.{index}.{key}"] = value.numpy()
            if rank:
                print(DOCUMENTS[index], value.item())
        save_file(entries, out / "oracle" / f"{name}.safetensors", metadata={"made_by": MADE_BY})


if __name__ == "__main__":
    main()
