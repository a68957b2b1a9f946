//! How fast this machine reads memory, measured in place: as many bytes as a decode step's weights, so that caches help
//! the probe as much as they help the engine.

use std::num::Wrapping;
use std::thread;
use std::time::{Duration, Instant};

/// No probe is larger: beyond every cache the rate no longer depends on the size.
const MOST_BYTES: u64 = 512 << 20;
/// Shorter readings say nothing.
const LEAST_BYTES: u64 = 1 << 20;
/// The best of so many passes, and of all that fit a moment: on a busy machine most are slowed down.
const N_PASSES: usize = 5;
const MOMENT: Duration = Duration::from_millis(400);

/// Bytes per second at which `n_threads` threads read `n_bytes` of memory over and over, the best of a few passes; `None`
/// below a mebibyte, or where memory or threads cannot be had. Takes at most half a gigabyte, and about half a second.
/// Blocks.
pub fn read_rate(n_bytes: u64, n_threads: usize) -> Option<f64> {
    if n_bytes < LEAST_BYTES || n_threads == 0 {
        return None;
    }
    let n_words = usize::try_from(n_bytes.min(MOST_BYTES) / 8).ok()?;
    let mut words: Vec<u64> = Vec::new();
    words.try_reserve_exact(n_words).ok()?;
    words.extend((0..n_words).map(|word| word as u64)); // written, so that every page is there
    let part = n_words.div_ceil(n_threads);
    let mut best = f64::INFINITY;
    let (begin, mut n_passes) = (Instant::now(), 0);
    while n_passes < N_PASSES || begin.elapsed() < MOMENT {
        n_passes += 1;
        let start = Instant::now();
        let sum: Option<Wrapping<u64>> = thread::scope(|scope| {
            let spawn = |part| thread::Builder::new().spawn_scoped(scope, move || sum(part)).ok();
            let threads: Option<Vec<_>> = words.chunks(part).map(spawn).collect();
            threads?.into_iter().map(|thread| thread.join().ok()).sum()
        });
        std::hint::black_box(sum?);
        best = best.min(start.elapsed().as_secs_f64());
    }
    (best > 0.0).then(|| (8 * n_words) as f64 / best)
}

/// Eight sums side by side, so that the compiler can use vectors and the additions never wait for each other.
fn sum(words: &[u64]) -> Wrapping<u64> {
    let mut lanes = [0u64; 8];
    let (chunks, rest) = words.as_chunks::<8>();
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().chain(rest).map(|word| Wrapping(*word)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read_once() {
        for n in [0usize, 1, 7, 8, 9, 100] {
            let words: Vec<u64> = (1..=n as u64).collect();
            assert_eq!(sum(&words).0, (n * (n + 1) / 2) as u64);
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
