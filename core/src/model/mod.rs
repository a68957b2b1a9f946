//! Models on disk: what they are, from their headers alone, and what memory they will take.
//!
//! Knows nothing about engines. Answers in milliseconds; reads no weights; whatever the bytes are, the answer is a
//! description or a typed error, never a panic or an allocation beyond a small multiple of the header.

mod error;
pub mod gguf;
mod info;

pub use error::ModelFileError;
pub use info::{
    GenerationDefaults, LayerInfo, LayerKind, ModelFormat, ModelInfo, RopeInfo, RopeScaling, TokenizerKind,
    WeightSplit, WindowPattern,
};
