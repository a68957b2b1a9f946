"""The random checkpoints: their shapes and weights, as Hugging Face directories in float32.

Weights come from numpy's PCG64, so they depend on the seed alone. Projections are scaled so that attention is far
from uniform and logits are far from flat: a wrong rope, mask or head order shows in the third digit, not the sixth.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tiny_tokenizer import write_tokenizer

VOCAB = 320
HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, LAYERS, CONTEXT = 64, 4, 2, 128, 2, 512


@dataclass(frozen=True)
class Tiny:
    """One checkpoint: what differs between the four."""

    name: str
    model_type: str
    architecture: str
    dialect: str
    tied: bool
    head_dim: int = HIDDEN // HEADS
    qkv_bias: bool = False
    qk_norm: bool = False
    rope_theta: float = 10_000.0
    rope_scaling: dict | None = None
    # transformers 5 writes rope_parameters and dtype where 4 wrote rope_theta, rope_scaling and torch_dtype; both occur.
    version_5_config: bool = False
    # Chosen so that no greedy step is a near tie.
    seed: int = 0


LLAMA3_SCALING = {
    # The original length is small so that the scaling already changes rotations within the 70-token prompt.
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}

TINY = [
    Tiny("tiny-llama", "llama", "LlamaForCausalLM", "llama-bpe", tied=False, rope_scaling=LLAMA3_SCALING, seed=22),
    Tiny("tiny-llama-tied", "llama", "LlamaForCausalLM", "smollm", tied=True, rope_theta=100_000.0, seed=152),
    Tiny("tiny-qwen2", "qwen2", "Qwen2ForCausalLM", "qwen2", tied=True, qkv_bias=True, rope_theta=1_000_000.0, seed=81),
    Tiny("tiny-qwen3", "qwen3", "Qwen3ForCausalLM", "qwen2", tied=True, head_dim=32, qk_norm=True,
         rope_theta=1_000_000.0, version_5_config=True, seed=14),
]


def weights(tiny: Tiny, seed: int) -> dict[str, np.ndarray]:
    """All tensors of `tiny` by their Hugging Face names, float32."""
    rng = np.random.Generator(np.random.PCG64(seed))

    def normal(*shape, std):
        return (rng.standard_normal(shape) * std).astype(np.float32)

    def norm_weight(size):
        return (1.0 + 0.2 * rng.standard_normal(size)).astype(np.float32)

    def linear(n_out, n_in, gain=1.0):
        return normal(n_out, n_in, std=gain / np.sqrt(n_in))

    # A tied table is also the head, and HIDDEN products of unit variance would make every logit about 8.
    tensors = {"model.embed_tokens.weight": normal(VOCAB, HIDDEN, std=0.5 if tiny.tied else 1.0)}
    q_rows, kv_rows = HEADS * tiny.head_dim, KV_HEADS * tiny.head_dim
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        tensors[p + "input_layernorm.weight"] = norm_weight(HIDDEN)
        tensors[p + "post_attention_layernorm.weight"] = norm_weight(HIDDEN)
        tensors[p + "self_attn.q_proj.weight"] = linear(q_rows, HIDDEN, gain=1.5)
        tensors[p + "self_attn.k_proj.weight"] = linear(kv_rows, HIDDEN, gain=1.5)
        tensors[p + "self_attn.v_proj.weight"] = linear(kv_rows, HIDDEN)
        tensors[p + "self_attn.o_proj.weight"] = linear(HIDDEN, q_rows)
        if tiny.qkv_bias:
            for which, rows in (("q", q_rows), ("k", kv_rows), ("v", kv_rows)):
                tensors[p + f"self_attn.{which}_proj.bias"] = normal(rows, std=0.5)
        if tiny.qk_norm:
            tensors[p + "self_attn.q_norm.weight"] = norm_weight(tiny.head_dim)
            tensors[p + "self_attn.k_norm.weight"] = norm_weight(tiny.head_dim)
        tensors[p + "mlp.gate_proj.weight"] = linear(INTERMEDIATE, HIDDEN, gain=1.5)
        tensors[p + "mlp.up_proj.weight"] = linear(INTERMEDIATE, HIDDEN, gain=1.5)
        tensors[p + "mlp.down_proj.weight"] = linear(HIDDEN, INTERMEDIATE, gain=1.5)
    tensors["model.norm.weight"] = norm_weight(HIDDEN)
    if not tiny.tied:
        tensors["lm_head.weight"] = linear(VOCAB, HIDDEN, gain=2.0)
    return tensors


def config(tiny: Tiny, special_ids: dict[str, int]) -> dict:
    """config.json as the checkpoint's own training framework would have written it."""
    eos = special_ids.get("<|eot_id|>", special_ids.get("<|im_end|>"))
    bos = special_ids.get("<|begin_of_text|>", special_ids.get("<|im_start|>"))
    values = {
        "architectures": [tiny.architecture], "model_type": tiny.model_type,
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "hidden_act": "silu",
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "tie_word_embeddings": tiny.tied,
        "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
        "bos_token_id": bos, "eos_token_id": eos,
    }
    if tiny.version_5_config:
        values |= {"dtype": "float32", "rope_parameters": {"rope_theta": tiny.rope_theta, "rope_type": "default"}}
    else:
        values |= {"torch_dtype": "float32", "rope_theta": tiny.rope_theta, "rope_scaling": tiny.rope_scaling}
    if tiny.model_type == "llama":
        values |= {"attention_bias": False, "mlp_bias": False, "head_dim": tiny.head_dim}
    if tiny.model_type == "qwen2":
        values |= {"use_sliding_window": False}
    if tiny.model_type == "qwen3":
        values |= {"attention_bias": False, "head_dim": tiny.head_dim, "use_sliding_window": False}
    return values


def write_checkpoint(tiny: Tiny, folder: Path, seed: int) -> None:
    """Writes the whole Hugging Face directory of `tiny` into the existing `folder`."""
    special_ids = write_tokenizer(folder, tiny.dialect, CONTEXT)
    values = config(tiny, special_ids)
    # The first is the turn's end, the second the document's: more than one EOS, as released models have.
    document_end = special_ids.get("<|end_of_text|>", special_ids.get("<|endoftext|>"))
    generation = {
        "bos_token_id": values["bos_token_id"], "eos_token_id": [values["eos_token_id"], document_end],
        "do_sample": True, "temperature": 0.6, "top_p": 0.9,
    }
    for name, content in (("config.json", values), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    save_file(weights(tiny, seed), folder / "model.safetensors", metadata={"format": "pt"})
