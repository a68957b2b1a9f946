//! The file of decisions: JSON, one for a user, read whole.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Decision;

/// Decisions about models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DecisionFile {
    /// [`DecisionFile::SCHEMA`].
    pub schema: String,
    /// The decisions, at most one for a model, a machine and a pair of engines.
    pub decisions: Vec<Decision>,
}

/// Why a file of decisions cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecisionError {
    /// It cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// "read" or "write".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is none, or a broken one.
    #[error("{} is no file of decisions", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where, and how.
        #[source]
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("{} is `{found}`, and this duet reads {}", path.display(), DecisionFile::SCHEMA)]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says it is.
        found: String,
    },
    /// It is too long to be one.
    #[error("{} has {n_bytes} bytes; a file of decisions has at most {}", path.display(), DecisionFile::MAX_BYTES)]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        n_bytes: u64,
    },
}

impl Default for DecisionFile {
    /// No decisions.
    fn default() -> Self {
        Self { schema: Self::SCHEMA.to_owned(), decisions: Vec::new() }
    }
}

impl DecisionFile {
    /// The name and version of the format.
    pub const SCHEMA: &'static str = "duet-decisions/1";
    /// Longer files are refused unread.
    pub const MAX_BYTES: u64 = 16 << 20;

    /// The decisions in a file.
    ///
    /// # Errors
    /// [`DecisionError`]; `Io` with `NotFound` for a file that is not there.
    pub fn read(path: &Path) -> Result<Self, DecisionError> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            schema: String,
        }
        let io = |source| DecisionError::Io { operation: "read", path: path.to_owned(), source };
        let n_bytes = std::fs::metadata(path).map_err(io)?.len();
        if n_bytes > Self::MAX_BYTES {
            return Err(DecisionError::TooLong { path: path.to_owned(), n_bytes });
        }
        let bytes = std::fs::read(path).map_err(io)?;
        let json = |source| DecisionError::Json { path: path.to_owned(), source };
        let head: Head = serde_json::from_slice(&bytes).map_err(json)?;
        if head.schema != Self::SCHEMA {
            return Err(DecisionError::Schema { path: path.to_owned(), found: head.schema });
        }
        serde_json::from_slice(&bytes).map_err(json)
    }

    /// As [`DecisionFile::read`], but a file that is not there has no decisions.
    ///
    /// # Errors
    /// [`DecisionError`].
    pub fn read_or_empty(path: &Path) -> Result<Self, DecisionError> {
        match Self::read(path) {
            Err(DecisionError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            other => other,
        }
    }

    /// Puts a decision in, in the place of one about the same model, machine and engine ids.
    pub fn put(&mut self, decision: Decision) {
        let ids =
            |decision: &Decision| decision.engines.iter().map(|engine| engine.id.clone()).collect::<Vec<_>>();
        let about = |other: &Decision| {
            other.model.fingerprint == decision.model.fingerprint
                && other.machine == decision.machine
                && ids(other) == ids(&decision)
        };
        self.decisions.retain(|other| !about(other));
        self.decisions.push(decision);
    }

    /// Writes the file beside its place and moves it there, so that a reader finds the old one or the new one whole.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, path: &Path) -> Result<(), DecisionError> {
        let io = |source| DecisionError::Io { operation: "write", path: path.to_owned(), source };
        let json = |source| DecisionError::Json { path: path.to_owned(), source };
        let bytes = serde_json::to_vec_pretty(self).map_err(json)?;
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        std::fs::write(&beside, bytes).map_err(io)?;
        std::fs::rename(&beside, path).map_err(io)
    }
}
