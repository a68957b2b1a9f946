"""Byte-level BPE tokenizers of 320 entries or fewer, in the three pre-tokenizer dialects duet has to read.

Each is 256 byte tokens, a fixed list of merges and a few special tokens, written as tokenizer.json and
tokenizer_config.json. Nothing is trained, so the files depend on this module alone.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

MERGES = """Ġ t|h e|Ġ a|i n|r e|o n|Ġt he|e r|Ġ s|a t|Ġ o|e n|Ġ w|o u|n d|i t|i s|o r|Ġ h|Ġ b|e s|in g|Ġ f|Ġ m|a n|Ġ c
e d|Ġo f|Ġ p|a r|Ġa nd|Ġ d|Ġ in|Ġt o|a l|l l|Ġ l|o m|Ġ e|a s|Ġ n|Ġ y|Ġy ou|o w|v e|Ġ g|Ġh e|l e|Ġ th|t h|s t|Ġ I
0 0|1 2|12 3|Ġ Ġ""".replace("\n", "|").split("|")

LETTERS_AND_DIGITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def byte_characters() -> list[str]:
    """The printable stand-in of each byte, GPT-2's table, in vocabulary order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]


class Dialect:
    """One way of cutting text before BPE, with the special tokens and template that go with it."""

    def __init__(self, pre, specials, specials_first, template, bos, eos, pad, ignore_merges=False, plain_added=()):
        self.pre, self.specials, self.specials_first = pre, specials, specials_first
        self.template, self.bos, self.eos, self.pad = template, bos, eos, pad
        self.ignore_merges, self.plain_added = ignore_merges, plain_added


DIALECTS = {
    # Names are llama.cpp's tokenizer.ggml.pre.
    "llama-bpe": Dialect(
        pre=(r"\p{N}{1,3}", None),
        specials=["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                  "<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>"],
        specials_first=False, template=HEADERS, ignore_merges=True,
        bos="<|begin_of_text|>", eos="<|eot_id|>", pad="<|end_of_text|>",
    ),
    "smollm": Dialect(
        pre=None,
        specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>", "<filename>",
                  "<empty_output>", "<jupyter_start>"],
        specials_first=True, template=CHATML, bos="<|im_start|>", eos="<|im_end|>", pad="<|im_end|>",
    ),
    "qwen2": Dialect(
        pre=(r"\p{N}", None),
        specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        specials_first=False, template=CHATML, bos=None, eos="<|im_end|>", pad="<|endoftext|>",
        plain_added=["<think>"],
    ),
}


def write_tokenizer(folder: Path, dialect_name: str, context_length: int) -> dict[str, int]:
    """Writes both tokenizer files into `folder`; returns the ids of the special tokens by text."""
    dialect = DIALECTS[dialect_name]
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    ordered = byte_characters() + ["".join(merge) for merge in merges]
    assert len(set(ordered)) == len(ordered)
    if dialect.specials_first:
        ordered = dialect.specials + ordered
    vocab = {token: i for i, token in enumerate(ordered)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=dialect.ignore_merges))
    if dialect.pre is None:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(LETTERS_AND_DIGITS % dialect.pre[0]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in dialect.specials])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in dialect.plain_added])
    ids = {text: tokenizer.token_to_id(text) for text in [*dialect.specials, *dialect.plain_added]}
    if dialect_name == "llama-bpe":
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{dialect.bos} $A", pair=f"{dialect.bos} $A {dialect.bos}:1 $B:1",
                special_tokens=[(dialect.bos, ids[dialect.bos])],
            ),
        ])
    tokenizer.save(str(folder / "tokenizer.json"))

    config = {
        "added_tokens_decoder": {
            str(i): {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                     "special": text in dialect.specials}
            for text, i in sorted(ids.items(), key=lambda item: item[1])
        },
        "bos_token": dialect.bos,
        "chat_template": dialect.template,
        "clean_up_tokenization_spaces": False,
        "eos_token": dialect.eos,
        "model_max_length": context_length,
        "pad_token": dialect.pad,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return ids
