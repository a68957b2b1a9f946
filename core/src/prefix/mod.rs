//! What is known of prefixes: which sequence holds how much of a prompt, and snapshots that had to leave the engine.
//!
//! [`PrefixIndex`] is a radix tree over token ids; it names holders and owns nothing but token ids. [`HostTier`] keeps
//! snapshots of sequences in host memory and in files, within byte budgets. Neither knows an engine, a tensor or a
//! request; snapshots are opaque bytes.

mod host;
mod index;
#[cfg(test)]
mod index_tests;
mod nodes;

pub use host::{
    EntryId, FetchError, Flushed, HostMatch, HostTier, HostTierStats, ModelKey, PrefixFileError, Put, Reuse,
};
pub use index::{Among, HolderId, Match, PrefixIndex};
