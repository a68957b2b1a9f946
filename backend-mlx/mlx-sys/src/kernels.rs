//! duet's own kernels as operations of libmlx's graphs (native/kernels), on Linux. All give 0, or 1 after telling mlx-c's
//! error handler.

use std::os::raw::{c_float, c_int};

use crate::{mlx_array, mlx_stream};

/// The shape of one layer's attention.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct duet_attention_shape {
    pub n_heads: c_int,
    pub n_kv_heads: c_int,
    /// Values of a head: a multiple of 16 up to 256.
    pub dim: c_int,
    /// Keys that a query sees, its own included; 0 for all.
    pub window: c_int,
    /// Whether neighbours rotate together, and not the halves of a head.
    pub neighbours: bool,
    /// Of the norms of queries and keys.
    pub eps: c_float,
}

/// New tokens of one sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct duet_attention_row {
    /// Place of the first among all tokens of the step.
    pub start: i64,
    pub n: i64,
    /// Tokens in the sequence before.
    pub position: i64,
}

#[cfg(target_os = "linux")]
unsafe extern "C" {
    /// `x / sqrt(mean(x^2) + eps) * weight` over the last axis.
    pub fn duet_rms_norm(
        result: *mut mlx_array,
        x: mlx_array,
        weight: mlx_array,
        eps: c_float,
        stream: mlx_stream,
    ) -> c_int;
    /// `silu(gate) * up` of `[n, 2 * width]`, gate before up.
    pub fn duet_swiglu(result: *mut mlx_array, both: mlx_array, stream: mlx_stream) -> c_int;
    /// Attention of the rows' tokens `[tokens, n_heads * dim]` in `results[0]`, then keys and values of each row, which are
    /// written in place where `buffers` are not held otherwise. `norm` may be null.
    pub fn duet_attention(
        results: *mut mlx_array,
        qkv: mlx_array,
        cos: mlx_array,
        sin: mlx_array,
        norm: *const mlx_array,
        buffers: *const mlx_array,
        rows: *const duet_attention_row,
        n_rows: usize,
        shape: duet_attention_shape,
        stream: mlx_stream,
    ) -> c_int;
    /// Floats per vector of the kernels on this machine: 16, 8 or 4; 0 where there are none.
    pub fn duet_kernel_lanes() -> c_int;
}

#[cfg(not(target_os = "linux"))]
pub use elsewhere::*;

/// The same names where they are not built: all fail.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::*;

    pub unsafe fn duet_rms_norm(_: *mut mlx_array, _: mlx_array, _: mlx_array, _: c_float, _: mlx_stream) -> c_int {
        1
    }

    pub unsafe fn duet_swiglu(_: *mut mlx_array, _: mlx_array, _: mlx_stream) -> c_int {
        1
    }

    pub unsafe fn duet_attention(
        _: *mut mlx_array,
        _: mlx_array,
        _: mlx_array,
        _: mlx_array,
        _: *const mlx_array,
        _: *const mlx_array,
        _: *const duet_attention_row,
        _: usize,
        _: duet_attention_shape,
        _: mlx_stream,
    ) -> c_int {
        1
    }

    pub unsafe fn duet_kernel_lanes() -> c_int {
        0
    }
}
