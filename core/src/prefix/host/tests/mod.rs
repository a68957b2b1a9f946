//! The tier on real folders.

mod damage;
mod random;
mod sharing;
mod store;
mod tier;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::{EntryId, FetchError, HostTier, ModelKey, Put, Reuse};
use crate::backend::{DiskTierSpec, PrefixCacheSpec};
use crate::runner::SequenceSnapshot;
use crate::text::TokenId;

/// Longer than any of these tests may take on a busy machine; nothing waits as long unless it hangs.
const LONG: Duration = Duration::from_secs(120);

fn key() -> ModelKey {
    ModelKey::new(["model", "engine", "1"])
}

fn in_ram(host_bytes: u64) -> PrefixCacheSpec {
    PrefixCacheSpec { enabled: true, host_bytes, disk: None }
}

fn on_disk(host_bytes: u64, dir: &Path, max_bytes: u64) -> PrefixCacheSpec {
    PrefixCacheSpec { enabled: true, host_bytes, disk: Some(DiskTierSpec { dir: dir.to_owned(), max_bytes }) }
}

fn open(spec: &PrefixCacheSpec) -> HostTier {
    HostTier::open(spec, key(), Reuse::AnyPrefix)
}

/// `n` tokens that differ from those of another `seed` from the first one on.
fn tokens(seed: u32, n: u32) -> Vec<TokenId> {
    (0..n).map(|i| seed * 1_000_003 + i).collect()
}

/// The snapshot of these tokens and no others: `n_bytes` bytes, each following from the tokens.
fn snapshot(tokens: &[TokenId], n_bytes: usize) -> SequenceSnapshot {
    let mut state = tokens.iter().fold(17_u64, |state, &token| state.wrapping_mul(31) + u64::from(token));
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..n_bytes).map(|_| byte()).collect();
    SequenceSnapshot { n_tokens: tokens.len() as u32, bytes }
}

fn put(tier: &HostTier, tokens: &[TokenId], n_bytes: usize) -> Put {
    tier.put(tokens, snapshot(tokens, n_bytes))
}

/// What `fetch` gives, once it has.
fn fetch(tier: &HostTier, entry: EntryId) -> Result<Arc<SequenceSnapshot>, FetchError> {
    let (sender, receiver) = channel();
    tier.fetch(entry, move |result| sender.send(result).expect("somebody waits"));
    receiver.recv_timeout(LONG).expect("every fetch is answered")
}

/// The entry of exactly these tokens, fetched.
#[track_caller]
fn fetch_all(tier: &HostTier, tokens: &[TokenId]) -> Result<Arc<SequenceSnapshot>, FetchError> {
    let found = tier.longest(tokens).expect("an entry");
    assert_eq!((found.n_tokens, found.n_snapshot_tokens), (tokens.len(), tokens.len()));
    fetch(tier, found.entry)
}

#[track_caller]
fn assert_fetches(tier: &HostTier, tokens: &[TokenId], n_bytes: usize) {
    let got = fetch_all(tier, tokens).expect("a snapshot");
    assert_eq!(*got, snapshot(tokens, n_bytes));
}

#[track_caller]
fn save(tier: &HostTier) {
    assert_eq!(tier.flush(LONG).n_unsaved, 0);
}

/// The complete files in the folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "duetkv")).collect();
    files.sort();
    files
}

/// The bytes of everything in the folder, counted while nobody gives a file another name or makes room.
fn bytes_in(dir: &Path) -> u64 {
    let lock = File::open(dir.join(".duetkv-lock")).expect("a tier was here");
    flock(&lock, FlockOperation::LockExclusive).expect("it is held for moments only");
    let entries = std::fs::read_dir(dir).expect("a folder");
    entries.map(|entry| entry.expect("an entry").metadata().map_or(0, |metadata| metadata.len())).sum()
}
