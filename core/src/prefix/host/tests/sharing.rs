//! Several tiers, models and processes on one folder.

use std::fs;
use std::time::SystemTime;

use super::*;
use crate::prefix::host::format::HEADER_BYTES;

fn other() -> ModelKey {
    ModelKey::new(["another model"])
}

fn open_other(spec: &PrefixCacheSpec) -> HostTier {
    HostTier::open(spec, other(), Reuse::AnyPrefix)
}

/// Bytes of the file of an entry of five tokens.
fn file_bytes(n_payload: u64) -> u64 {
    HEADER_BYTES + 20 + n_payload
}

fn name(tier_key: ModelKey, end: &str) -> String {
    format!("{}-0123456789abcdef.duetkv{end}", tier_key.short())
}

#[test]
fn models_share_the_cap_and_the_oldest_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(0, dir.path(), 2 * file_bytes(100));
    let (one, two) = (open(&spec), open_other(&spec));
    put(&one, &tokens(1, 5), 100);
    save(&one);
    put(&two, &tokens(1, 5), 100);
    save(&two);
    put(&one, &tokens(2, 5), 100);
    save(&one);
    assert_eq!(bytes_in(dir.path()), 2 * file_bytes(100));
    assert!(one.longest(&tokens(1, 5)).is_none(), "its own files are compared with the folder");
    assert_fetches(&one, &tokens(2, 5), 100);
    // The other one's is the oldest now, unless it is used.
    assert_fetches(&two, &tokens(1, 5), 100);
    put(&two, &tokens(3, 5), 100);
    save(&two);
    assert_fetches(&two, &tokens(1, 5), 100);
    assert!(matches!(fetch_all(&one, &tokens(2, 5)), Err(FetchError::Vanished)));
}

#[test]
fn a_use_in_memory_counts_for_the_file_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(1000, dir.path(), 2 * file_bytes(100));
    let (one, two) = (open(&spec), open_other(&spec));
    put(&one, &tokens(1, 5), 100);
    put(&one, &tokens(2, 5), 100);
    save(&one);
    assert!(one.longest(&tokens(1, 5)).expect("an entry").in_ram);
    assert_fetches(&one, &tokens(1, 5), 100);
    save(&one);
    put(&two, &tokens(3, 5), 100);
    save(&two);
    drop(one);
    let one = open(&spec);
    assert!(one.covers(&tokens(1, 5)) && !one.covers(&tokens(2, 5)));
}

#[test]
fn nothing_newer_goes_for_something_older() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(1000, dir.path(), file_bytes(100));
    let (one, two) = (open(&spec), open_other(&spec));
    put(&one, &tokens(1, 5), 100);
    put(&two, &tokens(2, 5), 100);
    save(&two);
    assert_eq!(one.close(LONG).n_unsaved, 1);
    assert_fetches(&two, &tokens(2, 5), 100);
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn what_is_saved_last_is_what_was_used_last() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(1000, dir.path(), 3 * file_bytes(50));
    let tier = open(&spec);
    for seed in 1..=6 {
        put(&tier, &tokens(seed, 5), 50);
    }
    assert_fetches(&tier, &tokens(2, 5), 50);
    // Six do not fit.
    assert_eq!(tier.close(LONG).n_unsaved, 3);
    let tier = open(&spec);
    for seed in 1..=6 {
        assert_eq!(tier.covers(&tokens(seed, 5)), [2, 5, 6].contains(&seed), "{seed}");
    }
}

#[test]
fn two_tiers_of_one_model_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(0, dir.path(), 1_000_000);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let spec = &spec;
            scope.spawn(move || {
                let tier = open(spec);
                for seed in 0..20 {
                    put(&tier, &tokens(1 + 2 * seed + worker, 5), 1000);
                    save(&tier);
                    assert_fetches(&tier, &tokens(1 + 2 * seed + worker, 5), 1000);
                }
            });
        }
    });
    let tier = open(&spec);
    assert_eq!(tier.stats().n_entries, 40);
    for seed in 1..=40 {
        assert_fetches(&tier, &tokens(seed, 5), 1000);
    }
}

#[test]
fn two_writers_stay_within_one_cap() {
    let dir = tempfile::tempdir().expect("a folder");
    let cap = 3 * file_bytes(1000);
    let spec = on_disk(0, dir.path(), cap);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (spec, dir) = (&spec, dir.path());
            scope.spawn(move || {
                let tier = HostTier::open(spec, ModelKey::new([worker.to_string()]), Reuse::AnyPrefix);
                for seed in 1..40 {
                    put(&tier, &tokens(seed, 5), 1000);
                    tier.flush(LONG);
                    let there = bytes_in(dir);
                    assert!(there <= cap, "{there}");
                }
            });
        }
    });
}

#[test]
fn what_a_crashed_writer_left_is_deleted() {
    let dir = tempfile::tempdir().expect("a folder");
    let left = dir.path().join(name(other(), ".tmp"));
    fs::write(&left, [0; 500]).expect("writable");
    let tier = open(&on_disk(1000, dir.path(), 10_000));
    assert!(!left.exists());
    // Also while another one is open.
    fs::write(&left, [0; 500]).expect("writable");
    put(&tier, &tokens(1, 5), 100);
    save(&tier);
    assert!(!left.exists());
}

#[test]
fn what_a_living_writer_writes_is_left_alone_and_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let theirs = dir.path().join(name(other(), ".tmp"));
    fs::write(&theirs, [0; 500]).expect("writable");
    let held = File::open(&theirs).expect("readable");
    flock(&held, FlockOperation::LockExclusive).expect("nobody else has it");

    let spec = on_disk(1000, dir.path(), 500 + file_bytes(100) - 1);
    let tier = open(&spec);
    assert!(theirs.exists());
    put(&tier, &tokens(1, 5), 100);
    assert_eq!(tier.flush(LONG).n_unsaved, 1);
    assert_eq!((files(dir.path()).len(), theirs.exists()), (0, true));
    drop(held);
    assert_eq!(tier.flush(LONG).n_unsaved, 0);
    assert!(!theirs.exists());
}

#[test]
fn a_lower_cap_holds_from_the_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let tier = open(&on_disk(0, dir.path(), 10_000));
    for seed in 1..=5 {
        put(&tier, &tokens(seed, 5), 100);
        save(&tier);
    }
    drop(tier);
    let tier = open_other(&on_disk(0, dir.path(), 2 * file_bytes(100)));
    assert_eq!((files(dir.path()).len(), tier.stats().n_entries), (2, 0));
    let tier = open(&on_disk(0, dir.path(), 10_000));
    assert!(tier.covers(&tokens(4, 5)) && tier.covers(&tokens(5, 5)));
}

#[test]
fn files_from_the_future_go_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(0, dir.path(), 2 * file_bytes(100));
    let tier = open(&spec);
    put(&tier, &tokens(1, 5), 100);
    save(&tier);
    let future = SystemTime::now() + Duration::from_secs(1 << 30);
    File::open(&files(dir.path())[0]).and_then(|file| file.set_modified(future)).expect("ours");
    put(&tier, &tokens(2, 5), 100);
    save(&tier);
    put(&tier, &tokens(3, 5), 100);
    save(&tier);
    assert!(!tier.covers(&tokens(1, 5)) && tier.covers(&tokens(2, 5)) && tier.covers(&tokens(3, 5)));
}

#[test]
fn other_files_are_nobody_s_business() {
    let dir = tempfile::tempdir().expect("a folder");
    let others = ["notes.txt", "model.gguf", "x.tmp", ".duetkv-lock2"].map(|name| dir.path().join(name));
    for path in &others {
        fs::write(path, [0; 5000]).expect("writable");
    }
    let tier = open(&on_disk(0, dir.path(), file_bytes(100)));
    put(&tier, &tokens(1, 5), 100);
    save(&tier);
    put(&tier, &tokens(2, 5), 100);
    save(&tier);
    assert_eq!(files(dir.path()).len(), 1);
    for path in &others {
        assert_eq!(fs::metadata(path).expect("untouched").len(), 5000);
    }
}

#[test]
fn duplicates_in_the_folder_are_joined() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = on_disk(0, dir.path(), 10_000);
    let long = tokens(1, 9);
    let (one, two, three) = (open(&spec), open(&spec), open(&spec));
    for (tier, n) in [(&one, 5), (&two, 9), (&three, 9)] {
        put(tier, &long[..n], 100);
        save(tier);
    }
    assert_eq!(files(dir.path()).len(), 3);
    let tier = open(&spec);
    assert_eq!((files(dir.path()).len(), tier.stats().n_entries), (1, 1));
    assert_fetches(&tier, &long, 100);
    assert!(matches!(fetch_all(&one, &long[..5]), Err(FetchError::Vanished)));
}
