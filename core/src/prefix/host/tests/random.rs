//! Random traces: whatever happens in whichever order, the caps hold and what comes back is what was given.

use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const HOST_BYTES: u64 = 500;
const DISK_BYTES: u64 = 1500;

#[derive(Debug, Clone)]
enum Op {
    Put {
        seed: u32,
        n_tokens: u32,
        n_bytes: usize,
    },
    Fetch {
        seed: u32,
        n_tokens: u32,
    },
    Remove {
        seed: u32,
    },
    Flush,
    /// Ends the tier, with or without time for saving, and opens another one.
    Reopen {
        in_time: bool,
    },
    /// Damages a file.
    Damage {
        which: usize,
        at: usize,
    },
}

fn ops() -> impl Strategy<Value = Op> {
    let (seeds, lengths) = (|| 1..5_u32, || 1..12_u32);
    prop_oneof![
        8 => (seeds(), lengths(), 0..600_usize)
            .prop_map(|(seed, n_tokens, n_bytes)| Op::Put { seed, n_tokens, n_bytes }),
        6 => (seeds(), lengths()).prop_map(|(seed, n_tokens)| Op::Fetch { seed, n_tokens }),
        1 => seeds().prop_map(|seed| Op::Remove { seed }),
        3 => Just(Op::Flush),
        1 => any::<bool>().prop_map(|in_time| Op::Reopen { in_time }),
        1 => (0..4_usize, 0..700_usize).prop_map(|(which, at)| Op::Damage { which, at }),
    ]
}

/// The payload's length follows from the tokens in what comes back, so it is put in front of the tokens.
fn sequence(seed: u32, n_tokens: u32, n_bytes: usize) -> Vec<TokenId> {
    [tokens(seed, n_tokens), vec![n_bytes as u32]].concat()
}

fn run(tier: &HostTier, dir: &Path, op: Op) -> Result<(), TestCaseError> {
    match op {
        Op::Put { seed, n_tokens, n_bytes } => {
            let tokens = sequence(seed, n_tokens, n_bytes);
            let put = tier.put(&tokens, snapshot(&tokens, n_bytes));
            if let Put::Kept(entry) | Put::Covered(entry) = put {
                let known = tier.covers(&tokens) || fetch(tier, entry).is_err();
                prop_assert!(known, "it is there, unless its file has gone");
            }
        }
        Op::Fetch { seed, n_tokens } => {
            let query = tokens(seed, n_tokens);
            let Some(found) = tier.longest(&query) else { return Ok(()) };
            prop_assert!(found.n_tokens <= query.len() && found.n_tokens <= found.n_snapshot_tokens);
            if let Ok(got) = fetch(tier, found.entry) {
                prop_assert_eq!(got.n_tokens as usize, found.n_snapshot_tokens);
                prop_assert_eq!(got.bytes.len() as u64, found.n_bytes);
                let tokens = sequence(seed, got.n_tokens - 1, got.bytes.len());
                prop_assert_eq!(&*got, &snapshot(&tokens, got.bytes.len()));
            } else {
                prop_assert!(!found.in_ram);
            }
        }
        Op::Remove { seed } => {
            let query = tokens(seed, 1);
            if let Some(found) = tier.longest(&query) {
                tier.remove(found.entry);
                prop_assert!(matches!(fetch(tier, found.entry), Err(FetchError::Unknown)));
            }
        }
        Op::Flush => {
            let flushed = tier.flush(LONG);
            prop_assert!(flushed.n_unsaved <= tier.stats().n_entries);
        }
        Op::Damage { which, at } => {
            let files = files(dir);
            if let Some(path) = files.get(which % files.len().max(1)) {
                damage(path, at);
            }
        }
        Op::Reopen { .. } => {}
    }
    Ok(())
}

/// Changes one byte of the file in place, if it is still there.
fn damage(path: &Path, at: usize) {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return };
    let n_bytes = file.metadata().expect("metadata").len();
    let at = at as u64 % n_bytes.max(1);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within the file");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at).expect("writable");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn caps_hold_and_nothing_comes_back_changed(trace in prop::collection::vec(ops(), 1..50)) {
        let dir = tempfile::tempdir().expect("a folder");
        let spec = on_disk(HOST_BYTES, dir.path(), DISK_BYTES);
        let mut tier = open(&spec);
        for op in trace {
            if let Op::Reopen { in_time } = op {
                if in_time {
                    tier.close(LONG);
                } else {
                    drop(tier);
                }
                tier = open(&spec);
            } else {
                run(&tier, dir.path(), op)?;
            }
            prop_assert!(tier.stats().ram_bytes <= HOST_BYTES);
            prop_assert!(bytes_in(dir.path()) <= DISK_BYTES);
        }
    }
}
