//! Decoders: shared blocks, and architectures as variations of them.

mod attention;
mod config;
mod decoder;
mod family;
mod linear;
mod llama;
mod mask;
mod mlp;
pub(crate) mod products;
mod qwen2;
mod qwen3;
mod rope;
mod step;
#[cfg(test)]
mod tests;

pub(crate) use attention::Attention;
pub(crate) use config::DecoderConfig;
pub(crate) use decoder::{Decoder, Layer};
pub(crate) use family::Family;
pub(crate) use linear::{Embedding, Linear, Projection};
pub(crate) use mlp::Mlp;
pub(crate) use rope::Rope;
pub(crate) use step::{Step, StepRow};
