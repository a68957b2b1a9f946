//! duet: MLX models, and .gguf files, through mlx-rs.
