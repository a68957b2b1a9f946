//! Qwen 2 and 2.5: biases on Q, K and V alone.

use super::config::Biases;
use super::family::Family;

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    model_types: &["qwen2"],
    gguf: "qwen2",
    qk_norm: false,
    gguf_permutes: false,
    default_eps: 1e-6,
    biases: |_| Ok(Biases { qkv: true, out: false, mlp: false }),
};
