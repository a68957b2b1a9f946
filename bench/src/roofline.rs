//! How fast this machine reads memory, measured in place: as many bytes as a decode step's weights, so that caches help
//! the probe as much as they help the engine.

use std::num::Wrapping;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// No probe is larger: beyond every cache the rate no longer depends on the size.
const MOST_BYTES: u64 = 512 << 20;
/// Shorter readings say nothing.
const LEAST_BYTES: u64 = 1 << 20;
/// The best of so many passes, and of all that fit a moment: on a busy machine most are slowed down.
const N_PASSES: usize = 5;
const MOMENT: Duration = Duration::from_millis(400);
/// Words added side by side. With fewer the compiler keeps the sums in memory instead of vector registers, and the probe
/// reads a tenth of what memory gives.
const N_LANES: usize = 64;
const WORD: usize = size_of::<u64>();
const BLOCK: usize = N_LANES * WORD;

/// Bytes per second at which `n_threads` threads read `n_bytes` of memory over and over, the best of a few passes; `None`
/// below a mebibyte, or where memory or threads cannot be had. Takes at most half a gigabyte, and about half a second.
/// Blocks.
///
/// Memory lies in large pages where the system has them, as the fastest engine's weights do: what it gives is a ceiling.
pub fn read_rate(n_bytes: u64, n_threads: usize) -> Option<f64> {
    if n_bytes < LEAST_BYTES || n_threads == 0 {
        return None;
    }
    let memory = filled(usize::try_from(n_bytes.min(MOST_BYTES)).ok()?)?;
    let part = memory.len().div_ceil(n_threads).next_multiple_of(BLOCK);
    let parts: Vec<&[u8]> = memory.chunks(part).collect();
    let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().ok()?;
    let seconds = best_pass(&pool, &parts);
    (seconds > 0.0).then(|| memory.len() as f64 / seconds)
}

/// Memory with something written to every page, so that each is there.
fn filled(n_bytes: usize) -> Option<MmapMut> {
    let mut memory = MmapMut::map_anon(n_bytes).ok()?;
    #[cfg(target_os = "linux")]
    {
        let _ = memory.advise(memmap2::Advice::HugePage); // without them it is slower, not wrong
    }
    memory.fill(1);
    Some(memory)
}

/// Seconds of the fastest pass in which every part was read once.
fn best_pass(pool: &ThreadPool, parts: &[&[u8]]) -> f64 {
    let mut best = f64::INFINITY;
    let (begin, mut n_passes) = (Instant::now(), 0);
    while n_passes < N_PASSES || begin.elapsed() < MOMENT {
        n_passes += 1;
        let start = Instant::now();
        let total = pool.install(|| parts.par_iter().map(|part| Wrapping(sum(part))).sum::<Wrapping<u64>>());
        std::hint::black_box(total);
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// The sum of all words, those at the end that fill no block left out.
fn sum(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; N_LANES];
    for block in bytes.as_chunks::<BLOCK>().0 {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<WORD>().0) {
            *lane = lane.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_whole_block_is_read_once() {
        for (n_words, expected) in [(0u64, 0), (1, 0), (63, 0), (64, 64), (65, 64), (200, 192)] {
            let bytes: Vec<u8> = (1..=n_words).flat_map(u64::to_ne_bytes).collect();
            assert_eq!(sum(&bytes), expected * (expected + 1) / 2);
        }
    }

    #[test]
    fn a_rate_is_a_rate() {
        assert_eq!(read_rate(1000, 2), None);
        assert_eq!(read_rate(1 << 20, 0), None);
        // No machine that runs this reads slower than a hundredth of a gigabyte a second, or faster than 100 TB/s.
        let rate = read_rate(3 << 20, 3).unwrap();
        assert!((1e7..1e14).contains(&rate), "{rate}");
    }
}
