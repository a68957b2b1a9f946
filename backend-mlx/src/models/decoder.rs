//! The whole decoder: embedding, layers, norm, head.

use super::attention::Attention;
use super::config::DecoderConfig;
use super::linear::{Embedding, Linear};
use super::mlp::Mlp;
use super::rope::Rope;
use super::step::{Step, StepRow};
use crate::cache::SequenceCache;
use crate::tensor::{Device, ElementType, Result, Tensor};

/// One layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Tensor,
    pub(crate) attention: Attention,
    pub(crate) mlp_norm: Tensor,
    pub(crate) mlp: Mlp,
}

/// A decoder on one thread.
#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) config: DecoderConfig,
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Tensor,
    pub(crate) head: Linear,
    pub(crate) rope: Rope,
    /// The kinds of windows among the layers.
    pub(crate) windows: Vec<Option<usize>>,
    /// The type of all activations.
    pub(crate) compute: ElementType,
    pub(crate) device: Device,
}

impl Decoder {
    /// What the layers of a pass over these rows share.
    pub(crate) fn step(&self, rows: Vec<StepRow>) -> Step {
        Step::new(rows, &self.rope, &self.windows, (self.device, self.compute))
    }

    /// The residual stream after all layers, `[n_tokens, hidden]`, of the tokens `ids`, `[n_tokens]`. Appends their keys
    /// and values to `caches`, one per row of the step.
    pub(crate) fn hidden(
        &self,
        ids: &Tensor,
        step: &Step,
        caches: &mut [&mut SequenceCache],
    ) -> Result<Tensor> {
        let mut x = self.embedding.forward(ids, self.compute)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = self.normed(&x, &layer.attention_norm)?;
            let of_layer = caches.iter_mut().map(|cache| cache.layer(index));
            x = x.add(&layer.attention.forward(&normed, step, &self.rope, of_layer)?)?;
            let normed = self.normed(&x, &layer.mlp_norm)?;
            x = x.add(&layer.mlp.forward(&normed)?)?;
        }
        Ok(x)
    }

    fn normed(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match self.device {
            Device::Cpu => x.rms_norm_on_cpu(weight, self.config.eps),
            Device::Gpu => x.rms_norm(Some(weight), self.config.eps),
        }
    }

    /// Logits `[n, vocab]` in f32 of rows `[n, hidden]` of the residual stream.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let normed = self.normed(hidden, &self.norm)?;
        self.head.forward(&normed)?.cast(ElementType::F32)
    }

    /// States `[n, hidden]` in f32 of rows `[n, hidden]` of the residual stream: what the head sees.
    pub(crate) fn states(&self, hidden: &Tensor) -> Result<Tensor> {
        self.normed(hidden, &self.norm)?.cast(ElementType::F32)?.contiguous()
    }

    /// Bytes of weights that a pass over one token reads.
    pub(crate) fn bytes_per_token(&self) -> usize {
        let layers = self.layers.iter().map(|layer| {
            let norms = layer.attention_norm.n_bytes() + layer.mlp_norm.n_bytes();
            norms + layer.attention.n_bytes() + layer.mlp.n_bytes()
        });
        layers.sum::<usize>() + self.norm.n_bytes() + self.head.n_bytes()
    }

    /// Bytes of all weights.
    pub(crate) fn n_bytes(&self) -> usize {
        let table = if self.config.tied { 0 } else { self.embedding.n_bytes() };
        self.bytes_per_token() + table
    }
}
