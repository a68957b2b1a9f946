//! How long the sampler takes per row: `cargo run --release -p duet-core --example sampling_speed`.
//!
//! Rows are made up: "peaked" falls off with rank like a language model's (perplexity about 15), "flat" is normal with
//! standard deviation 1, the worst case for top-p. Best of 9 rounds, one thread, nanoseconds per row.
#![expect(clippy::print_stdout, reason = "it is a report")]

use std::hint::black_box;
use std::time::Instant;

use duet_core::sampling::{Sampler, SamplingParams, logprobs};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

fn main() {
    let plain = SamplingParams::default;
    let cases = [
        ("greedy", SamplingParams { temperature: 0.0, ..plain() }),
        ("temperature 0.8", SamplingParams { temperature: 0.8, ..plain() }),
        ("top-k 40, top-p 0.95", SamplingParams { top_k: 40, top_p: 0.95, temperature: 0.8, ..plain() }),
        ("top-p 0.95", SamplingParams { top_p: 0.95, ..plain() }),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..plain() }),
        ("typical 0.9", SamplingParams { typical_p: 0.9, ..plain() }),
        (
            "top-k 40, penalties over 1000 tokens",
            SamplingParams { top_k: 40, repetition_penalty: 1.1, ..plain() },
        ),
        ("greedy, DRY over 1000 tokens", SamplingParams { temperature: 0.0, dry_multiplier: 0.8, ..plain() }),
    ];
    for vocab_size in [49_152u32, 151_936] {
        for (shape, rows) in [("peaked", rows(vocab_size, peaked)), ("flat", rows(vocab_size, flat))] {
            println!("{vocab_size} tokens, {shape}");
            for (name, params) in &cases {
                let mut sampler = Sampler::new(params.clone(), vocab_size);
                (0..1000).for_each(|n| sampler.accept(n * 7919 % 999 * 31 % vocab_size));
                let time = best(&rows, |row| {
                    black_box(sampler.sample(row).expect("a token"));
                });
                println!("  {name:<38} {time:>9}");
            }
            for n_top in [0, 20] {
                let time = best(&rows, |row| {
                    black_box(logprobs(row, 7, n_top));
                });
                println!("  logprobs with {n_top:<24} {time:>9}");
            }
        }
    }
}

/// Enough rows that they do not all stay in the nearest cache.
fn rows(vocab_size: u32, shape: fn(&mut ChaCha8Rng, f32) -> f32) -> Vec<Vec<f32>> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    (0..16)
        .map(|_| {
            let mut row: Vec<f32> = (0..vocab_size).map(|rank| shape(&mut random, rank as f32)).collect();
            for at in (1..row.len()).rev() {
                row.swap(at, random.next_u32() as usize % (at + 1));
            }
            row
        })
        .collect()
}

fn normal(random: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| random.next_u32() as f32 / u32::MAX as f32).sum::<f32>() - 6.0
}

fn peaked(random: &mut ChaCha8Rng, rank: f32) -> f32 {
    20.0 - 1.7 * (1.0 + rank).ln() + 0.3 * normal(random)
}

fn flat(random: &mut ChaCha8Rng, _: f32) -> f32 {
    normal(random)
}

fn best(rows: &[Vec<f32>], mut work: impl FnMut(&[f32])) -> u128 {
    let round = |_| {
        let start = Instant::now();
        rows.iter().for_each(|row| work(row));
        start.elapsed().as_nanos() / rows.len() as u128
    };
    (0..9).map(round).min().unwrap_or(0)
}
