//! Attention with shared key/value heads.
//!
//! Two ways to the same values: libmlx's operations row by row, and on CPUs, where these are scalar code on one thread, one
//! kernel for all rows. What the kernel gives for a token depends neither on the rows beside it nor on where a prompt is cut.

mod operations;

use super::linear::{Linear, Projection};
use super::rope::{Rope, Rotation};
use super::step::Step;
use crate::cache::LayerCache;
use crate::tensor::{
    AttentionInputs, AttentionRow, AttentionShape, Device, Result, Tensor, attention_on_cpu, concat,
};

/// One layer's attention.
#[derive(Debug)]
pub(crate) struct Attention {
    /// Q above K above V.
    pub(crate) qkv: Projection,
    pub(crate) out: Linear,
    /// Per-head norms of queries and keys, `[n_heads + n_kv_heads, head_dim]`, and their epsilon.
    pub(crate) qk_norm: Option<(Tensor, f32)>,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) window: Option<usize>,
    /// 1 / sqrt(head_dim), in the type of the activations.
    pub(crate) scale: Tensor,
    pub(crate) device: Device,
}

/// What one row gives: `[n, n_heads · head_dim]`.
enum Output {
    Own(Tensor),
    /// So many rows of what the kernel gives for all of its rows.
    OfKernel(usize),
}

impl Attention {
    /// `[n_tokens, hidden]` to `[n_tokens, hidden]`; `caches` has this layer's cache of each of the step's rows.
    pub(crate) fn forward<'a>(
        &self,
        x: &Tensor,
        step: &Step,
        rope: &Rope,
        caches: impl Iterator<Item = &'a mut dyn LayerCache>,
    ) -> Result<Tensor> {
        let qkv = self.qkv.forward(x)?;
        let shape = self.kernel_shape(rope);
        let angles = match &step.rotation {
            Rotation::Tables { cos, sin }
                if self.device == Device::Cpu && qkv.has_attention_kernel(&shape) =>
            {
                Some((cos, sin))
            }
            _ => None,
        };
        let (mut for_kernel, mut others) = (Rows::default(), None);
        let mut outputs = Vec::with_capacity(step.rows.len());
        for ((index, row), cache) in step.rows.iter().enumerate().zip(caches) {
            if angles.is_some()
                && let Some(buffers) = cache.buffers(row.n)?
            {
                for_kernel.rows.push(AttentionRow { start: row.start, n: row.n, position: row.position });
                for_kernel.buffers.push(buffers);
                for_kernel.caches.push(cache);
                outputs.push(Output::OfKernel(row.n));
                continue;
            }
            let heads = match &mut others {
                Some(heads) => heads,
                None => others.insert(self.heads(&qkv, step, rope)?),
            };
            let output = self.by_operations(heads, (index, row), step, rope, cache)?;
            outputs.push(Output::Own(output));
        }
        let norm = self.qk_norm.as_ref().map(|(weight, _)| weight);
        let of_kernel = match angles {
            Some(angles) => for_kernel.attend(AttentionInputs { qkv: &qkv, angles, norm }, shape)?,
            None => None,
        };
        self.out.forward(&joined(outputs, of_kernel)?)
    }

    fn kernel_shape(&self, rope: &Rope) -> AttentionShape {
        AttentionShape {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            dim: self.head_dim,
            window: self.window,
            neighbours: rope.is_traditional(),
            eps: self.qk_norm.as_ref().map_or(0.0, |(_, eps)| *eps),
        }
    }

    /// Its matrices.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.qkv.linears().chain([&self.out])
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.qkv.n_bytes()
            + self.out.n_bytes()
            + self.qk_norm.as_ref().map_or(0, |(weight, _)| weight.n_bytes())
    }
}

/// Rows for the kernel.
#[derive(Default)]
struct Rows<'a> {
    rows: Vec<AttentionRow>,
    buffers: Vec<[Tensor; 2]>,
    caches: Vec<&'a mut dyn LayerCache>,
}

impl Rows<'_> {
    /// Their attention, one row after another; `None` if there are none.
    fn attend(mut self, inputs: AttentionInputs<'_>, shape: AttentionShape) -> Result<Option<Tensor>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let output = attention_on_cpu(inputs, &self.rows, &mut self.buffers, shape)?;
        for ((row, buffers), cache) in self.rows.iter().zip(self.buffers).zip(self.caches) {
            cache.written(buffers, row.n);
        }
        Ok(Some(output))
    }
}

/// All rows' outputs in order, `[n_tokens, n_heads · head_dim]`.
fn joined(outputs: Vec<Output>, of_kernel: Option<Tensor>) -> Result<Tensor> {
    let all_of_kernel = outputs.iter().all(|output| matches!(output, Output::OfKernel(_)));
    if let Some(whole) = of_kernel.as_ref().filter(|_| all_of_kernel) {
        return Ok(whole.clone());
    }
    let mut at = 0;
    let parts = outputs.into_iter().map(|output| match (output, &of_kernel) {
        (Output::Own(output), _) => Ok(output),
        (Output::OfKernel(n), Some(whole)) => {
            at += n;
            whole.slice(&[at - n, 0], &[at, whole.len(1)])
        }
        (Output::OfKernel(_), None) => unreachable!("the kernel has run where a row was given to it"),
    });
    concat(&parts.collect::<Result<Vec<_>>>()?, 0)
}
