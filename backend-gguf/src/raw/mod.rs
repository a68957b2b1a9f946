//! The only place of duet with `unsafe`: llama.cpp's C interface behind owned types.
//!
//! Process and model level go through llama-cpp-2 where it has what is needed; contexts, batches, memory and state are
//! raw, because one context cannot be served by both layers. What always holds:
//!
//! * a [`Context`] keeps its [`Model`] alive and is dropped before it;
//! * nothing that a caller can pass reaches a `GGML_ASSERT` (which ends the process): every call checks first;
//! * no Rust panic crosses into C.

mod baseline;
mod batch;
mod buffers;
mod context;
mod log;
mod model;
mod process;
mod products;
mod settings;
mod vocab;

pub use baseline::{RawLoop, argmax};
pub(crate) use batch::{Batch, BatchRow};
pub(crate) use buffers::Buffers;
pub(crate) use context::{Context, DecodeError};
pub(crate) use model::{Model, ModelError, ModelFacts, ModelSettings};
pub(crate) use process::library;
pub(crate) use products::Products;
pub(crate) use settings::{ContextSettings, FlashAttention, Purpose, SWA_FULL};
pub(crate) use vocab::VocabTables;
