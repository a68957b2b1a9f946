//! Why a constraint cannot be used.

/// What is wrong with a constraint, for the client that sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// A JSON schema says something that cannot be enforced.
    #[error("{message}")]
    UnsupportedSchema {
        /// Where in the schema, as a suffix of its own name: `.properties.a.if`, `[0]`, or nothing for the whole.
        path: String,
        /// One sentence for the client.
        message: String,
    },
    /// It is malformed.
    #[error("{message}")]
    Invalid {
        /// As in [`ConstraintError::UnsupportedSchema`]; empty for grammars, whose messages name lines.
        path: String,
        /// One sentence for the client.
        message: String,
    },
    /// It is beyond the limits of size, nesting or work.
    #[error("{message}")]
    TooComplex {
        /// One sentence for the client.
        message: String,
    },
    /// This tokenizer has nothing to constrain, or the library failed.
    #[error("{message}")]
    Unavailable {
        /// What is missing.
        message: String,
    },
}

impl ConstraintError {
    /// Where in a schema the error is; empty for the whole and for everything else.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::UnsupportedSchema { path, .. } | Self::Invalid { path, .. } => path,
            _ => "",
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { path: String::new(), message: message.into() }
    }

    pub(super) fn too_complex(message: impl Into<String>) -> Self {
        Self::TooComplex { message: message.into() }
    }
}
