//! Why a load run stopped.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use duet_core::text::TokenizerError;

use crate::http::HttpError;

/// Why there is no measurement, or only a part of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// An option is out of range, or two contradict each other.
    #[error("{0}")]
    Option(String),
    /// The text cannot be tokenised.
    #[error("cannot tokenise the text")]
    Tokenize(#[from] TokenizerError),
    /// A server cannot be started.
    #[error("cannot start {arm}: {command}")]
    Start {
        /// The arm.
        arm: String,
        /// Its command line.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A server ended while it was needed.
    #[error("{arm} ended with {status}; the end of its log:\n{log}")]
    Exited {
        /// The arm.
        arm: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of what it wrote.
        log: String,
    },
    /// A server did not get ready, or did not stop.
    #[error("{arm} was not {what} after {} s; the end of its log:\n{log}", limit.as_secs())]
    Late {
        /// The arm.
        arm: String,
        /// "ready", "gone".
        what: &'static str,
        /// How long was waited.
        limit: Duration,
        /// The last lines of what it wrote.
        log: String,
    },
    /// A request failed.
    #[error("{arm}: {during}")]
    Request {
        /// The arm.
        arm: String,
        /// What the request was for.
        during: String,
        /// What went wrong.
        #[source]
        source: HttpError,
    },
    /// An engine failed.
    #[error("{arm}: {during}")]
    Engine {
        /// The arm.
        arm: String,
        /// What the request was for.
        during: String,
        /// What went wrong.
        #[source]
        source: duet_core::BackendError,
    },
    /// Answers came that give no figure.
    #[error("{arm}: {problem}")]
    Answer {
        /// The arm.
        arm: String,
        /// What is wrong with them.
        problem: String,
    },
}
