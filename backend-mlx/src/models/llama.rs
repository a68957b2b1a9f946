//! Llama and what is built like it: SmolLM2, Mistral 7B, the R1 distillates.

use super::config::Biases;
use super::family::Family;

pub(super) const FAMILY: Family = Family {
    name: "llama",
    model_types: &["llama", "mistral"],
    gguf: "llama",
    qk_norm: false,
    gguf_permutes: true,
    default_eps: 1e-6,
    biases: |config| {
        let attention = config.bool("attention_bias")?.unwrap_or(false);
        Ok(Biases { qkv: attention, out: attention, mlp: config.bool("mlp_bias")?.unwrap_or(false) })
    },
};
