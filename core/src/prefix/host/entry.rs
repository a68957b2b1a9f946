//! What the tier knows of one snapshot, and what follows from that for others to do.

use std::sync::Arc;
use std::time::SystemTime;

use super::EntryId;
use crate::runner::SequenceSnapshot;
use crate::text::TokenId;

/// How far the writer is with an entry that has no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// Nobody has asked for it.
    No,
    /// The writer has been told.
    Queued,
    /// The writer has the snapshot in its hands, so that dropping it here would free nothing.
    Now,
    /// There was no room, or the disk refused. Tried once more when all is to be saved.
    Failed,
}

/// An entry's file, as this tier knows it.
#[derive(Debug)]
pub(super) struct StoredFile {
    pub(super) name: String,
    pub(super) n_bytes: u64,
}

/// A snapshot: in memory, in a file, or in both.
#[derive(Debug)]
pub(super) struct Entry {
    /// Bytes of the snapshot, as this process holds it or would.
    pub(super) n_bytes: u64,
    pub(super) snapshot: Option<Arc<SequenceSnapshot>>,
    pub(super) file: Option<StoredFile>,
    pub(super) writing: Writing,
    /// For the file, whose rank among those of other processes it decides.
    pub(super) used: SystemTime,
}

impl Entry {
    /// In memory alone, and nobody is about to write it.
    pub(super) fn is_unsaved(&self) -> bool {
        self.file.is_none() && matches!(self.writing, Writing::No | Writing::Failed)
    }
}

/// What the writer needs for one entry.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) tokens: Vec<TokenId>,
    pub(super) snapshot: Arc<SequenceSnapshot>,
    pub(super) used: SystemTime,
}

/// Work for the writer that a change here made necessary.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Write the entry, if it is still wanted then.
    Write(EntryId),
    /// Delete a file that no entry has any more.
    Delete(String),
    /// Note that a file was used.
    Touch(String, SystemTime),
}

/// Where an entry's snapshot can be had.
#[derive(Debug)]
pub(super) enum Place {
    Memory(Arc<SequenceSnapshot>),
    File(String),
}
