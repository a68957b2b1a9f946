//! Everything that leaves mlx-rs: raw mlx-c calls, their errors, and process-wide settings of libmlx.
//!
//! The only place of this crate with `unsafe`. It knows nothing of models.

pub(crate) mod bits;
pub(crate) mod blas;
pub(crate) mod bytes;
pub(crate) mod devices;
mod error;
pub(crate) mod kernels;
pub(crate) mod pages;
mod process;
pub(crate) mod slices;
#[cfg(test)]
mod tests;

pub(crate) use error::RawError;
#[cfg(test)]
use error::call;
#[cfg(test)]
use process::version;
pub(crate) use process::{BUILT_FOR, start};
