//! duet's contract, and everything that both engines share.
//!
//! Knows nothing of HTTP and nothing of any engine library. An engine crate implements [`ModelRunner`] and
//! [`InferenceBackend`]; [`engine::Engine`] turns a runner into a [`LoadedModel`].

pub mod backend;
pub mod constraint;
pub mod decision;
pub mod embedding;
pub mod engine;
pub mod error;
pub mod event;
pub mod model;
pub mod prefix;
pub mod registry;
pub mod request;
pub mod runner;
pub mod sampling;
mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;

pub use backend::*;
pub use constraint::{Constraint, ConstraintCompiler, ConstraintError, ConstraintSpec};
pub use embedding::{Pooler, Pooling, TextPart};
pub use error::{BackendError, BoxError, chain};
pub use event::{FinishReason, Finished, GenerationEvent, StopCause, Timings, TokenEvent, Usage};
pub use registry::{EngineChoice, Registry, Selection, TextAssets, TextResolver};
pub use request::{GenerateRequest, LogprobsRequest, Priority};
pub use runner::*;
pub use stream::GenerationStream;
