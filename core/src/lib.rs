//! duet's contract, and everything that both engines share.
//!
//! Knows nothing of HTTP and nothing of any engine library. An engine crate implements [`ModelRunner`].

pub mod error;
pub mod model;
pub mod runner;
pub mod sampling;
pub mod text;

pub use error::{BackendError, BoxError, chain};
pub use runner::*;
