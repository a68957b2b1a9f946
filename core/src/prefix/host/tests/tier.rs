//! What the tier promises when nothing goes wrong.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::prefix::host::HostTierStats;

#[test]
fn memory_gives_back_what_it_was_given() {
    let tier = open(&in_ram(1000));
    let long = tokens(1, 50);
    assert!(matches!(put(&tier, &long, 400), Put::Kept(_)));
    assert_fetches(&tier, &long, 400);

    let found = tier.longest(&[&long[..30], &[0]].concat()).expect("thirty tokens");
    assert_eq!((found.n_tokens, found.n_snapshot_tokens, found.in_ram, found.n_bytes), (30, 50, true, 400));
    assert!(tier.longest(&tokens(2, 5)).is_none());
    let expected = HostTierStats {
        n_entries: 1,
        ram_bytes: 400,
        n_hits: 2,
        n_misses: 1,
        n_ram_fetches: 1,
        ..Default::default()
    };
    assert_eq!(tier.stats(), expected);
}

#[test]
fn a_snapshot_in_memory_is_not_copied() {
    let tier = open(&in_ram(1000));
    let tokens = tokens(1, 5);
    let given = snapshot(&tokens, 300);
    let address = given.bytes.as_ptr();
    tier.put(&tokens, given);
    assert_eq!(fetch_all(&tier, &tokens).expect("a snapshot").bytes.as_ptr(), address);
}

#[test]
fn the_least_recently_used_goes() {
    let tier = open(&in_ram(1000));
    for seed in 1..=3 {
        put(&tier, &tokens(seed, 5), 300);
    }
    assert_fetches(&tier, &tokens(1, 5), 300);
    put(&tier, &tokens(4, 5), 400);
    assert!(tier.longest(&tokens(2, 5)).is_none());
    assert!(tier.covers(&tokens(1, 5)) && tier.covers(&tokens(3, 5)) && tier.covers(&tokens(4, 5)));
    assert_eq!((tier.stats().ram_bytes, tier.stats().n_lost), (1000, 1));
}

#[test]
fn a_prefix_of_another_entry_is_not_kept() {
    let tier = open(&in_ram(1000));
    let long = tokens(1, 50);
    let Put::Kept(short) = put(&tier, &long[..20], 100) else { panic!("kept") };
    let Put::Kept(entry) = put(&tier, &long, 300) else { panic!("kept") };
    assert!(matches!(fetch(&tier, short), Err(FetchError::Unknown)));
    assert_eq!(put(&tier, &long[..30], 100), Put::Covered(entry));
    assert_eq!(put(&tier, &long, 300), Put::Covered(entry));
    assert_eq!((tier.stats().n_entries, tier.stats().ram_bytes), (1, 300));
}

#[test]
fn where_nothing_can_be_cut_each_length_is_of_use() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(1000, dir.path(), 10_000);
    let tier = HostTier::open(&spec, key(), Reuse::WholeOnly);
    let long = tokens(1, 50);
    put(&tier, &long[..20], 100);
    put(&tier, &long, 100);
    let found = tier.longest(&long[..30]).expect("the shorter one");
    assert_eq!((found.n_tokens, found.n_snapshot_tokens), (20, 20));
    assert!(tier.longest(&long[..10]).is_none());
    assert!(!tier.covers(&long[..30]));
    assert_eq!(tier.close(LONG).n_unsaved, 0);

    let tier = HostTier::open(&spec, key(), Reuse::WholeOnly);
    assert_fetches(&tier, &long[..20], 100);
    assert_fetches(&tier, &long, 100);
}

#[test]
fn entries_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(1000, &dir.path().join("not/there/yet"), 1_000_000);
    let tier = open(&spec);
    put(&tier, &tokens(1, 7), 300);
    put(&tier, &tokens(2, 70_000), 0);
    assert_eq!(tier.close(LONG).n_unsaved, 0);

    let tier = open(&spec);
    let found = tier.longest(&tokens(1, 7)).expect("an entry");
    assert_eq!((found.in_ram, found.n_bytes), (false, 300));
    assert_fetches(&tier, &tokens(1, 7), 300);
    assert_fetches(&tier, &tokens(2, 70_000), 0);
    let stats = tier.stats();
    assert_eq!((stats.n_entries, stats.ram_bytes, stats.n_disk_fetches, stats.n_errors), (2, 0, 2, 0));
    assert_eq!(stats.disk_bytes, bytes_in(&dir.path().join("not/there/yet")));
}

#[test]
fn what_leaves_memory_goes_to_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let tier = open(&on_disk(1000, dir.path(), 100_000));
    for seed in 1..=8 {
        assert!(matches!(put(&tier, &tokens(seed, 5), 400), Put::Kept(_)));
        // Memory's colder half is written ahead; waiting for it is what an engine does that wants to lose nothing.
        save(&tier);
    }
    assert_eq!((tier.stats().n_lost, tier.stats().ram_bytes), (0, 800));
    for seed in 1..=8 {
        let found = tier.longest(&tokens(seed, 5)).expect("an entry");
        assert_eq!(found.in_ram, seed > 6, "{seed}");
        assert_fetches(&tier, &tokens(seed, 5), 400);
    }
}

#[test]
fn an_entry_beyond_the_budget_goes_straight_to_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let tier = open(&on_disk(100, dir.path(), 10_000));
    assert!(matches!(put(&tier, &tokens(1, 5), 500), Put::Passing(_)));
    assert_fetches(&tier, &tokens(1, 5), 500);
    save(&tier);
    assert!(!tier.longest(&tokens(1, 5)).expect("an entry").in_ram);
    assert_fetches(&tier, &tokens(1, 5), 500);
    assert_eq!(tier.stats().ram_bytes, 0);
}

#[test]
fn an_entry_beyond_every_budget_is_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(put(&open(&in_ram(100)), &tokens(1, 5), 101), Put::Refused);
    let tier = open(&on_disk(100, dir.path(), 400));
    put(&tier, &tokens(1, 5), 500);
    save(&tier);
    assert!(tier.longest(&tokens(1, 5)).is_none());
    assert_eq!((tier.stats().n_entries, tier.stats().n_refused, files(dir.path()).len()), (0, 1, 0));
}

#[test]
fn a_cache_that_is_off_keeps_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().join("cache");
    let tier = open(&PrefixCacheSpec { enabled: false, ..on_disk(1000, &dir, 10_000) });
    assert_eq!(put(&tier, &tokens(1, 5), 100), Put::Refused);
    assert_eq!(tier.close(LONG).n_unsaved, 0);
    assert!(!dir.exists());
}

#[test]
fn a_snapshot_of_other_tokens_is_refused() {
    let tier = open(&in_ram(1000));
    assert_eq!(tier.put(&tokens(1, 6), snapshot(&tokens(1, 5), 10)), Put::Refused);
    assert_eq!(tier.put(&[], snapshot(&[], 10)), Put::Refused);
    assert_eq!((tier.stats().n_errors, tier.stats().n_entries), (2, 0));
}

#[test]
fn what_is_removed_leaves_no_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let tier = open(&on_disk(1000, dir.path(), 10_000));
    let Put::Kept(entry) = put(&tier, &tokens(1, 5), 300) else { panic!("kept") };
    put(&tier, &tokens(2, 5), 300);
    save(&tier);
    tier.remove(entry);
    tier.remove(entry);
    save(&tier);
    assert_eq!((files(dir.path()).len(), tier.stats().n_entries, tier.stats().ram_bytes), (1, 1, 300));
}

#[test]
fn the_file_of_a_prefix_goes_when_the_longer_one_is_safe() {
    let dir = tempfile::tempdir().expect("a folder");
    let tier = open(&on_disk(1000, dir.path(), 10_000));
    let long = tokens(1, 50);
    put(&tier, &long[..20], 100);
    save(&tier);
    put(&tier, &long, 100);
    assert_eq!((files(dir.path()).len(), tier.stats().n_entries), (1, 2));
    assert!(tier.longest(&long[..10]).expect("either").in_ram);
    save(&tier);
    assert_eq!((files(dir.path()).len(), tier.stats().n_entries), (1, 1));
    assert_fetches(&tier, &long, 100);
}

#[test]
fn files_are_for_their_owner_alone_and_named_after_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().join("cache");
    let tier = open(&on_disk(1000, &dir, 10_000));
    put(&tier, &tokens(1, 5), 100);
    save(&tier);
    let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in std::fs::read_dir(&dir).expect("a folder") {
        assert_eq!(mode(&entry.expect("an entry").path()), 0o600);
    }
    let name = |dir: &Path| files(dir)[0].file_name().expect("a name").to_owned();
    let first = name(&dir);
    assert_eq!(first.len(), "0123456789abcdef-0123456789abcdef.duetkv".len());
    // The same prompt of the same model has another name each time, so names tell nothing of prompts.
    let other = dir.join("other");
    let second = open(&on_disk(1000, &other, 10_000));
    put(&second, &tokens(1, 5), 100);
    save(&second);
    assert_ne!(name(&other), first);
}

#[test]
fn dropping_waits_for_nothing_and_every_fetch_is_answered() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(0, dir.path(), 100_000_000);
    let tier = open(&spec);
    put(&tier, &tokens(1, 5), 1_000_000);
    save(&tier);
    let entry = tier.longest(&tokens(1, 5)).expect("an entry").entry;
    let (sender, receiver) = channel();
    for _ in 0..20 {
        let sender = sender.clone();
        tier.fetch(entry, move |result| sender.send(result.is_ok()).expect("somebody waits"));
    }
    put(&tier, &tokens(2, 5), 1_000_000);
    drop((tier, sender));
    // Ends when the last answer was given or dropped.
    assert_eq!(receiver.iter().count(), 20);
}

#[test]
fn closing_without_time_says_what_is_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    let tier = open(&in_ram(1000));
    put(&tier, &tokens(1, 5), 100);
    assert_eq!(tier.close(LONG).n_unsaved, 1);

    // However far the writer gets, what it does not report as lost is there.
    let spec = on_disk(10_000, dir.path(), 100_000);
    let tier = open(&spec);
    for seed in 1..=5 {
        put(&tier, &tokens(seed, 5), 1000);
    }
    let n_unsaved = tier.close(Duration::ZERO).n_unsaved;
    let tier = open(&spec);
    assert!(tier.stats().n_entries + n_unsaved >= 5);
    assert_eq!(tier.close(LONG).n_unsaved, 0);
}
