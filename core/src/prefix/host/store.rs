//! What the tier knows: its entries, where their snapshots are, and which of them has to go. No files, no threads.
//!
//! What holds between any two calls: snapshots held in memory for good have at most `host_bytes`; besides them there is at
//! most one longer one, on its way to a file. An entry has a snapshot in memory, a file, or both. Where caches can be cut,
//! no entry's sequence is a prefix of one whose snapshot lasts as long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::entry::{Draft, Entry, Errand, Place, StoredFile, Writing};
use super::stats::HostTierStats;
use super::{EntryId, HostMatch, Put, Reuse};
use crate::prefix::{Among, HolderId, Match, PrefixIndex};
use crate::runner::SequenceSnapshot;
use crate::text::TokenId;

#[derive(Debug)]
pub(super) struct Store {
    index: PrefixIndex,
    entries: BTreeMap<HolderId, Entry>,
    next: u32,
    reuse: Reuse,
    host_bytes: u64,
    has_disk: bool,
    /// Of snapshots in memory, without the one that passes.
    ram_bytes: u64,
    /// The part of `ram_bytes` that the writer has in its hands of an entry that has been removed.
    held_bytes: u64,
    /// The entry that is longer than `host_bytes`, until it is written.
    passing: Option<HolderId>,
    pub(super) stats: HostTierStats,
}

impl Store {
    /// An empty store, in memory alone so far.
    pub(super) fn new(host_bytes: u64, reuse: Reuse) -> Self {
        Self {
            index: PrefixIndex::new(),
            entries: BTreeMap::new(),
            next: 0,
            reuse,
            host_bytes,
            has_disk: false,
            ram_bytes: 0,
            held_bytes: 0,
            passing: None,
            stats: HostTierStats::default(),
        }
    }

    /// From now on there is a writer that runs errands.
    pub(super) fn attach_disk(&mut self) {
        self.has_disk = true;
    }

    /// Takes note of a file that was there before; of several, the least recently used first.
    pub(super) fn add_file(
        &mut self,
        tokens: &[TokenId],
        name: String,
        n_payload_bytes: u64,
        n_file_bytes: u64,
        used: SystemTime,
    ) -> Vec<Errand> {
        let file = Some(StoredFile { name, n_bytes: n_file_bytes });
        let entry = Entry { n_bytes: n_payload_bytes, snapshot: None, file, writing: Writing::No, used };
        let id = self.insert(tokens, entry);
        self.drop_redundant(id)
    }

    pub(super) fn covers(&self, tokens: &[TokenId]) -> Option<EntryId> {
        let found = match self.reuse {
            Reuse::AnyPrefix => self.index.longest(tokens, |_| true),
            Reuse::WholeOnly => self.index.longest_whole(tokens, |_| true),
        };
        found.filter(|found| found.n_tokens == tokens.len()).map(|found| EntryId(found.holder))
    }

    pub(super) fn put(
        &mut self,
        tokens: &[TokenId],
        snapshot: SequenceSnapshot,
        now: SystemTime,
    ) -> (Put, Vec<Errand>) {
        if let Some(id) = self.covers(tokens) {
            let errands = self.touch(id, now);
            return (Put::Covered(id), errands.into_iter().collect());
        }
        let n_bytes = snapshot.bytes.capacity() as u64;
        let passes = n_bytes > self.host_bytes;
        if (passes && (!self.has_disk || self.passing.is_some())) || (!passes && !self.can_free(n_bytes)) {
            tracing::debug!(n_bytes, n_tokens = tokens.len(), "a prefix is dropped: it has no room");
            self.stats.n_refused += 1;
            return (Put::Refused, Vec::new());
        }
        let entry = Entry {
            n_bytes,
            snapshot: Some(Arc::new(snapshot)),
            file: None,
            writing: Writing::No,
            used: now,
        };
        if passes {
            let id = self.insert(tokens, entry);
            self.passing = Some(id.0);
            self.entries.get_mut(&id.0).expect("just inserted").writing = Writing::Queued;
            return (Put::Passing(id), vec![Errand::Write(id)]);
        }
        // What it makes redundant goes first; only then does anything else have to.
        let mut errands = self.drop_covered_by(tokens, None, false);
        self.free(n_bytes);
        self.ram_bytes += n_bytes;
        let id = self.insert(tokens, entry);
        errands.extend(self.write_ahead());
        (Put::Kept(id), errands)
    }

    pub(super) fn longest(&mut self, query: &[TokenId]) -> Option<HostMatch> {
        let in_ram = |holder: HolderId| self.entries[&holder].snapshot.is_some();
        let longest = |filter: &dyn Fn(HolderId) -> bool| match self.reuse {
            Reuse::AnyPrefix => self.index.longest(query, filter),
            Reuse::WholeOnly => self.index.longest_whole(query, filter),
        };
        let any = longest(&|_| true);
        let near = longest(&in_ram);
        let best = near.filter(|near| any.is_some_and(|any| any.n_tokens == near.n_tokens)).or(any);
        match best {
            Some(_) => self.stats.n_hits += 1,
            None => self.stats.n_misses += 1,
        }
        best.map(|Match { holder, n_tokens, n_holder_tokens }| HostMatch {
            entry: EntryId(holder),
            n_tokens,
            n_snapshot_tokens: n_holder_tokens,
            in_ram: self.entries[&holder].snapshot.is_some(),
            n_bytes: self.entries[&holder].n_bytes,
        })
    }

    /// Where the entry is, which counts as a use of it.
    pub(super) fn place(&mut self, id: EntryId, now: SystemTime) -> (Option<Place>, Option<Errand>) {
        let Some(entry) = self.entries.get(&id.0) else { return (None, None) };
        if let Some(snapshot) = &entry.snapshot {
            let place = Place::Memory(Arc::clone(snapshot));
            self.stats.n_ram_fetches += 1;
            return (Some(place), self.touch(id, now));
        }
        let name = entry.file.as_ref().map(|file| file.name.clone());
        // The reader notes it on the file.
        self.touch(id, now);
        (name.map(Place::File), None)
    }

    /// The entry's tokens, if it is still there.
    pub(super) fn tokens(&self, id: EntryId) -> Option<Vec<TokenId>> {
        self.entries.contains_key(&id.0).then(|| self.index.tokens(id.0))
    }

    /// Forgets the entry; its file, if it has one, is to be deleted.
    pub(super) fn remove(&mut self, id: EntryId) -> Option<Errand> {
        let entry = self.entries.remove(&id.0)?;
        self.index.remove(id.0);
        let passes = self.passing == Some(id.0);
        match (passes, entry.writing == Writing::Now) {
            // The memory is free when the writer has let go of it.
            (true, true) => {}
            (false, true) => self.held_bytes = entry.n_bytes,
            (true, false) => self.passing = None,
            (false, false) if entry.snapshot.is_some() => self.ram_bytes -= entry.n_bytes,
            (false, false) => {}
        }
        entry.file.map(|file| Errand::Delete(file.name))
    }

    /// Takes note that the entry's file is gone or of no use.
    pub(super) fn lose_file(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get_mut(&id.0) else { return };
        entry.file = None;
        if entry.snapshot.is_none() {
            self.remove(id);
        }
    }

    /// Everything that is in memory alone, last used first, for the writer.
    pub(super) fn save_all(&mut self) -> Vec<Errand> {
        let mut errands = Vec::new();
        let unsaved = |store: &Self, holder| store.has_disk && store.entries[&holder].is_unsaved();
        while let Some(holder) = self.index.least_recent(Among::All, |holder| unsaved(self, holder)) {
            self.entries.get_mut(&holder).expect("the index knows entries only").writing = Writing::Queued;
            errands.push(Errand::Write(EntryId(holder)));
        }
        errands.reverse();
        errands
    }

    /// Entries that would be lost if the process ended now.
    pub(super) fn n_unsaved(&self) -> usize {
        self.entries.values().filter(|entry| entry.file.is_none()).count()
    }

    /// The writer begins with an entry, if it is still wanted.
    pub(super) fn start_writing(&mut self, id: EntryId) -> Option<Draft> {
        let entry = self.entries.get_mut(&id.0).filter(|entry| entry.writing == Writing::Queued)?;
        let snapshot = Arc::clone(entry.snapshot.as_ref()?);
        entry.writing = Writing::Now;
        Some(Draft { tokens: self.index.tokens(id.0), snapshot, used: entry.used })
    }

    /// The writer has written the entry. `others` are the files beside it.
    pub(super) fn written(
        &mut self,
        id: EntryId,
        name: String,
        n_bytes: u64,
        others: &BTreeSet<String>,
    ) -> Vec<Errand> {
        self.stats.n_written += 1;
        let passed = self.let_go(id);
        self.keep_files(others);
        let Some(entry) = self.entries.get_mut(&id.0) else { return vec![Errand::Delete(name)] };
        entry.writing = Writing::No;
        entry.file = Some(StoredFile { name, n_bytes });
        if passed {
            entry.snapshot = None;
        }
        let mut errands = self.drop_redundant(id);
        let tokens = self.index.tokens(id.0);
        let cover = self.index.longest(&tokens, |holder| holder != id.0);
        if let Some(cover) = cover.filter(|cover| cover.n_tokens == tokens.len()) {
            errands.extend(self.drop_redundant(EntryId(cover.holder)));
        }
        errands
    }

    /// The writer could not write the entry.
    pub(super) fn not_written(&mut self, id: EntryId) {
        let passed = self.let_go(id);
        let Some(entry) = self.entries.get_mut(&id.0) else { return };
        entry.writing = Writing::Failed;
        if passed {
            self.stats.n_refused += 1;
            // Its bytes never counted.
            entry.snapshot = None;
            self.remove(id);
        }
    }

    pub(super) fn stats(&self) -> HostTierStats {
        let files = self.entries.values().filter_map(|entry| entry.file.as_ref());
        HostTierStats {
            n_entries: self.entries.len(),
            ram_bytes: self.ram_bytes,
            disk_bytes: files.map(|file| file.n_bytes).sum(),
            ..self.stats
        }
    }

    fn insert(&mut self, tokens: &[TokenId], entry: Entry) -> EntryId {
        while self.index.contains(HolderId(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let holder = HolderId(self.next);
        self.next = self.next.wrapping_add(1);
        self.index.insert(holder, tokens);
        self.entries.insert(holder, entry);
        EntryId(holder)
    }

    /// The writer has put down what it held, and says of which entry; whether that was the passing one comes back.
    fn let_go(&mut self, id: EntryId) -> bool {
        self.ram_bytes -= std::mem::take(&mut self.held_bytes);
        self.passing.take_if(|passing| *passing == id.0).is_some()
    }

    fn touch(&mut self, id: EntryId, now: SystemTime) -> Option<Errand> {
        let entry = self.entries.get_mut(&id.0)?;
        entry.used = now;
        self.index.touch(id.0);
        entry.file.as_ref().map(|file| Errand::Touch(file.name.clone(), now))
    }

    /// Whether room for `n_bytes` can be made in memory.
    fn can_free(&self, n_bytes: u64) -> bool {
        let held = |(holder, entry): (&HolderId, &Entry)| {
            let held = entry.snapshot.is_some() && entry.writing == Writing::Now;
            held && self.passing != Some(*holder)
        };
        let held: u64 =
            self.entries.iter().filter(|&entry| held(entry)).map(|(_, entry)| entry.n_bytes).sum();
        self.host_bytes - self.held_bytes - held >= n_bytes
    }

    /// Makes room for `n_bytes` in memory, which is possible. What has a file goes before what would be lost.
    fn free(&mut self, n_bytes: u64) {
        while self.host_bytes - self.ram_bytes < n_bytes {
            let in_ram = |holder: HolderId| {
                let entry = &self.entries[&holder];
                entry.snapshot.is_some() && entry.writing != Writing::Now && self.passing != Some(holder)
            };
            let saved = |holder: HolderId| in_ram(holder) && self.entries[&holder].file.is_some();
            let victim = self.index.least_recent(Among::All, saved);
            let Some(victim) = victim.or_else(|| self.index.least_recent(Among::All, in_ram)) else { return };
            self.drop_snapshot(EntryId(victim));
        }
    }

    /// Frees the entry's memory; without a file it is gone with that.
    fn drop_snapshot(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get_mut(&id.0) else { return };
        if entry.file.is_none() {
            self.stats.n_lost += 1;
            self.remove(id);
        } else if entry.snapshot.take().is_some() {
            self.ram_bytes -= entry.n_bytes;
        }
    }

    /// Has the least recently used half of memory written in advance, so that it can be freed at once when room is
    /// needed: the engine's thread, which needs it, waits for no disk.
    fn write_ahead(&mut self) -> Vec<Errand> {
        let mut errands = Vec::new();
        if !self.has_disk {
            return errands;
        }
        let fresh = |entry: &Entry| entry.file.is_none() && entry.writing == Writing::No;
        let mut unsaved: u64 =
            self.entries.values().filter(|entry| fresh(entry)).map(|entry| entry.n_bytes).sum();
        while unsaved > self.host_bytes / 2 {
            let victim = self.index.least_recent(Among::All, |holder| fresh(&self.entries[&holder]));
            let Some(entry) = victim.and_then(|victim| self.entries.get_mut(&victim)) else { break };
            entry.writing = Writing::Queued;
            unsaved -= entry.n_bytes;
            errands.extend(victim.map(|victim| Errand::Write(EntryId(victim))));
        }
        errands
    }

    /// Drops what lasts no longer than the entry and is a prefix of it.
    fn drop_redundant(&mut self, id: EntryId) -> Vec<Errand> {
        let Some(entry) = self.entries.get(&id.0) else { return Vec::new() };
        let has_file = entry.file.is_some();
        if !has_file && self.passing == Some(id.0) {
            return Vec::new();
        }
        let tokens = self.index.tokens(id.0);
        self.drop_covered_by(&tokens, Some(id), has_file)
    }

    /// Drops prefixes of `tokens` but `except`, in memory and, if that lasts as long, with their files. The one that is
    /// being written is looked at again when it is.
    fn drop_covered_by(
        &mut self,
        tokens: &[TokenId],
        except: Option<EntryId>,
        with_files: bool,
    ) -> Vec<Errand> {
        let mut errands = Vec::new();
        for holder in self.index.prefixes_of(tokens) {
            let entry = &self.entries[&holder];
            let same = self.index.n_tokens_of(holder) == tokens.len();
            let kept = entry.writing == Writing::Now || (self.reuse == Reuse::WholeOnly && !same);
            if kept || except == Some(EntryId(holder)) {
                continue;
            }
            if with_files || entry.file.is_none() {
                errands.extend(self.remove(EntryId(holder)));
            } else {
                self.drop_snapshot(EntryId(holder));
            }
        }
        errands
    }

    /// Compares what is known of files with those that are there: others delete them too.
    fn keep_files(&mut self, there: &BTreeSet<String>) {
        let gone = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.file.as_ref().is_some_and(|file| !there.contains(&file.name)));
        let gone: Vec<HolderId> = gone.map(|(&holder, _)| holder).collect();
        self.stats.n_files_gone += gone.len() as u64;
        gone.into_iter().for_each(|holder| self.lose_file(EntryId(holder)));
    }
}
