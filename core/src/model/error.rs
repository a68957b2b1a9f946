//! What can be wrong with a model on disk, as something a caller can act on.

use std::path::{Path, PathBuf};

/// Why a model could not be described or read. Every `Display` is one line that names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFileError {
    /// Nothing is there.
    #[error("{}: no such file or directory", path.display())]
    NotFound {
        /// What was asked for.
        path: PathBuf,
    },
    /// The operating system refused; the source says why.
    #[error("{}: cannot be read ({source})", path.display())]
    Io {
        /// The file in question.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Something is there, and it is not a model that duet knows.
    #[error("{}: not a model: {why}", path.display())]
    NotAModel {
        /// The file or directory in question.
        path: PathBuf,
        /// What it seems to be, and what to name instead where that can be told.
        why: String,
    },
    /// The file contradicts its own format.
    #[error("{}: malformed{}: {what}", path.display(), At(*offset))]
    Malformed {
        /// The file in question.
        path: PathBuf,
        /// The contradiction.
        what: String,
        /// Where in the file it was met, in bytes; none for JSON files and contradictions between files.
        offset: Option<u64>,
    },
    /// The file ends before what its header promises.
    #[error("{}: truncated: {have_bytes} bytes of at least {need_bytes}", path.display())]
    Truncated {
        /// The file in question.
        path: PathBuf,
        /// The least length at which the header's promises could hold, in bytes.
        need_bytes: u64,
        /// The length found, in bytes.
        have_bytes: u64,
    },
    /// A model in several files lacks one.
    #[error("{}: the shard {shard} is missing", path.display())]
    MissingShard {
        /// What names the shard: the directory, or the shard that was found.
        path: PathBuf,
        /// The file name that is missing.
        shard: String,
    },
    /// A version of the format that cannot be read (GGUF before 2 or after 3).
    #[error("{}: GGUF version {version} is not supported (2 and 3 are)", path.display())]
    UnsupportedVersion {
        /// The file in question.
        path: PathBuf,
        /// The version it states.
        version: u32,
    },
    /// A GGUF file written for a big-endian machine.
    #[error("{}: a big-endian GGUF file; only little-endian ones can be read", path.display())]
    BigEndian {
        /// The file in question.
        path: PathBuf,
    },
    /// A tensor in an encoding that is unknown or was withdrawn.
    #[error("{}: tensor {tensor:?} has the unsupported type {type_name}", path.display())]
    UnsupportedTensorType {
        /// The file in question.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The type's number or name, and whether it was withdrawn.
        type_name: String,
    },
    /// A number that no real model has; refused before anything is allocated for it.
    #[error("{}: {what} is {value}, more than the limit of {limit}", path.display())]
    LimitExceeded {
        /// The file in question.
        path: PathBuf,
        /// What is counted.
        what: String,
        /// The count found.
        value: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// A tensor was asked for that the model does not have.
    #[error("{}: there is no tensor {tensor:?}", path.display())]
    NoSuchTensor {
        /// The file or directory in question.
        path: PathBuf,
        /// The name asked for.
        tensor: String,
    },
}

impl ModelFileError {
    /// The file or directory that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::NotFound { path }
            | Self::Io { path, .. }
            | Self::NotAModel { path, .. }
            | Self::Malformed { path, .. }
            | Self::Truncated { path, .. }
            | Self::MissingShard { path, .. }
            | Self::UnsupportedVersion { path, .. }
            | Self::BigEndian { path }
            | Self::UnsupportedTensorType { path, .. }
            | Self::LimitExceeded { path, .. }
            | Self::NoSuchTensor { path, .. } => path,
        }
    }

    /// `Io`, or `NotFound` where that is what the operating system says.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    /// `Malformed` without a byte offset.
    pub(crate) fn malformed(path: &Path, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into(), offset: None }
    }
}

/// " at byte 24", or nothing.
struct At(Option<u64>);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " at byte {offset}"),
            None => Ok(()),
        }
    }
}
