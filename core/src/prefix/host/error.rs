//! What can go wrong with a file of the tier.

use std::io;

/// Why the file of a prefix cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixFileError {
    /// It begins otherwise.
    #[error("it is not a file of prefixes")]
    Foreign,
    /// A directory, a symbolic link, a pipe or a file of another user lies in its place.
    #[error("it is not a regular file of this user")]
    NotOurs,
    /// Written by another release of duet.
    #[error("its format version is {version}")]
    OtherVersion {
        /// As the file says.
        version: u32,
    },
    /// For another model, engine or setting.
    #[error("it is for another model")]
    OtherModel,
    /// A valid file of other tokens lies in its place.
    #[error("it holds other tokens")]
    OtherTokens,
    /// Longer than all files together may be.
    #[error("it has {n_bytes} bytes, more than all files may have")]
    TooBig {
        /// Its size.
        n_bytes: u64,
    },
    /// No tokens, or more than any context.
    #[error("it says that it has {n_tokens} tokens")]
    TooManyTokens {
        /// As the header says.
        n_tokens: u32,
    },
    /// Cut off, or with something behind it.
    #[error("it has {found} bytes instead of {expected}")]
    WrongLength {
        /// By its header.
        expected: u64,
        /// By the file system.
        found: u64,
    },
    /// A bit has changed.
    #[error("the checksum of its {part} is wrong")]
    Checksum {
        /// "header", "tokens" or "payload".
        part: &'static str,
    },
    /// Its payload is more than this process can get.
    #[error("there is no memory for its {n_bytes} bytes")]
    NoMemory {
        /// Bytes that were asked for.
        n_bytes: u64,
    },
    /// The operating system refused.
    #[error("{operation} failed")]
    Io {
        /// "open", "read", "write", ...
        operation: &'static str,
        /// As the operating system says.
        #[source]
        source: io::Error,
    },
}

impl PrefixFileError {
    /// It can be of use to nobody any more.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::TooManyTokens { .. } | Self::WrongLength { .. } | Self::Checksum { .. })
    }
}

/// For `map_err`: names what was tried.
pub(super) fn io_error(operation: &'static str) -> impl Fn(io::Error) -> PrefixFileError {
    move |source| PrefixFileError::Io { operation, source }
}

/// Why an entry's snapshot does not come. Except for `Closed`, the entry is forgotten with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It was never there, or had to go since it was found.
    #[error("the entry is not there any more")]
    Unknown,
    /// Its file is gone: another process that shares the folder needed the room, or somebody deleted it.
    #[error("the entry's file is not there any more")]
    Vanished,
    /// Its file is there and cannot be used. A damaged one has been deleted.
    #[error("the entry's file cannot be used")]
    File(#[source] PrefixFileError),
    /// The tier was closed or dropped meanwhile.
    #[error("the tier is closed")]
    Closed,
}
