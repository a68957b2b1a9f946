//! What a model will take in memory, computed from its headers: pure arithmetic, no measuring.
//!
//! Exact where the formats and engines are (weights, KV cache), an estimate where they are not (compute buffers); the
//! plan keeps the two apart.

mod error;
mod fit;
mod kv;
mod plan;

pub use error::MemoryError;
pub use fit::{Fit, FitRequest, fit};
pub use kv::{KvAllocation, KvLayout, KvType, kv_bytes, kv_bytes_per_token};
pub use plan::{MemoryPlan, compute_bytes};
