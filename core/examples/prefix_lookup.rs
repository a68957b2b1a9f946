//! How long the prefix index and the host tier take: `cargo run --release -p duet-core --example prefix_lookup [DIR]`.
//!
//! With a folder, a snapshot of 300 MB is saved there and read again.
#![expect(clippy::print_stdout, reason = "an example speaks to the terminal")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use duet_core::prefix::{Among, HolderId, HostTier, ModelKey, PrefixIndex, Reuse};
use duet_core::{DiskTierSpec, PrefixCacheSpec, SequenceSnapshot};

const N_HOLDERS: u32 = 300;
const N_SHARED: u32 = 8_000;
const N_OWN: u32 = 12_000;

fn main() {
    let mut index = PrefixIndex::new();
    let fill = Instant::now();
    for holder in 0..N_HOLDERS {
        index.insert(HolderId(holder), &sequence(holder, N_OWN));
    }
    println!(
        "{N_HOLDERS} holders of {} tokens, {N_SHARED} shared: inserted in {:.1?}, {:.1} MB for {} tokens",
        N_SHARED + N_OWN,
        fill.elapsed(),
        index.memory_bytes() as f64 / 1e6,
        index.n_distinct_tokens()
    );
    let query = sequence(150, 2_000);
    report("longest, 10,000 tokens", 1000, || {
        black_box(index.longest(black_box(&query), |_| true));
    });
    report("longest, 8,000 tokens shared by all, one holder accepted", 1000, || {
        black_box(index.longest(black_box(&query[..8_000]), |holder| holder.0 == 299));
    });
    report("least_recent among leaves", 1000, || {
        black_box(index.least_recent(black_box(Among::Leaves), |_| true));
    });
    let mut token = 0;
    report("extend by one token", 100_000, || {
        token += 1;
        index.extend(HolderId(7), &[token]);
    });
    if let Some(dir) = std::env::args_os().nth(1) {
        disk(dir.into());
    }
}

fn sequence(holder: u32, n_own: u32) -> Vec<u32> {
    let own = (0..n_own).map(|i| 1_000_000 + holder * 50_000 + i);
    (0..N_SHARED).chain(own).collect()
}

fn report(what: &str, n: u32, mut run: impl FnMut()) {
    let begun = Instant::now();
    (0..n).for_each(|_| run());
    println!("{what}: {:.2?} each", begun.elapsed() / n);
}

fn disk(dir: PathBuf) {
    let spec = PrefixCacheSpec {
        enabled: true,
        host_bytes: 1 << 30,
        disk: Some(DiskTierSpec { dir, max_bytes: 1 << 31 }),
    };
    let key = ModelKey::new(["prefix_speed"]);
    let tokens = sequence(1, 2_000);
    let bytes: Vec<u8> = (0..300_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let tier = HostTier::open(&spec, key, Reuse::AnyPrefix);
    let begun = Instant::now();
    let put = tier.put(&tokens, SequenceSnapshot { n_tokens: tokens.len() as u32, bytes });
    println!("put: {:.1?} ({put:?})", begun.elapsed());
    let begun = Instant::now();
    let flushed = tier.close(Duration::from_secs(60));
    println!("close, 300 MB saved: {:.2?} ({flushed:?})", begun.elapsed());

    let begun = Instant::now();
    let tier = HostTier::open(&spec, key, Reuse::AnyPrefix);
    println!("open: {:.1?}", begun.elapsed());
    report("tier's longest", 1000, || {
        black_box(tier.longest(black_box(&tokens)));
    });
    let Some(found) = tier.longest(&tokens) else { return };
    let (sender, receiver) = channel();
    let begun = Instant::now();
    tier.fetch(found.entry, move |result| drop(sender.send(result.map(|snapshot| snapshot.bytes.len()))));
    println!("fetch from disk: {:?} in {:.2?}", receiver.recv(), begun.elapsed());
    tier.remove(found.entry);
    tier.close(Duration::from_secs(60));
}
