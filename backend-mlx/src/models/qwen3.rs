//! Qwen 3, dense: queries and keys normalised per head, whose size is independent of the hidden size.

use super::config::Biases;
use super::family::Family;

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    model_types: &["qwen3"],
    gguf: "qwen3",
    qk_norm: true,
    gguf_permutes: false,
    default_eps: 1e-6,
    biases: |config| {
        let attention = config.bool("attention_bias")?.unwrap_or(false);
        Ok(Biases { qkv: attention, out: attention, mlp: false })
    },
};
