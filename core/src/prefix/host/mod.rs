//! [`HostTier`]: snapshots of sequences that had to leave the engine's KV cache, in memory first, then in files.
//!
//! The engine's thread never waits here: what is known of entries is in memory behind a lock that nobody holds while
//! working on a file; files are read and written by two threads of the tier, so that a snapshot that a request waits for
//! does not queue behind one that is being saved. docs/decisions/prefix-cache.md has the reasons and the file format.

mod entry;
mod error;
mod folder;
mod format;
mod key;
mod stats;
mod store;
mod survey;
#[cfg(test)]
mod tests;
mod threads;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use error::{FetchError, PrefixFileError};
pub use key::ModelKey;
pub use stats::HostTierStats;

use self::entry::{Errand, Place};
use self::store::Store;
use self::threads::{Read, Threads};
use super::HolderId;
use crate::backend::PrefixCacheSpec;
use crate::runner::SequenceSnapshot;
use crate::text::TokenId;

/// One snapshot in the tier. Ids are not used again while the tier is open (in its first 2^32 entries).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(HolderId);

/// What a restored sequence can be used for; from [`Capabilities::truncate`](crate::Capabilities::truncate).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It can be cut: any prefix of it is of use, and an entry that is a prefix of another one is not kept.
    AnyPrefix,
    /// It cannot be cut (recurrent and windowed caches): of use only for prompts that begin with all of it.
    WholeOnly,
}

/// The entry that has most of a prompt's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMatch {
    /// For [`HostTier::fetch`].
    pub entry: EntryId,
    /// Tokens in common with the prompt, at least 1.
    pub n_tokens: usize,
    /// Tokens of the snapshot, at least `n_tokens`: the restored sequence is to be cut to `n_tokens`.
    pub n_snapshot_tokens: usize,
    /// It needs no reading of a file.
    pub in_ram: bool,
    /// Bytes of the snapshot.
    pub n_bytes: u64,
}

/// What became of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// In memory.
    Kept(EntryId),
    /// Longer than all of memory's budget: on its way to a file, and held in memory until it is there. One at a time.
    Passing(EntryId),
    /// Dropped; the tier has all of its tokens in this entry, which counts as used now.
    Covered(EntryId),
    /// Dropped: there is no room for it that could be made at once, or its tokens are not those it was made of.
    Refused,
}

/// How saving went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    /// Entries that are in memory alone: there was no time, no room or no disk for them.
    pub n_unsaved: usize,
}

/// The tier of one loaded model. Any thread may call any method; none but [`HostTier::open`], [`HostTier::flush`] and
/// [`HostTier::close`] waits for a file.
///
/// Dropping it without `close` waits for nothing: what is in memory alone is lost, a file being written is finished by a
/// thread that ends after that.
#[derive(Debug)]
pub struct HostTier {
    store: Arc<Mutex<Store>>,
    /// Absent without a folder.
    threads: Option<Threads>,
}

impl HostTier {
    /// The tier for snapshots of `key`, with the entries that files in the folder have for it. Waits until their headers
    /// are read. A folder that cannot be used is logged, counted as an error, and done without.
    pub fn open(spec: &PrefixCacheSpec, key: ModelKey, reuse: Reuse) -> Self {
        let host_bytes = if spec.enabled { spec.host_bytes } else { 0 };
        let store = Arc::new(Mutex::new(Store::new(host_bytes, reuse)));
        let disk = spec.disk.as_ref().filter(|_| spec.enabled);
        let threads = disk.and_then(|disk| match Threads::start(disk.clone(), key, &store) {
            Ok(threads) => Some(threads),
            Err(error) => {
                lock(&store).stats.n_errors += 1;
                let error = crate::error::chain(&error);
                tracing::warn!(dir = %disk.dir.display(), error, "prefixes are not kept on disk");
                None
            }
        });
        Self { store, threads }
    }

    /// Whether the tier has all of `tokens`, so that it need not be given their snapshot. Microseconds.
    pub fn covers(&self, tokens: &[TokenId]) -> bool {
        lock(&self.store).covers(tokens).is_some()
    }

    /// Takes the snapshot of `tokens` without copying it. What has to go for it goes in order of last use, what has a
    /// file before what has none; half of the budget is written to files in advance, so that this waits for none.
    ///
    /// The budget counts the capacity of [`SequenceSnapshot::bytes`], so it should be what is used.
    pub fn put(&self, tokens: &[TokenId], snapshot: SequenceSnapshot) -> Put {
        let n_tokens = tokens.len();
        if n_tokens == 0 || n_tokens > format::MAX_TOKENS as usize || n_tokens != snapshot.n_tokens as usize {
            tracing::error!(n_tokens, of_snapshot = snapshot.n_tokens, "a snapshot is not of its tokens");
            lock(&self.store).stats.n_errors += 1;
            return Put::Refused;
        }
        let (put, errands) = lock(&self.store).put(tokens, snapshot, SystemTime::now());
        self.run(errands);
        put
    }

    /// The entry that has most of `prompt`'s beginning; of several with as much, one in memory, then the shortest. From
    /// memory alone, in microseconds. Give it the prompt without its last token, which has to be evaluated anyway.
    pub fn longest(&self, prompt: &[TokenId]) -> Option<HostMatch> {
        lock(&self.store).longest(prompt)
    }

    /// Gives the entry's snapshot to `done`, which is called exactly once: on this thread before `fetch` returns if the
    /// snapshot is in memory or the entry is gone, else on the tier's own thread, where it must not block. The entry stays;
    /// a snapshot read from a file does not count in the budget and is not kept.
    pub fn fetch(
        &self,
        entry: EntryId,
        done: impl FnOnce(Result<Arc<SequenceSnapshot>, FetchError>) + Send + 'static,
    ) {
        let (place, errand) = lock(&self.store).place(entry, SystemTime::now());
        self.run(errand);
        match place {
            None => done(Err(FetchError::Unknown)),
            Some(Place::Memory(snapshot)) => done(Ok(snapshot)),
            Some(Place::File(name)) => {
                let read = Read::new(entry, name, Box::new(done));
                // Without a thread the read is dropped, which answers it.
                if let Some(threads) = &self.threads {
                    threads.read(read);
                }
            }
        }
    }

    /// Forgets the entry, its file included. Unknown ones are fine.
    pub fn remove(&self, entry: EntryId) {
        let errand = lock(&self.store).remove(entry);
        self.run(errand);
    }

    /// Saves everything that is in memory alone, last used first, and waits for that until `timeout` is over.
    pub fn flush(&self, timeout: Duration) -> Flushed {
        let errands = lock(&self.store).save_all();
        self.run(errands);
        if let Some(threads) = &self.threads {
            threads.wait_for_writes(timeout);
        }
        Flushed { n_unsaved: lock(&self.store).n_unsaved() }
    }

    /// As [`flush`](Self::flush), then ends the threads. Reads that were not begun are answered with
    /// [`FetchError::Closed`]. When the time is over, a file being written is left to be finished by its thread, and a
    /// part of one that stays behind is deleted by the next tier on this folder.
    pub fn close(mut self, timeout: Duration) -> Flushed {
        let begun = Instant::now();
        if let Some(threads) = &self.threads {
            threads.stop_reading();
        }
        let flushed = self.flush(timeout);
        if let Some(threads) = self.threads.take() {
            threads.end(timeout.saturating_sub(begun.elapsed()));
        }
        flushed
    }

    /// What the tier holds and has done. Any time.
    pub fn stats(&self) -> HostTierStats {
        lock(&self.store).stats()
    }

    fn run(&self, errands: impl IntoIterator<Item = Errand>) {
        for errand in errands {
            if let Some(threads) = &self.threads {
                threads.run(errand);
            }
        }
    }
}

/// Nothing done under the lock leaves the store half changed, so a panic elsewhere is no reason to stop.
fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}
