//! Why there is no report at all. An arm that fails while it is measured is part of the report instead.

use std::path::PathBuf;

use duet_core::BackendError;
use duet_core::text::TokenizerError;

use crate::parity::Difference;

/// Why a bench could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// An option is out of range, or two contradict each other.
    #[error("{option} {message}")]
    Option {
        /// The option, as [`crate::BenchOptions`] names it.
        option: &'static str,
        /// What it has to be.
        message: String,
    },
    /// The path holds no model.
    #[error("cannot read the model {}", path.display())]
    Model {
        /// The path given.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BackendError,
    },
    /// This build has not the engines for two arms.
    #[error(
        "an A/B needs two engines, and this build has {n_engines} ({known}); name one twice to measure it against itself"
    )]
    TooFewEngines {
        /// Engines of this build.
        n_engines: usize,
        /// Their ids.
        known: String,
    },
    /// An engine cannot take its model.
    #[error("arm {arm}: the {engine} engine cannot take {}", path.display())]
    Refused {
        /// "A" or "B".
        arm: &'static str,
        /// The engine's id.
        engine: String,
        /// The model.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<BackendError>,
    },
    /// The arms would not get the same work.
    #[error(
        "the tokenizers of {} and {} are not the same, so the arms would get different work: {difference}",
        a.display(), b.display()
    )]
    TokenizersDiffer {
        /// The first model.
        a: PathBuf,
        /// The second.
        b: PathBuf,
        /// The first thing in which they differ.
        difference: Box<Difference>,
    },
    /// The text cannot be tokenised.
    #[error("cannot tokenise the text")]
    Tokenize(#[from] TokenizerError),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of prompts is not what it should be.
    #[error("{}, line {line}: {message}", path.display())]
    Prompts {
        /// The file, or the name of a built-in set.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The text is too short for the work.
    #[error("the text has {n_tokens} tokens, and this work needs {n_needed}; give a longer one")]
    TextTooShort {
        /// Tokens of the text.
        n_tokens: usize,
        /// Tokens needed.
        n_needed: usize,
    },
    /// The model's context is too short for the work.
    #[error("{n_needed} tokens per request are asked for, and {} has a context of {context_length}", path.display())]
    ContextTooShort {
        /// The model.
        path: PathBuf,
        /// Its context length.
        context_length: u32,
        /// Tokens needed.
        n_needed: usize,
    },
    /// The runtime is going down.
    #[error("a background task was lost")]
    Task(#[from] tokio::task::JoinError),
}
