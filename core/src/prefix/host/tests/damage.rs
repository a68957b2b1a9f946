//! Files that are not as they were written: a typed error or no entry, never a wrong snapshot, never a panic.

use std::fs::{self, Permissions};
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, symlink};

use twox_hash::XxHash3_64;

use super::*;
use crate::prefix::host::PrefixFileError;
use crate::prefix::host::format;

const N_TOKENS: usize = 5;
const N_PAYLOAD: usize = 24;
const TOKENS_AT: usize = 80;
const PAYLOAD_AT: usize = TOKENS_AT + 4 * N_TOKENS;

/// A folder with the file of one entry.
struct Folder {
    dir: tempfile::TempDir,
    tokens: Vec<TokenId>,
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let tokens = tokens(1, N_TOKENS as u32);
        let tier = open(&on_disk(1000, dir.path(), 10_000));
        put(&tier, &tokens, N_PAYLOAD);
        assert_eq!(tier.close(LONG).n_unsaved, 0);
        let file = files(dir.path()).pop().expect("a file");
        let bytes = fs::read(&file).expect("readable");
        assert_eq!(bytes.len(), PAYLOAD_AT + N_PAYLOAD);
        Self { dir, tokens, file, bytes }
    }

    fn open(&self) -> HostTier {
        open(&on_disk(1000, self.dir.path(), 10_000))
    }

    /// Opens a tier on the folder with this file instead, which it is to find useless at once.
    #[track_caller]
    fn assert_no_entry(&self, bytes: &[u8], deleted: bool) {
        fs::write(&self.file, bytes).expect("writable");
        let tier = self.open();
        assert!(tier.longest(&self.tokens).is_none());
        assert_eq!(self.file.exists(), !deleted);
        assert_eq!(tier.stats().n_entries, 0);
    }
}

/// Makes the header's checksum right again.
fn reseal(bytes: &mut [u8]) {
    let sum = XxHash3_64::oneshot(&bytes[..72]);
    bytes[72..80].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn every_changed_byte_is_noticed() {
    let folder = Folder::new();
    for at in 0..folder.bytes.len() {
        let mut bytes = folder.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        if at < PAYLOAD_AT {
            // Without our magic or our version it is not ours to delete.
            folder.assert_no_entry(&bytes, at >= 12);
            continue;
        }
        fs::write(&folder.file, &bytes).expect("writable");
        let tier = folder.open();
        let error = fetch_all(&tier, &folder.tokens).expect_err("damaged");
        let expected = matches!(error, FetchError::File(PrefixFileError::Checksum { part: "payload" }));
        assert!(expected, "{at}: {error:?}");
        assert!(!folder.file.exists() && tier.longest(&folder.tokens).is_none());
        assert_eq!((tier.stats().n_errors, tier.stats().n_entries), (1, 0));
    }
}

#[test]
fn every_other_length_is_noticed() {
    let folder = Folder::new();
    for n in 0..folder.bytes.len() {
        folder.assert_no_entry(&folder.bytes[..n], true);
    }
    folder.assert_no_entry(&[&folder.bytes[..], &[0]].concat(), true);
}

#[test]
fn lengths_that_lie_are_not_believed() {
    let folder = Folder::new();
    for n_tokens in [0, 1, 4, 6, 11, 1 << 24, (1 << 24) + 1, 1 << 30, u32::MAX] {
        let mut bytes = folder.bytes.clone();
        bytes[12..16].copy_from_slice(&n_tokens.to_le_bytes());
        reseal(&mut bytes);
        folder.assert_no_entry(&bytes, true);
    }
    for n_bytes in [0, 23, 25, 1 << 31, 1 << 40, u64::MAX - 100, u64::MAX - 99, u64::MAX] {
        let mut bytes = folder.bytes.clone();
        bytes[48..56].copy_from_slice(&n_bytes.to_le_bytes());
        reseal(&mut bytes);
        folder.assert_no_entry(&bytes, true);
    }
}

#[test]
fn a_payload_that_no_memory_holds_is_an_error() {
    let mut head = format::head(&key(), &[1, 2], &[]);
    let n_bytes = u64::MAX - TOKENS_AT as u64 - 8;
    head[48..56].copy_from_slice(&n_bytes.to_le_bytes());
    reseal(&mut head);
    let mut file = Cursor::new(head);
    let header = format::read_header(&mut file, &key(), u64::MAX).expect("the lengths agree");
    assert_eq!(header.read_tokens(&mut file).expect("tokens"), [1, 2]);
    let error = header.read_payload(&mut file).expect_err("there is no such memory");
    assert!(matches!(error, PrefixFileError::NoMemory { .. }), "{error:?}");
}

#[test]
fn a_file_that_ends_while_it_is_read_is_an_error() {
    let head = format::head(&key(), &[1, 2], &[7; 100]);
    let n_bytes = head.len() as u64 + 100;
    let mut file = Cursor::new([&head[..], &[7; 99]].concat());
    let header = format::read_header(&mut file, &key(), n_bytes).expect("the lengths agree");
    header.read_tokens(&mut file).expect("tokens");
    let error = header.read_payload(&mut file).expect_err("a byte is missing");
    assert!(matches!(error, PrefixFileError::Io { operation: "read", .. }), "{error:?}");
}

#[test]
fn a_file_for_another_model_is_left_alone() {
    let folder = Folder::new();
    let other = ModelKey::new(["model", "engine", "2"]);
    let payload = snapshot(&folder.tokens, N_PAYLOAD).bytes;
    let bytes = [format::head(&other, &folder.tokens, &payload), payload].concat();
    folder.assert_no_entry(&bytes, false);
    // Under its own name it is found for its own model, and not for this one.
    let name = folder.file.file_name().and_then(|name| name.to_str()).expect("a name");
    let theirs = folder.dir.path().join(name.replace(&key().short(), &other.short()));
    fs::rename(&folder.file, theirs).expect("writable");
    assert_eq!(folder.open().stats().n_entries, 0);
    let tier = HostTier::open(&on_disk(0, folder.dir.path(), 10_000), other, Reuse::AnyPrefix);
    assert_fetches(&tier, &folder.tokens, N_PAYLOAD);
}

#[test]
fn what_is_not_a_file_is_left_alone() {
    let folder = Folder::new();
    let elsewhere = folder.dir.path().join("elsewhere");
    fs::rename(&folder.file, &elsewhere).expect("writable");

    fs::create_dir(&folder.file).expect("writable");
    assert_eq!(folder.open().stats().n_entries, 0);
    assert!(folder.file.is_dir());
    fs::remove_dir(&folder.file).expect("writable");

    symlink(&elsewhere, &folder.file).expect("writable");
    assert_eq!(folder.open().stats().n_entries, 0);
    fs::remove_file(&folder.file).expect("still there");
    assert!(elsewhere.exists());
}

#[test]
fn what_takes_the_place_of_a_known_file_is_noticed() {
    type Replace = fn(&Folder);
    let replace: [(&str, Replace); 4] = [
        ("directory", |folder| {
            fs::remove_file(&folder.file).expect("writable");
            fs::create_dir(&folder.file).expect("writable");
        }),
        ("link", |folder| {
            let elsewhere = folder.dir.path().join("elsewhere");
            fs::rename(&folder.file, &elsewhere).expect("writable");
            symlink(&elsewhere, &folder.file).expect("writable");
        }),
        ("pipe", |folder| {
            fs::remove_file(&folder.file).expect("writable");
            // Opening it for reading waits for a writer, unless asked not to.
            let made = std::process::Command::new("mkfifo").arg(&folder.file).status().expect("mkfifo runs");
            assert!(made.success());
        }),
        ("other tokens", |folder| {
            let payload = vec![1; N_PAYLOAD];
            let bytes = [format::head(&key(), &tokens(2, 5), &payload), payload].concat();
            fs::write(&folder.file, bytes).expect("writable");
        }),
    ];
    for (what, replace) in replace {
        let folder = Folder::new();
        let tier = folder.open();
        replace(&folder);
        let error = fetch_all(&tier, &folder.tokens).expect_err(what);
        let expected = match error {
            FetchError::File(PrefixFileError::OtherTokens) => what == "other tokens",
            FetchError::File(PrefixFileError::NotOurs) => what != "other tokens",
            _ => false,
        };
        assert!(expected, "{what}: {error:?}");
        assert!(tier.longest(&folder.tokens).is_none(), "{what}");
        // Not ours to delete.
        assert!(folder.file.symlink_metadata().is_ok(), "{what}");
    }
}

#[test]
fn a_file_that_vanished_is_a_miss() {
    let folder = Folder::new();
    let tier = folder.open();
    fs::remove_file(&folder.file).expect("writable");
    let entry = tier.longest(&folder.tokens).expect("known still").entry;
    assert!(matches!(fetch(&tier, entry), Err(FetchError::Vanished)));
    assert!(matches!(fetch(&tier, entry), Err(FetchError::Unknown)));
    assert!(tier.longest(&folder.tokens).is_none());
    assert_eq!((tier.stats().n_files_gone, tier.stats().n_errors), (1, 0));
}

#[test]
fn a_folder_that_cannot_be_one_is_done_without() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("writable");
    for path in [file.clone(), file.join("beneath")] {
        let tier = open(&on_disk(1000, &path, 10_000));
        assert_eq!(tier.stats().n_errors, 1);
        assert!(matches!(put(&tier, &tokens(1, 5), 100), Put::Kept(_)));
        assert_fetches(&tier, &tokens(1, 5), 100);
        assert_eq!(put(&tier, &tokens(2, 5), 1001), Put::Refused);
        assert_eq!(tier.close(LONG).n_unsaved, 1);
    }
}

#[test]
fn a_locked_folder_is_done_without() {
    let folder = Folder::new();
    fs::set_permissions(folder.dir.path(), Permissions::from_mode(0o000)).expect("ours");
    // Root may read it all the same.
    let readable = fs::read_dir(folder.dir.path()).is_ok();
    let tier = folder.open();
    assert_eq!(tier.stats().n_entries, usize::from(readable));
    assert!(matches!(put(&tier, &tokens(2, 5), 100), Put::Kept(_)));
    assert_eq!(tier.close(LONG).n_unsaved, usize::from(!readable));
    fs::set_permissions(folder.dir.path(), Permissions::from_mode(0o700)).expect("ours");
}

#[test]
fn a_folder_that_goes_away_costs_what_was_in_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let cache = dir.path().join("cache");
    let tier = open(&on_disk(1000, &cache, 10_000));
    put(&tier, &tokens(1, 5), 2000);
    save(&tier);
    put(&tier, &tokens(2, 5), 100);
    fs::remove_dir_all(&cache).expect("writable");
    assert_eq!(tier.flush(LONG).n_unsaved, 1);
    assert!(matches!(fetch_all(&tier, &tokens(1, 5)), Err(FetchError::Vanished)));
    assert_fetches(&tier, &tokens(2, 5), 100);
    assert_eq!(tier.stats().n_errors, 1);
    // Once more when the end comes, and this time it works.
    fs::create_dir(&cache).expect("writable");
    assert_eq!(tier.close(LONG).n_unsaved, 0);
    assert_eq!(files(&cache).len(), 1);
}
