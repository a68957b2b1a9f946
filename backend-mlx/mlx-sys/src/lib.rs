//! Raw bindings to mlx-c.
//!
//! The same crate as the published one of this version for every caller; what differs on Linux is how it is built (see
//! build.rs), and [`adopt`], [`blas`] and [`kernels`], which the published one does not have.
#![allow(non_upper_case_globals, non_camel_case_types, non_snake_case, missing_docs)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

#[cfg(target_os = "linux")]
mod half;
#[cfg(target_os = "linux")]
pub use half::*;

#[cfg(target_os = "linux")]
pub mod blas;
pub mod kernels;

pub mod adopt;
