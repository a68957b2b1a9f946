//! duet's own kernels for CPUs: what mlx-sys adds to libmlx's operations on Linux.
//!
//! Elsewhere the functions are there and fail; [`AVAILABLE`] says so beforehand.

use mlx_rs::{Array, Stream};
use mlx_sys::kernels;

use super::error::{RawError, call};
use super::slices::array;

/// Whether there are any.
pub(crate) const AVAILABLE: bool = cfg!(target_os = "linux");

/// The shape of one layer's attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    /// Values of a head.
    pub(crate) dim: usize,
    /// Keys that a query sees, its own included.
    pub(crate) window: Option<usize>,
    /// Whether neighbours rotate together, and not the halves of a head.
    pub(crate) neighbours: bool,
    /// Of the norms of queries and keys.
    pub(crate) eps: f32,
}

impl AttentionShape {
    /// Whether the kernel is made for it.
    pub(crate) fn is_supported(&self) -> bool {
        self.dim.is_multiple_of(16)
            && self.dim <= 256
            && self.n_heads.is_multiple_of(self.n_kv_heads)
            && self.n_heads / self.n_kv_heads <= 16
    }
}

/// New tokens of one sequence within a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionRow {
    /// Where they begin among the step's tokens.
    pub(crate) start: usize,
    pub(crate) n: usize,
    /// Tokens in the sequence before.
    pub(crate) position: usize,
}

/// All tensors of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionInputs<'a> {
    /// `[n_tokens, (n_heads + 2 n_kv_heads) · dim]`.
    pub(crate) qkv: &'a Array,
    /// `[n_tokens, dim / 2]`.
    pub(crate) cos: &'a Array,
    /// `[n_tokens, dim / 2]`.
    pub(crate) sin: &'a Array,
    /// `[n_heads + n_kv_heads, dim]`.
    pub(crate) norm: Option<&'a Array>,
    /// Keys and values of each row by turns, `[n_kv_heads, capacity, dim]`.
    pub(crate) buffers: &'a [&'a Array],
}

/// `x / sqrt(mean(x²) + eps) · weight` over the last axis, for contiguous f32. On the thread's stream.
///
/// # Errors
/// Where there is not one weight per column, and for other types; at evaluation, for other layouts.
pub(crate) fn rms_norm(x: &Array, weight: &Array, eps: f32) -> Result<Array, RawError> {
    let stream = Stream::thread_local_or_default();
    array("norm", |result| {
        // SAFETY: the handles are alive during the call, and `result` is an empty one.
        unsafe { kernels::duet_rms_norm(result, x.as_ptr(), weight.as_ptr(), eps, stream.as_ptr()) }
    })
}

/// `silu(gate) · up` of contiguous f32 `[n, 2 · width]`, gate before up. On the thread's stream.
///
/// # Errors
/// For an odd width and other types; at evaluation, for other layouts.
pub(crate) fn swiglu(both: &Array) -> Result<Array, RawError> {
    let stream = Stream::thread_local_or_default();
    array("gate", |result| {
        // SAFETY: as in `rms_norm`.
        unsafe { kernels::duet_swiglu(result, both.as_ptr(), stream.as_ptr()) }
    })
}

/// The attention of the rows' tokens, `[tokens of the rows, n_heads · dim]`, then the buffers with the new keys and
/// values in them. On the thread's stream.
///
/// # Errors
/// Where shapes do not fit, and for types other than f32; at evaluation, for arrays that are not contiguous.
pub(crate) fn attention(
    inputs: AttentionInputs<'_>,
    rows: &[AttentionRow],
    shape: AttentionShape,
) -> Result<Vec<Array>, RawError> {
    let small = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let shape = kernels::duet_attention_shape {
        n_heads: small(shape.n_heads),
        n_kv_heads: small(shape.n_kv_heads),
        dim: small(shape.dim),
        window: shape.window.map_or(0, small),
        neighbours: shape.neighbours,
        eps: shape.eps,
    };
    let rows = rows.iter().map(|row| kernels::duet_attention_row {
        start: row.start as i64,
        n: row.n as i64,
        position: row.position as i64,
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(inputs.buffers.len(), 2 * rows.len(), "keys and values of each row");
    let buffers: Vec<_> = inputs.buffers.iter().map(|buffer| buffer.as_ptr()).collect();
    let norm = inputs.norm.map(Array::as_ptr);
    let stream = Stream::thread_local_or_default();
    // SAFETY: empty handles, which own nothing yet.
    let mut results: Vec<_> = (0..=buffers.len()).map(|_| unsafe { mlx_sys::mlx_array_new() }).collect();
    let outcome = call("attention", || {
        // SAFETY: the handles, rows and places are alive during the call; there are as many buffers as it reads, two to
        // a row, and as many results as it fills, one more.
        unsafe {
            kernels::duet_attention(
                results.as_mut_ptr(),
                inputs.qkv.as_ptr(),
                inputs.cos.as_ptr(),
                inputs.sin.as_ptr(),
                norm.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
                buffers.as_ptr(),
                rows.as_ptr(),
                rows.len(),
                shape,
                stream.as_ptr(),
            )
        }
    });
    // SAFETY: each handle is valid whether it was filled or not, and belongs to its array from here on.
    let results = results.into_iter().map(|handle| unsafe { Array::from_ptr(handle) }).collect();
    outcome.map(|()| results)
}

/// Floats per vector that the kernels work with on this machine; `None` where there are none.
pub(crate) fn n_lanes() -> Option<usize> {
    // SAFETY: takes no argument and returns a number.
    usize::try_from(unsafe { kernels::duet_kernel_lanes() }).ok().filter(|lanes| *lanes > 0)
}
