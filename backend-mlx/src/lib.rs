//! duet: MLX models, and .gguf files, through mlx-rs.
//!
//! [`MlxBackend`] is the engine. It loads MLX directories and .gguf files onto one thread for the whole process, because
//! libmlx binds its streams to threads; several models take turns there. Without feature `mlx` the same names exist and
//! answer [`duet_core::BackendError::NotCompiledIn`].
//!
//! Inside, from below: [`convert`] (bytes of weights, no libmlx), `raw` (unsafe calls), `tensor` (lazy arrays; the last
//! module that names mlx-rs), `cache` and `models` (forward passes), `loader` (files to models), `runner` (steps of core's
//! contract).

pub mod convert;

#[cfg(feature = "mlx")]
mod backend;
#[cfg(feature = "mlx")]
mod cache;
#[cfg(feature = "mlx")]
mod exactness;
#[cfg(feature = "mlx")]
mod loader;
#[cfg(feature = "mlx")]
mod memory;
#[cfg(feature = "mlx")]
mod models;
#[cfg(feature = "mlx")]
mod probe;
#[cfg(feature = "mlx")]
mod raw;
#[cfg(feature = "mlx")]
mod runner;
#[cfg(feature = "mlx")]
mod tensor;

#[cfg(not(feature = "mlx"))]
mod stub;

#[cfg(feature = "mlx")]
pub use backend::MlxBackend;
#[cfg(feature = "mlx")]
pub use exactness::{check_exactness, show_weights};
#[cfg(not(feature = "mlx"))]
pub use stub::{MlxBackend, check_exactness, show_weights};

mod report;
pub use report::{Difference, EachTensor, ExactnessReport};

/// The engine's id.
pub const ID: &str = "mlx";
