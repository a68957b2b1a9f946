//! How much of a prompt goes beside running streams.
//!
//! Streams may be slowed down to 1/slowdown of their pace. That is kept as a credit in seconds: each step earns them
//! (slowdown − 1) times what it would take without prompts, and prompt tokens are paid from it.
//!
//! Where a few rows in every step are about as cheap per token as a large chunk, as on GPUs, they go in every step and no
//! stream stutters. Where they are dearer, as on CPUs (more so in deep contexts, where attention over few rows is slow),
//! the streams run undisturbed until there is credit for a large chunk, and pause for that one step, for at most
//! [`MAX_PAUSE_S`] and once in about [`STEPS_TO_A_PAUSE`] steps.

use super::cost::{CostModel, StepLoad};

/// Longest step that prompts may make of a stream's, in seconds beyond its own.
const MAX_PAUSE_S: f64 = 2.5;
/// A pause is at most what so many undisturbed steps have earned, so that one in some hundreds of a stream's gaps is a pause,
/// and those of fast streams are short.
const STEPS_TO_A_PAUSE: f64 = 512.0;
/// Chunks up to here are taught to and asked of the model of small steps, larger ones of the other: kernels treat a
/// handful of rows as vectors and many as matrices, with costs per row that have nothing to do with each other.
const SMALL: u32 = 16;
/// The smallest chunk that teaches the model of large ones.
const LARGE: u32 = 32;
/// A token in a small chunk may cost so many times what it costs in a large one.
const WORTH_SMOOTHNESS: f64 = 1.25;

/// The least slowdown: below it prompts would hardly move.
const MIN_SLOWDOWN: f64 = 1.1;

/// Cost models and the credit.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    slowdown: f64,
    small: CostModel,
    large: CostModel,
    /// Seconds by which prompts may delay the streams now.
    credit_s: f64,
}

impl Pace {
    pub(super) fn new(slowdown: f64) -> Self {
        Self {
            slowdown: slowdown.max(MIN_SLOWDOWN),
            small: CostModel::default(),
            large: CostModel::default(),
            credit_s: 0.0,
        }
    }

    /// Seconds that `n` prompt tokens from `position` on add to a step with these decode rows.
    fn excess(&self, decode: StepLoad, position: u32, n: u32) -> f64 {
        let with = decode.with_row(position, n, false);
        let alone = self.small.predict(decode).unwrap_or(0.0);
        let large = (n > SMALL).then(|| self.large.predict(with)).flatten();
        let whole = large.or_else(|| self.small.predict(with)).unwrap_or(0.0);
        (whole - alone).max(0.0)
    }

    /// The largest `n` ≤ `limit` whose excess is within `seconds`; 0 if there is none.
    fn most_within(&self, decode: StepLoad, position: u32, limit: u32, seconds: f64) -> u32 {
        let (mut low, mut high) = (0, limit);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.excess(decode, position, middle) <= seconds { low = middle } else { high = middle - 1 }
        }
        low
    }

    /// Most tokens of prompts, from `position` on and at most `limit`, that may join these decode rows now. 0: not in this
    /// step; the credit grows with each step without.
    pub(super) fn chunk(&self, decode: StepLoad, position: u32, limit: u32) -> u32 {
        if decode.n_tokens == 0 || limit == 0 {
            return limit;
        }
        let Some(alone) = self.small.predict(decode) else { return 1 };
        let in_every_step = (self.slowdown - 1.0) * alone;
        let per_token = |n: u32| self.excess(decode, position, n) / f64::from(n);
        let many = limit.max(LARGE);
        // All that fits into every step, if that is a chunk worth the name.
        let smooth = self.most_within(decode, position, limit, in_every_step);
        if smooth == limit || smooth > SMALL {
            return smooth;
        }
        let few = smooth.min(SMALL);
        if few > 0 && self.large.is_taught() && per_token(few) <= WORTH_SMOOTHNESS * per_token(many) {
            return few;
        }
        let earned = (STEPS_TO_A_PAUSE * in_every_step).min(MAX_PAUSE_S);
        let pause = self.excess(decode, position, limit).min(earned);
        match self.credit_s >= pause {
            true => self.most_within(decode, position, limit, pause).max(1),
            false => 0,
        }
    }

    /// A step took so long, of which these were its decode rows.
    pub(super) fn took(&mut self, decode: StepLoad, whole: StepLoad, seconds: f64) {
        let n_chunk = whole.n_tokens - decode.n_tokens;
        if n_chunk >= LARGE {
            self.large.observe(whole, seconds);
        }
        if decode.n_tokens == 0 {
            return;
        }
        if n_chunk <= SMALL {
            self.small.observe(whole, seconds);
        }
        let alone = self.small.predict(decode).unwrap_or(seconds).min(seconds);
        let excess = if n_chunk > 0 { seconds - alone } else { 0.0 };
        let credit = self.credit_s + (self.slowdown - 1.0) * alone - excess;
        self.credit_s = credit.clamp(-MAX_PAUSE_S, MAX_PAUSE_S);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds on a machine where rows beyond the first cost `row` up to [`SMALL`] of them and `bulk` beyond, and a cell
    /// attended `cell` or `bulk_cell`.
    struct Machine {
        step: f64,
        row: f64,
        bulk: f64,
        cell: f64,
        bulk_cell: f64,
    }

    impl Machine {
        fn time(&self, load: StepLoad) -> f64 {
            let (row, cell) = match load.n_tokens > SMALL {
                true => (self.bulk, self.bulk_cell),
                false => (self.row, self.cell),
            };
            self.step + row * f64::from(load.n_tokens) + cell * load.n_attended as f64
        }
    }

    /// Two CPU cores and a small model, as measured: milliseconds a row, dear attention over few rows.
    const CPU: Machine = Machine { step: 3e-3, row: 3.6e-3, bulk: 2.4e-3, cell: 3e-6, bulk_cell: 0.7e-6 };
    const GPU: Machine = Machine { step: 5e-3, row: 2e-5, bulk: 2e-5, cell: 1e-10, bulk_cell: 1e-10 };

    struct Ingested {
        /// Seconds until the prompt was read, and without streams.
        took: f64,
        alone: f64,
        /// Longest step, and the 99th percentile of steps, in multiples of the median before.
        longest: f64,
        p99: f64,
    }

    /// One stream runs, then a prompt of 4,000 tokens comes.
    fn ingest(machine: &Machine, slowdown: f64, chunk: u32) -> Ingested {
        let mut pace = Pace::new(slowdown);
        let decode = |step: u32| StepLoad::default().with_row(100 + step % 900, 1, true);
        let mut alone = 0.0;
        for position in (0..4000).step_by(chunk as usize) {
            let whole = StepLoad::default().with_row(position, chunk.min(4000 - position), false);
            pace.took(StepLoad::default(), whole, machine.time(whole));
            alone += machine.time(whole);
        }
        for step in 0..300 {
            pace.took(decode(step), decode(step), machine.time(decode(step)));
        }
        let before = machine.time(decode(150));
        let (mut position, mut took, mut gaps) = (0, 0.0, Vec::new());
        for step in 300.. {
            let n = pace.chunk(decode(step), position, chunk.min(4000 - position));
            let whole = if n == 0 { decode(step) } else { decode(step).with_row(position, n, false) };
            let time = machine.time(whole);
            pace.took(decode(step), whole, time);
            gaps.push(time / before);
            (position, took) = (position + n, took + time);
            if position == 4000 {
                break;
            }
        }
        gaps.sort_by(f64::total_cmp);
        Ingested { took, alone, longest: gaps[gaps.len() - 1] * before, p99: gaps[gaps.len() * 99 / 100] }
    }

    #[test]
    fn on_a_cpu_streams_pause_now_and_then() {
        let ingested = ingest(&CPU, 2.0, 512);
        assert!(ingested.p99 <= 2.5, "{}", ingested.p99);
        assert!(ingested.longest <= 1.2 * MAX_PAUSE_S, "{}", ingested.longest);
        assert!(ingested.took <= 2.5 * ingested.alone, "{} of {}", ingested.took, ingested.alone);
    }

    #[test]
    fn on_a_gpu_nobody_notices() {
        let ingested = ingest(&GPU, 2.0, 512);
        assert!(ingested.longest <= 2.5 * 5e-3, "{}", ingested.longest);
        assert!(ingested.took <= 3.0 * ingested.alone, "{} of {}", ingested.took, ingested.alone);
    }

    #[test]
    fn more_slowdown_reads_sooner() {
        let took = [1.2, 1.5, 2.0, 4.0].map(|slowdown| ingest(&CPU, slowdown, 512).took);
        assert!(took.windows(2).all(|pair| pair[1] < pair[0]), "{took:?}");
    }

    #[test]
    fn without_streams_there_is_nothing_to_save() {
        assert_eq!(Pace::new(2.0).chunk(StepLoad::default(), 0, 512), 512);
    }

    #[test]
    fn the_first_chunk_beside_a_stream_that_nobody_has_timed_is_one_token() {
        let decode = StepLoad::default().with_row(5, 1, true);
        assert_eq!(Pace::new(2.0).chunk(decode, 0, 512), 1);
    }

    #[test]
    fn no_slowdown_still_moves() {
        // Without any allowance there is never any credit; a prompt that came must not wait for ever.
        let ingested = ingest(&CPU, 1.0, 512);
        assert!(ingested.took.is_finite());
    }
}
