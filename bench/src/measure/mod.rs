//! Measuring one request: at the runner's level and at the engine's.

mod engine;
mod runner;
mod wash_out;

pub(crate) use engine::FirstToken;
pub use engine::{EngineSample, measure_engine};
pub(crate) use runner::Sequence;
pub use runner::{RunnerSample, RunnerWork, measure_runner};
pub use wash_out::{WashOut, WashOutRule, wash_out};

use duet_core::BackendError;

use crate::validity::Code;

/// Why a request could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The engine failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The server did not answer as it should.
    #[error(transparent)]
    Http(#[from] crate::http::HttpError),
    /// The KV cache was not empty before the request, so its work would not be what is stated.
    #[error("the KV cache held {n_cells} tokens before the request")]
    CacheNotEmpty {
        /// Cells in use.
        n_cells: u32,
    },
    /// A row of logits held a NaN.
    #[error("the logits were not finite at position {position}")]
    NonFinite {
        /// Tokens in the cache when they came.
        position: u32,
    },
    /// The work asks for more than there is.
    #[error("{message}")]
    Work {
        /// What does not fit.
        message: String,
    },
    /// The stream ended in another way than by its length.
    #[error("{n_tokens} tokens came where {wanted} were asked for ({ending})")]
    TokenCount {
        /// Tokens that came.
        n_tokens: usize,
        /// Tokens that were asked for.
        wanted: u32,
        /// How it ended.
        ending: String,
        /// Whether the model ended it (an end-of-generation token that should have been ignored).
        stopped: bool,
    },
}

impl MeasureError {
    /// The code of a finding, for failures that have one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::NonFinite { .. } => Some(Code::NonFinite),
            Self::TokenCount { stopped: true, .. } => Some(Code::EarlyEos),
            Self::TokenCount { .. } => Some(Code::Tokens),
            _ => None,
        }
    }
}
