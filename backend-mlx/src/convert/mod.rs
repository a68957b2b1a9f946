//! Weights on the host: blocks of ggml and MLX's packed groups, between bytes and numbers.
//!
//! Plain Rust over byte slices; knows nothing of libmlx. [`dequantize`] reads values straight from ggml's block layouts,
//! [`repack`] regroups the same blocks into MLX's affine form. The two share no code, so that one can prove the other.

pub mod affine;
pub mod dequantize;
pub mod half;
pub mod matrix;
pub mod permute;
pub mod repack;

#[cfg(test)]
pub(crate) mod tests;
