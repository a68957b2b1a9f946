//! Logits to tokens: the one sampler that both engines use.

mod params;

pub use params::{SamplingError, SamplingParams};
