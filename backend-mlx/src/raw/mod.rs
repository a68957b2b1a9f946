//! Everything that leaves mlx-rs: raw mlx-c calls, their errors, and process-wide settings of libmlx.
//!
//! The only place of this crate with `unsafe`. It knows nothing of models.

pub mod blas;
mod error;
mod process;
#[cfg(test)]
mod tests;

pub use error::{RawError, call};
pub use process::{BUILT_FOR, start, version};
