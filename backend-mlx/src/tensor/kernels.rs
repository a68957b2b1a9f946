//! duet's own kernels for CPUs, where libmlx's are scalar code or many operations.

use super::{ElementType, Result, Tensor};
use crate::raw::kernels;
pub(crate) use crate::raw::kernels::{AttentionRow, AttentionShape};

/// The tensors of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionInputs<'a> {
    /// `[n_tokens, (n_heads + 2 n_kv_heads) · dim]`.
    pub(crate) qkv: &'a Tensor,
    /// Cosines and sines, `[n_tokens, dim / 2]` each.
    pub(crate) angles: (&'a Tensor, &'a Tensor),
    /// Weights of the norms, `[n_heads + n_kv_heads, dim]`.
    pub(crate) norm: Option<&'a Tensor>,
}

impl Tensor {
    fn has_kernels(&self) -> bool {
        kernels::AVAILABLE && self.element_type() == ElementType::F32
    }

    /// As [`Tensor::rms_norm`], the fastest way on a CPU.
    pub(crate) fn rms_norm_on_cpu(&self, weight: &Self, eps: f32) -> Result<Self> {
        match self.has_kernels() {
            true => Ok(Self::new(kernels::rms_norm(&self.array, &weight.array, eps)?)),
            false => self.rms_norm(Some(weight), eps),
        }
    }

    /// silu(gate) · up of `[n, 2 · width]`, gate before up, on a CPU; `None` without a kernel for it.
    pub(crate) fn swiglu_on_cpu(&self) -> Result<Option<Self>> {
        match self.has_kernels() {
            true => Ok(Some(Self::new(kernels::swiglu(&self.array)?))),
            false => Ok(None),
        }
    }

    /// Whether [`attention_on_cpu`] is made for tensors of this type and shape.
    pub(crate) fn has_attention_kernel(&self, shape: &AttentionShape) -> bool {
        self.has_kernels() && shape.is_supported()
    }
}

/// The attention of some rows' tokens, `[tokens of the rows, n_heads · dim]`, on a CPU. `buffers` are keys and values of each
/// row, `[n_kv_heads, capacity, dim]`, and are replaced by those with the new tokens in them, which are the same memory where
/// no other handle is left.
pub(crate) fn attention_on_cpu(
    inputs: AttentionInputs<'_>,
    rows: &[AttentionRow],
    buffers: &mut [[Tensor; 2]],
    shape: AttentionShape,
) -> Result<Tensor> {
    let arrays: Vec<_> = buffers.iter().flatten().map(|buffer| &buffer.array).collect();
    let inputs = kernels::AttentionInputs {
        qkv: &inputs.qkv.array,
        cos: &inputs.angles.0.array,
        sin: &inputs.angles.1.array,
        norm: inputs.norm.map(|norm| &norm.array),
        buffers: &arrays,
    };
    let mut results = kernels::attention(inputs, rows, shape)?.into_iter().map(Tensor::new);
    let output = results.next().expect("the attention comes first");
    for (buffer, new) in buffers.iter_mut().flatten().zip(results) {
        *buffer = new;
    }
    Ok(output)
}
