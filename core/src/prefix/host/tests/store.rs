//! What is decided without a file or a thread, step by step.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::*;
use crate::prefix::host::entry::{Errand, Place};
use crate::prefix::host::store::Store;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn store(host_bytes: u64) -> Store {
    let mut store = Store::new(host_bytes, Reuse::AnyPrefix);
    store.attach_disk();
    store
}

fn put(store: &mut Store, tokens: &[TokenId], n_bytes: usize) -> (Put, Vec<Errand>) {
    store.put(tokens, snapshot(tokens, n_bytes), NOW)
}

#[track_caller]
fn kept(put: &(Put, Vec<Errand>)) -> EntryId {
    let Put::Kept(entry) = put.0 else { panic!("{put:?}") };
    entry
}

/// The writer does its part, and nobody else has touched the folder.
fn write(store: &mut Store, entry: EntryId, name: &str, others: &[&str]) -> Vec<Errand> {
    store.start_writing(entry).expect("wanted");
    let others: BTreeSet<String> = others.iter().map(|&name| name.to_owned()).collect();
    store.written(entry, name.to_owned(), 1000, &others)
}

#[test]
fn the_colder_half_is_written_in_advance() {
    let mut store = store(1000);
    let first = put(&mut store, &tokens(1, 5), 400);
    assert_eq!(first.1, []);
    let second = put(&mut store, &tokens(2, 5), 300);
    assert_eq!(second.1, [Errand::Write(kept(&first))]);
    // What is queued is not queued again.
    assert_eq!(put(&mut store, &tokens(3, 5), 100).1, []);
}

#[test]
fn what_has_a_file_leaves_memory_first_and_is_not_lost() {
    let mut store = store(1000);
    let first = kept(&put(&mut store, &tokens(1, 5), 400));
    let second = kept(&put(&mut store, &tokens(2, 5), 400));
    write(&mut store, first, "a", &[]);
    // The later use of the one with a file does not save its place in memory.
    store.place(first, NOW);
    put(&mut store, &tokens(3, 5), 400);
    assert!(matches!(store.place(first, NOW).0, Some(Place::File(name)) if name == "a"));
    assert!(matches!(store.place(second, NOW).0, Some(Place::Memory(_))));
    assert_eq!(store.stats().n_lost, 0);
}

#[test]
fn a_slow_disk_costs_the_oldest_and_never_the_budget() {
    let mut store = store(1000);
    for seed in 1..=10 {
        assert!(matches!(put(&mut store, &tokens(seed, 5), 400).0, Put::Kept(_)));
        assert!(store.stats().ram_bytes <= 1000);
    }
    assert_eq!((store.stats().n_entries, store.stats().n_lost), (2, 8));
}

#[test]
fn what_the_writer_holds_cannot_make_room() {
    let mut store = store(1000);
    let first = kept(&put(&mut store, &tokens(1, 5), 600));
    let draft = store.start_writing(first).expect("queued at once");
    assert_eq!(put(&mut store, &tokens(2, 5), 500).0, Put::Refused);
    // Nothing had to go for what was refused.
    assert!(matches!(put(&mut store, &tokens(3, 5), 400).0, Put::Kept(_)));
    drop(draft);
    assert_eq!(store.written(first, "a".into(), 1000, &BTreeSet::new()), []);
    assert!(matches!(put(&mut store, &tokens(2, 5), 500).0, Put::Kept(_)));
    assert_eq!((store.stats().ram_bytes, store.stats().n_entries), (900, 3));
}

#[test]
fn only_one_entry_passes_at_a_time() {
    let mut store = store(100);
    let (Put::Passing(first), errands) = put(&mut store, &tokens(1, 5), 500) else { panic!("passes") };
    assert_eq!(errands, [Errand::Write(first)]);
    assert_eq!(put(&mut store, &tokens(2, 5), 500).0, Put::Refused);
    assert!(matches!(put(&mut store, &tokens(3, 5), 100).0, Put::Kept(_)));
    assert!(matches!(store.place(first, NOW).0, Some(Place::Memory(_))));
    write(&mut store, first, "a", &[]);
    assert!(matches!(store.place(first, NOW).0, Some(Place::File(_))));
    assert!(matches!(put(&mut store, &tokens(2, 5), 500).0, Put::Passing(_)));
    assert_eq!(store.stats().ram_bytes, 100);
}

#[test]
fn what_could_not_pass_is_gone() {
    let mut store = store(100);
    let (Put::Passing(first), _) = put(&mut store, &tokens(1, 5), 500) else { panic!("passes") };
    store.start_writing(first).expect("wanted");
    store.not_written(first);
    assert!(store.longest(&tokens(1, 5)).is_none());
    assert!(matches!(put(&mut store, &tokens(1, 5), 500).0, Put::Passing(_)));
}

#[test]
fn what_could_not_be_written_is_tried_again_at_the_end() {
    let mut store = store(1000);
    let first = kept(&put(&mut store, &tokens(1, 5), 600));
    store.start_writing(first).expect("wanted");
    store.not_written(first);
    assert_eq!(put(&mut store, &tokens(2, 5), 100).1, []);
    let second = store.longest(&tokens(2, 5)).expect("an entry").entry;
    assert_eq!(store.save_all(), [Errand::Write(second), Errand::Write(first)]);
    assert_eq!(store.save_all(), []);
    assert_eq!(store.n_unsaved(), 2);
}

#[test]
fn an_entry_removed_while_it_is_written_leaves_no_file() {
    let mut store = store(1000);
    let first = kept(&put(&mut store, &tokens(1, 5), 600));
    store.start_writing(first).expect("wanted");
    assert_eq!(store.remove(first), None);
    // The writer holds its memory still.
    assert_eq!((store.stats().ram_bytes, store.stats().n_entries), (600, 0));
    assert_eq!(put(&mut store, &tokens(2, 5), 500).0, Put::Refused);
    let errands = store.written(first, "a".into(), 1000, &BTreeSet::new());
    assert_eq!(errands, [Errand::Delete("a".into())]);
    assert_eq!(store.stats().ram_bytes, 0);
}

#[test]
fn a_passing_entry_removed_while_it_is_written_lets_no_other_pass() {
    let mut store = store(100);
    let (Put::Passing(first), _) = put(&mut store, &tokens(1, 5), 500) else { panic!("passes") };
    store.start_writing(first).expect("wanted");
    store.remove(first);
    assert_eq!(put(&mut store, &tokens(2, 5), 500).0, Put::Refused);
    store.not_written(first);
    assert!(matches!(put(&mut store, &tokens(2, 5), 500).0, Put::Passing(_)));
    assert_eq!(store.stats().ram_bytes, 0);
}

#[test]
fn an_entry_dropped_before_it_is_written_is_not_written() {
    let mut store = store(1000);
    let first = kept(&put(&mut store, &tokens(1, 5), 600));
    put(&mut store, &tokens(2, 5), 900);
    assert!(store.start_writing(first).is_none());
}

#[test]
fn a_prefix_overtaken_while_it_was_written_goes_once_the_longer_one_has_a_file() {
    let mut store = store(1000);
    let long = tokens(1, 50);
    let short = kept(&put(&mut store, &long[..20], 510));
    store.start_writing(short).expect("queued at once");
    let longer = kept(&put(&mut store, &long, 400));
    // Its memory goes as soon as it can, its file stays for as long as it is all there is on disk.
    assert_eq!(store.stats().ram_bytes, 910);
    assert_eq!(store.written(short, "short".into(), 1000, &BTreeSet::new()), []);
    assert_eq!(store.stats().ram_bytes, 400);
    store.save_all();
    assert_eq!(write(&mut store, longer, "long", &["short"]), [Errand::Delete("short".into())]);
    assert_eq!(store.stats().n_entries, 1);
}

#[test]
fn files_that_others_deleted_are_forgotten() {
    let mut store = store(1000);
    for (seed, name) in [(1, "a"), (2, "b"), (3, "c")] {
        store.add_file(&tokens(seed, 5), name.into(), 100, 1000, NOW);
    }
    let entry = kept(&put(&mut store, &tokens(4, 5), 600));
    write(&mut store, entry, "d", &["a", "c"]);
    assert!(store.covers(&tokens(2, 5)).is_none());
    assert_eq!((store.stats().n_entries, store.stats().n_files_gone, store.stats().disk_bytes), (3, 1, 3000));
    // What is in memory besides is written again when the time comes.
    let next = kept(&put(&mut store, &tokens(5, 5), 400));
    store.save_all();
    write(&mut store, next, "e", &["a", "c"]);
    assert!(store.covers(&tokens(4, 5)).is_some());
    assert_eq!(store.save_all(), [Errand::Write(entry)]);
}
