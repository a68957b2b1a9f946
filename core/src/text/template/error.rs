//! What can go wrong with a chat template, and whose fault it is.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;

use minijinja::ErrorKind;

/// Why a conversation has no prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The model comes without a chat template: it is no chat model, or its files are incomplete.
    #[error("the model has no chat template; use plain completions, or give it a template")]
    Missing,
    /// A file that holds templates cannot be read.
    #[error("cannot read {}: {message}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A template does not compile.
    #[error("the model's chat template \"{name}\" is malformed{}: {message}", Line(*line))]
    Malformed {
        /// Which of the model's templates.
        name: String,
        /// What is wrong.
        message: String,
        /// Where, counted from 1.
        line: Option<usize>,
    },
    /// The template itself refused the conversation (`raise_exception`): the request is invalid.
    #[error("{message}")]
    Raised {
        /// The template's words.
        message: String,
    },
    /// The request asks for something contradictory: the request is invalid.
    #[error("{message}")]
    InvalidInput {
        /// What does not go together.
        message: String,
    },
    /// The template wanted more work, memory, output or depth than any template needs.
    #[error("the model's chat template exceeds its limit of {what}")]
    LimitExceeded {
        /// The limit: `work and memory`, `output` or `recursion`.
        what: &'static str,
    },
    /// The template went wrong: it is faulty, or this conversation is not what it was written for.
    #[error("the model's chat template failed{}: {message}", Line(*line))]
    Failed {
        /// What went wrong.
        message: String,
        /// Where, counted from 1.
        line: Option<usize>,
    },
}

/// ` in line 3`, or nothing.
struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(line) => write!(f, " in line {line}"),
            None => Ok(()),
        }
    }
}

/// What `raise_exception` was called with; travels as the source of an engine error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raise(pub(super) String);

impl TemplateError {
    pub(super) fn from_compile(name: &str, error: &minijinja::Error) -> Self {
        Self::Malformed { name: name.to_owned(), message: message(error), line: error.line() }
    }

    pub(super) fn from_render(error: &minijinja::Error) -> Self {
        let mut innermost = error;
        loop {
            if innermost.kind() == ErrorKind::OutOfFuel {
                return Self::LimitExceeded { what: "work and memory" };
            }
            if innermost.detail() == Some("recursion limit exceeded") {
                return Self::LimitExceeded { what: "recursion" };
            }
            let Some(source) = innermost.source() else { break };
            if let Some(raise) = source.downcast_ref::<Raise>() {
                return Self::Raised { message: raise.0.clone() };
            }
            let Some(next) = source.downcast_ref::<minijinja::Error>() else { break };
            innermost = next;
        }
        Self::Failed { message: message(innermost), line: error.line() }
    }
}

fn message(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
