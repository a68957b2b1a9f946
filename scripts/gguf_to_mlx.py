#!/usr/bin/env python3
"""Converts a GGUF file into an MLX directory whose weights dequantise to exactly the same float32 values.

    gguf_to_mlx.py MODEL.gguf OUT_FOLDER

GGUF's blocks of 32 become MLX's affine groups of 32 (w = s·q + β): the integers are kept, scale and bias are stored
in float32, so nothing is rounded. Architectures llama (without rope factors), qwen2 and qwen3; tensor types F32,
F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0; byte-level BPE vocabularies. Anything else is refused by name.

The folder appears only when it is complete. Running again with the same file does nothing. Needs numpy and gguf.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from gguf import GGUFReader

GROUP = 32
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4

MODULES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class Refused(Exception):
    """The input cannot be converted; the message says why."""


class Metadata:
    """GGUF's key-value pairs with typed absence."""

    def __init__(self, reader: GGUFReader):
        self.fields = reader.fields
        self.architecture = self.need("general.architecture")

    def get(self, key: str, default=None):
        """The value of `key`, where `{arch}` stands for the architecture."""
        field = self.fields.get(key.replace("{arch}", getattr(self, "architecture", "")))
        return default if field is None else field.contents()

    def need(self, key: str):
        value = self.get(key)
        if value is None:
            raise Refused(f"the file has no {key.replace('{arch}', getattr(self, 'architecture', '{arch}'))}")
        return value


def module_path(name: str) -> str:
    """MLX's name of a GGUF tensor, e.g. blk.0.attn_q.weight → model.layers.0.self_attn.q_proj.weight."""
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in MODULES:
        return f"model.layers.{int(parts[1])}.{MODULES[parts[2]]}.{parts[3]}"
    if len(parts) == 2 and parts[0] in OUTER:
        return f"{OUTER[parts[0]]}.{parts[1]}"
    raise Refused(f"tensor {name} is not one of a llama, qwen2 or qwen3 model")


def half(columns: np.ndarray) -> np.ndarray:
    """float16 bytes [rows, blocks, 2] → float32 [rows, blocks]."""
    return np.ascontiguousarray(columns).view(np.float16)[..., 0].astype(np.float32)


def nibbles(packed: np.ndarray) -> np.ndarray:
    """[rows, blocks, 16] bytes → [rows, blocks, 32] values: low halves first, as GGUF stores a block."""
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)


def fifth_bits(packed: np.ndarray) -> np.ndarray:
    """[rows, blocks, 4] bytes → [rows, blocks, 32], each 0 or 16."""
    return np.unpackbits(packed, axis=-1, bitorder="little") << 4


def unpack(kind: str, raw: np.ndarray) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Bits, integers [rows, blocks, 32] uint8, scales and biases [rows, blocks] float32 of one quantised matrix."""
    block_bytes = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34}[kind]
    blocks = np.asarray(raw).reshape(raw.shape[0], -1, block_bytes)
    scale = half(blocks[..., :2])
    match kind:
        case "Q4_0":
            return 4, nibbles(blocks[..., 2:]), scale, -8 * scale
        case "Q4_1":
            return 4, nibbles(blocks[..., 4:]), scale, half(blocks[..., 2:4])
        case "Q5_0":
            return 5, nibbles(blocks[..., 6:]) | fifth_bits(blocks[..., 2:6]), scale, -16 * scale
        case "Q5_1":
            return 5, nibbles(blocks[..., 8:]) | fifth_bits(blocks[..., 4:8]), scale, half(blocks[..., 2:4])
        case "Q8_0":
            # Signed bytes; adding 128 flips the top bit.
            return 8, blocks[..., 2:] ^ 0x80, scale, -128 * scale


def pack(bits: int, integers: np.ndarray) -> np.ndarray:
    """Rows of integers → rows of u32 words: value i takes bits i·b … (i+1)·b−1 of the row's little-endian stream."""
    rows = integers.reshape(integers.shape[0], -1)
    stream = np.unpackbits(rows[..., None], axis=-1, bitorder="little", count=bits)
    return np.packbits(stream.reshape(rows.shape[0], -1), axis=-1, bitorder="little").view("<u4")


def unpermuted(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of a llama Q or K tensor in the order of the original checkpoint (GGUF interleaves each head's halves)."""
    shape = rows.shape
    return rows.reshape(n_heads, shape[0] // n_heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def convert_tensors(reader: GGUFReader, metadata: Metadata) -> tuple[dict, dict]:
    """All MLX arrays by name as (safetensors dtype, array), and bits by quantised module path."""
    arrays, bits_of = {}, {}
    n_heads = metadata.need("{arch}.attention.head_count")
    n_kv_heads = metadata.get("{arch}.attention.head_count_kv", n_heads)
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            raise Refused("rope factors (llama3 scaling) are not supported by this script")
        path, kind = module_path(tensor.name), tensor.tensor_type.name
        order = lambda rows: rows
        if metadata.architecture == "llama" and ".attn_q." in tensor.name:
            order = lambda rows: unpermuted(rows, n_heads)
        elif metadata.architecture == "llama" and ".attn_k." in tensor.name:
            order = lambda rows: unpermuted(rows, n_kv_heads)
        if kind in ("F32", "F16", "BF16"):
            data = np.asarray(tensor.data)
            if kind == "BF16":
                data = np.ascontiguousarray(data).view("<u2")
            arrays[path] = (kind, order(data))
        elif kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0") and path.endswith(".weight"):
            bits, integers, scales, biases = unpack(kind, tensor.data)
            module = path.removesuffix(".weight")
            bits_of[module] = bits
            arrays[path] = ("U32", pack(bits, order(integers)))
            arrays[module + ".scales"] = ("F32", order(scales))
            arrays[module + ".biases"] = ("F32", order(biases))
        else:
            raise Refused(f"tensor {tensor.name} has type {kind}, which has no exact affine form here")
    if "model.embed_tokens.weight" not in arrays:
        raise Refused("the file has no token_embd.weight")
    return arrays, bits_of


def shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def model_config(metadata: Metadata, arrays: dict, bits_of: dict) -> dict:
    """config.json in the form that mlx-lm reads."""
    hidden, n_heads = metadata.need("{arch}.embedding_length"), metadata.need("{arch}.attention.head_count")
    scaling = metadata.get("{arch}.rope.scaling.type", "none")
    if scaling != "none":
        raise Refused(f"rope scaling {scaling} is not supported by this script")
    config = {
        "architectures": [ARCHITECTURES[metadata.architecture]],
        "model_type": metadata.architecture,
        "attention_bias": False,
        "head_dim": metadata.get("{arch}.attention.key_length", hidden // n_heads),
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": metadata.need("{arch}.feed_forward_length"),
        "max_position_embeddings": metadata.need("{arch}.context_length"),
        "mlp_bias": False,
        "num_attention_heads": n_heads,
        "num_hidden_layers": metadata.need("{arch}.block_count"),
        "num_key_value_heads": metadata.get("{arch}.attention.head_count_kv", n_heads),
        "rms_norm_eps": shortest(metadata.need("{arch}.attention.layer_norm_rms_epsilon")),
        "rope_scaling": None,
        "rope_theta": shortest(metadata.get("{arch}.rope.freq_base", 10_000.0)),
        "tie_word_embeddings": "lm_head.weight" not in arrays,
        "torch_dtype": "float32",
        "vocab_size": len(metadata.need("tokenizer.ggml.tokens")),
    }
    for key in ("bos", "eos"):
        config[f"{key}_token_id"] = metadata.get(f"tokenizer.ggml.{key}_token_id")
    config["pad_token_id"] = metadata.get("tokenizer.ggml.padding_token_id")
    if bits_of:
        bits = Counter(bits_of.values()).most_common(1)[0][0]
        overrides = {path: {"group_size": GROUP, "bits": b} for path, b in sorted(bits_of.items()) if b != bits}
        config["quantization"] = {"group_size": GROUP, "bits": bits, "mode": "affine", **overrides}
        config["quantization_config"] = config["quantization"]
    return config


def pre_tokenizer(kind: str) -> dict:
    """The `tokenizers` form of GGUF's named pre-tokenizer."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    digit_runs = {"llama-bpe": r"\p{N}{1,3}", "qwen2": r"\p{N}"}
    if kind in digit_runs:
        split = {"type": "Split", "pattern": {"Regex": WORDS % digit_runs[kind]}, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [split, byte_level]}
    if kind == "smollm":
        digits = {"type": "Digits", "individual_digits": True}
        return {"type": "Sequence", "pretokenizers": [digits, byte_level | {"use_regex": True}]}
    if kind == "gpt-2":
        return byte_level | {"use_regex": True}
    raise Refused(f"pre-tokenizer {kind} is not supported by this script")


def tokenizer_files(metadata: Metadata) -> dict[str, dict]:
    """tokenizer.json, tokenizer_config.json, special_tokens_map.json and generation_config.json."""
    model, kind = metadata.need("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "gpt-2")
    if model != "gpt2":
        raise Refused(f"a {model} vocabulary is not byte-level BPE")
    tokens, types = metadata.need("tokenizer.ggml.tokens"), metadata.need("tokenizer.ggml.token_type")
    if len(tokens) != len(types):
        raise Refused("the vocabulary has another length than its token types")
    added = [
        {"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": types[i] == CONTROL}
        for i in range(len(tokens)) if types[i] in (CONTROL, USER_DEFINED)
    ]
    vocab = {token: i for i, token in enumerate(tokens) if types[i] in (NORMAL, CONTROL, USER_DEFINED)}
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in
           (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding"))}
    named = {name: tokens[i] for name, i in ids.items() if i is not None}
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama-bpe")
    processor = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    if add_bos:
        bos = named["bos_token"]
        processor = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [ids["bos_token"]], "tokens": [bos]}},
        }
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": pre_tokenizer(kind), "post_processor": processor,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": kind == "llama-bpe", "vocab": vocab, "merges": metadata.need("tokenizer.ggml.merges"),
        },
    }
    config = {
        "add_bos_token": add_bos, "add_prefix_space": False, "clean_up_tokenization_spaces": False, **named,
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added},
        "model_max_length": metadata.need("{arch}.context_length"), "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if (template := metadata.get("tokenizer.chat_template")) is not None:
        config["chat_template"] = template
    ends = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    ends = [i for i in dict.fromkeys(ends) if i is not None]
    generation = {"bos_token_id": ids["bos_token"], "eos_token_id": ends[0] if len(ends) == 1 else ends,
                  "pad_token_id": ids["pad_token"]}
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config, "special_tokens_map.json": named,
            "generation_config.json": generation}


def write_safetensors(path: Path, arrays: dict, metadata: dict[str, str]) -> None:
    """Writes `arrays` one after the other behind a header padded to 8 bytes."""
    header, offset = {"__metadata__": metadata}, 0
    for name, (dtype, array) in sorted(arrays.items()):
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, (_, array) in sorted(arrays.items()):
            np.ascontiguousarray(array).tofile(file)


def read_provenance(folder: Path) -> dict[str, str] | None:
    """The metadata that an earlier run left in `folder`, or None if the folder is not ours."""
    try:
        with (folder / "model.safetensors").open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(min(size, 1 << 24)))["__metadata__"]
        return metadata if "source_sha256" in metadata else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def convert(source: Path, target: Path) -> str:
    """Converts and returns one line about what was done."""
    with source.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Refused("it is not a GGUF file")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    converter = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    provenance = {"format": "mlx", "source": source.name, "source_sha256": digest, "converter_sha256": converter}
    if target.exists():
        earlier = read_provenance(target)
        if earlier == provenance:
            return f"{target} is up to date"
        if earlier is None:
            raise Refused(f"{target} exists and was not made by this script")
    try:
        reader = GGUFReader(source)
        metadata = Metadata(reader)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise Refused(f"it is truncated or malformed ({error})") from error
    if metadata.architecture not in ARCHITECTURES:
        raise Refused(f"architecture {metadata.architecture} is not one of {', '.join(ARCHITECTURES)}")
    arrays, bits_of = convert_tensors(reader, metadata)
    files = tokenizer_files(metadata) | {"config.json": model_config(metadata, arrays, bits_of)}
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        scratch.chmod(0o755)
        for name, content in files.items():
            (scratch / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_safetensors(scratch / "model.safetensors", arrays, provenance)
        if target.exists():
            shutil.rmtree(target)
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return f"wrote {target}: {len(arrays)} tensors, {sum(a.nbytes for _, a in arrays.values())} bytes"


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: gguf_to_mlx.py MODEL.gguf OUT_FOLDER")
    source, target = map(Path, sys.argv[1:])
    try:
        print(convert(source, target))
    except Refused as error:
        sys.exit(f"gguf_to_mlx: {source}: {error}")
    except OSError as error:
        sys.exit(f"gguf_to_mlx: {error.filename or source}: {error.strerror or error}")


if __name__ == "__main__":
    main()
