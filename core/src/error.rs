//! The one error type of the contract. Its variants are what a caller can act on.
//!
//! `Display` names what failed and leaves its source out; whoever logs prints the chain. The server maps variants to
//! status codes in one place and knows nothing else about an engine's failures.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::ModelFileError;

/// A boxed error of an engine library, kept as the source of a [`BackendError`].
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What can go wrong between a request and its answer, in terms a caller can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A parameter or the prompt is not acceptable on any engine.
    #[error("{message}")]
    InvalidRequest {
        /// The parameter at fault as the API names it, if one is.
        param: Option<Cow<'static, str>>,
        /// One sentence for the client.
        message: String,
    },
    /// The request is valid, but this engine cannot do it.
    #[error("{feature} is not supported by the {backend} engine")]
    Unsupported {
        /// The parameter or ability asked for, as the API names it.
        feature: Cow<'static, str>,
        /// The engine's id ([`crate::BackendInfo::id`]).
        backend: Cow<'static, str>,
    },
    /// The prompt leaves no room for a single new token.
    #[error(
        "the prompt has {n_prompt_tokens} tokens, but the context length is {context_length} tokens and at least one has to be left for the answer"
    )]
    ContextLengthExceeded {
        /// Tokens of the prompt.
        n_prompt_tokens: usize,
        /// Most tokens, prompt and completion together, of one request.
        context_length: usize,
    },
    /// The path holds no model, or one that cannot be read.
    #[error(transparent)]
    ModelFile(#[from] ModelFileError),
    /// The engine was left out of this build.
    #[error("this build of duet has no {backend} engine (feature `{feature}` was off)")]
    NotCompiledIn {
        /// The engine's id.
        backend: &'static str,
        /// The cargo feature of the `duet` package that brings it in.
        feature: &'static str,
    },
    /// The headers are fine, but the engine has no forward pass for this architecture.
    #[error("the {backend} engine does not support architecture `{architecture}` ({detail})")]
    UnsupportedArchitecture {
        /// As the model file names it.
        architecture: String,
        /// The engine's id.
        backend: &'static str,
        /// What is missing, or what is supported.
        detail: String,
    },
    /// Loading failed for a reason other than the file's headers.
    #[error("loading {path} failed")]
    LoadFailed {
        /// The model's file or directory.
        path: PathBuf,
        /// What the engine said.
        #[source]
        source: BoxError,
    },
    /// The load future was dropped, or its progress sink said stop.
    #[error("the load was cancelled")]
    LoadCancelled,
    /// The model cannot be held in memory; the text carries the arithmetic.
    #[error("{detail}")]
    InsufficientMemory {
        /// Bytes the load would take.
        need_bytes: u64,
        /// Bytes that are free.
        available_bytes: u64,
        /// The whole sum, in words.
        detail: String,
    },
    /// The request queue is full.
    #[error("{queue_length} requests are waiting already")]
    Overloaded {
        /// Requests waiting.
        queue_length: usize,
        /// When a place in the queue should be free, from the rate at which requests ended lately.
        retry_after: Duration,
    },
    /// The request's deadline passed before it was answered.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The request's reader stood still for too long with a full stream.
    #[error("the client stopped reading its stream")]
    StalledReader,
    /// The model is being unloaded or the process is ending.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The engine's thread is gone, or its state can no longer be trusted.
    #[error("the engine stopped: {detail}")]
    EngineCrashed {
        /// What is known.
        detail: String,
    },
    /// The KV cache has no room for a step that was planned. The scheduler handles it; it never reaches a client.
    #[error("no room for {n_rows} more cells in the KV cache")]
    KvCacheFull {
        /// Rows of the step.
        n_rows: usize,
    },
    /// A call into the engine's library failed.
    #[error("{operation} failed")]
    Engine {
        /// The operation, as a noun ("decode").
        operation: &'static str,
        /// What the library said.
        #[source]
        source: BoxError,
    },
}

impl BackendError {
    /// An [`BackendError::InvalidRequest`] about one parameter.
    pub fn invalid(param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::InvalidRequest { param: Some(param.into()), message: message.into() }
    }

    /// An [`BackendError::Engine`] from a library's error or a plain text.
    pub fn engine(operation: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Engine { operation, source: source.into() }
    }

    /// A [`BackendError::LoadFailed`] from a library's error or a plain text.
    pub fn load_failed(path: impl Into<PathBuf>, source: impl Into<BoxError>) -> Self {
        Self::LoadFailed { path: path.into(), source: source.into() }
    }

    /// The error and its sources, joined by ": ", for a log line or a terminal.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// `error` and its sources, joined by ": ".
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        // A transparent wrapper prints its source: do not say it twice.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}
