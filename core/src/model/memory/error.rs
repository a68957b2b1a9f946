//! Why a memory plan cannot be made or met.

use crate::model::LayerKind;

/// Why a model gets no memory plan. `Display` carries the whole arithmetic.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A layer keeps something else than keys and values per token; there is no rule for it yet, and a guess would be
    /// wrong by factors.
    #[error("the cache of layer {layer} ({kind:?}) cannot be computed from the header")]
    UnknownCache {
        /// Which layer, counted from 0.
        layer: usize,
        /// What it keeps.
        kind: LayerKind,
    },
    /// What was asked for contradicts itself or the model.
    #[error("{param} = {value}: {why}")]
    InvalidRequest {
        /// The field of the request.
        param: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        why: String,
    },
    /// It does not fit.
    #[error("{arithmetic}")]
    Insufficient {
        /// What would be needed, in bytes.
        need_bytes: u64,
        /// What there is, in bytes.
        available_bytes: u64,
        /// One line: the sum with its terms, and what would fit instead.
        arithmetic: String,
    },
}
