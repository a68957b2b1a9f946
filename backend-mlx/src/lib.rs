//! duet: MLX models, and .gguf files, through mlx-rs.

#[cfg(feature = "mlx")]
pub mod raw;
