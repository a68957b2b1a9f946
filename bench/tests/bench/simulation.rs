//! The harness proves itself: thousands of simulated comparisons per law of noise through the real pipeline, from visits
//! to verdicts, in optimised builds. One fixed seed, so that a change of a figure is a change of the code.

use std::fmt::Write;
use std::sync::Mutex;

use duet_bench::analysis::Analysis;
use duet_bench::order::Side;
use duet_bench::report::Metric;
use duet_bench::stats::verdict::Verdict;

use crate::synthetic::{Comparison, Fault, Law};

/// Simulated comparisons per law and truth.
const N: u64 = 5000;
const SEED: u64 = 20_261_123;

/// What came out of many comparisons, as shares of 1.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    coverage: f64,
    winner_a: f64,
    winner_b: f64,
    equivalent: f64,
    inconclusive: f64,
    invalid: f64,
    /// exp of the mean log-ratio.
    mean_ratio: f64,
}

/// All comparisons of one kind; the figure looked at is forced decoding, whose noise is a request's own.
fn simulate(law: Law, true_ratio: f64, n_blocks: usize, n_aa: usize) -> Outcome {
    let comparison = Comparison { law, true_log: true_ratio.ln(), n_blocks, n_aa, fault: Fault::None };
    let mut count = [0u64; 6];
    let mut sum = 0.0;
    for run in 0..N {
        let analysis = comparison.analysed(SEED + 7919 * run, &[]);
        let found = figure(&analysis);
        let ratio = found.ratio.as_ref().expect("no block is missing");
        let interval = ratio.interval.expect("there are blocks");
        sum += ratio.time_ratio.ln();
        count[0] += u64::from(interval.low <= true_ratio && true_ratio <= interval.high);
        let verdict = match &found.verdict {
            Verdict::Winner { side: Side::A } => 1,
            Verdict::Winner { side: Side::B } => 2,
            Verdict::Equivalent => 3,
            Verdict::Inconclusive { .. } => 4,
            Verdict::Invalid { .. } => 5,
        };
        count[verdict] += 1;
    }
    let share = |index: usize| count[index] as f64 / N as f64;
    let outcome = Outcome {
        coverage: share(0),
        winner_a: share(1),
        winner_b: share(2),
        equivalent: share(3),
        inconclusive: share(4),
        invalid: share(5),
        mean_ratio: (sum / N as f64).exp(),
    };
    record(law, true_ratio, n_blocks, &outcome);
    outcome
}

fn figure(analysis: &Analysis) -> &duet_bench::report::Comparison {
    analysis.comparisons.iter().find(|found| found.metric == Metric::DecodeForced).expect("it was measured")
}

/// The table of docs/bench.md, in the folder for tests' files.
fn record(law: Law, true_ratio: f64, n_blocks: usize, outcome: &Outcome) {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut line = format!("| {law:?} | {true_ratio:.2} | {n_blocks} ");
    let shares = [
        outcome.coverage,
        outcome.winner_a,
        outcome.winner_b,
        outcome.equivalent,
        outcome.inconclusive,
        outcome.invalid,
    ];
    for share in shares {
        let _ = write!(line, "| {:.1} ", 100.0 * share); // writing to a String does not fail
    }
    let _ = write!(line, "| {:.4} |", outcome.mean_ratio);
    let mut lines = LINES.lock().expect("no test panicked while it wrote");
    lines.push(line);
    lines.sort();
    let head = "| law | true time ratio | blocks | coverage % | A wins % | B wins % | equivalent % | open % | invalid % \
                | mean ratio |\n|---|---|---|---|---|---|---|---|---|---|\n";
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/simulated.md");
    std::fs::write(path, format!("{head}{}\n", lines.join("\n"))).expect("the folder for tests' files");
}

#[track_caller]
fn check_coverage(law: Law, n_blocks: usize, allowed: std::ops::RangeInclusive<f64>) {
    let found = simulate(law, 1.0, n_blocks, 0);
    assert!(allowed.contains(&found.coverage), "{law:?}, {n_blocks} blocks: {found:?}");
    assert!(found.winner_a + found.winner_b <= 0.05, "{law:?}, {n_blocks} blocks: {found:?}");
}

/// Near-normal laws and drifts.
const NEAR: std::ops::RangeInclusive<f64> = 0.93..=0.97;
/// Heavy symmetric tails: Student's interval is conservative there.
const HEAVY: std::ops::RangeInclusive<f64> = 0.93..=1.0;
/// Asymmetric laws: with the same law on both arms the log-ratio is symmetric again.
const ASYMMETRIC: std::ops::RangeInclusive<f64> = 0.90..=1.0;

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation; `make test` has it")]
fn coverage_near_normal() {
    for n_blocks in [3, 5, 8, 20] {
        check_coverage(Law::Normal, n_blocks, NEAR);
    }
    for law in [Law::Unequal, Law::Laplace, Law::Autoregressive] {
        check_coverage(law, 8, NEAR);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation; `make test` has it")]
fn coverage_under_drift() {
    for law in [Law::LinearDrift, Law::RandomWalk, Law::Wave] {
        check_coverage(law, 5, NEAR);
        check_coverage(law, 8, NEAR);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation; `make test` has it")]
fn coverage_under_heavy_tails() {
    for law in [Law::StudentT3, Law::StudentT15, Law::SymmetricOutliers] {
        check_coverage(law, 8, HEAVY);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation; `make test` has it")]
fn coverage_under_asymmetric_laws() {
    for law in [Law::Spikes, Law::Exponential] {
        check_coverage(law, 5, ASYMMETRIC);
        check_coverage(law, 8, ASYMMETRIC);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation; `make test` has it")]
fn an_engine_against_itself_wins_in_fewer_than_one_in_twenty() {
    for law in [Law::Normal, Law::RandomWalk, Law::StudentT3, Law::Spikes] {
        let found = simulate(law, 1.0, 8, 4);
        assert!(found.winner_a + found.winner_b <= 0.05, "{law:?}: {found:?}");
        assert!(found.invalid <= 0.05, "{law:?}: {found:?}");
        if law == Law::Normal {
            assert!(found.equivalent > 0.95, "with noise of 2 % eight blocks suffice: {found:?}");
        }
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation; `make test` has it")]
fn true_ratios_are_recovered() {
    for (ratio, n_blocks) in [(1.02, 8), (1.05, 20), (1.2, 8)] {
        for law in [Law::Normal, Law::RandomWalk] {
            let found = simulate(law, ratio, n_blocks, 0);
            assert!(NEAR.contains(&found.coverage), "{ratio} {law:?}: {found:?}");
            assert!((found.mean_ratio / ratio - 1.0).abs() < 0.001, "{ratio} {law:?}: {found:?}");
            assert!(found.winner_a <= 0.001, "the slower arm never wins: {ratio} {law:?}: {found:?}");
            match ratio {
                1.02 => assert!(found.winner_b <= 0.05, "within the margin: {found:?}"),
                1.05 => assert!(found.winner_b > 0.9, "{found:?}"),
                _ => assert!(found.winner_b > 0.999, "{found:?}"),
            }
        }
    }
}

/// What comes out of many comparisons whose ratio jumps by 0.2 of its logarithm after six blocks, as shares of 1.
#[derive(Debug)]
struct Jumped {
    winner_a: f64,
    winner_b: f64,
    invalid: f64,
    /// Those whose jump was found.
    in_parts: f64,
    /// Of these: the interval holds both levels.
    coverage: f64,
}

/// With a true log-ratio of `before` in the first six blocks and 0.2 more in the others.
fn jumping(law: Law, before: f64, n_blocks: usize) -> Jumped {
    let comparison = Comparison { law, true_log: before, n_blocks, n_aa: 0, fault: Fault::ArmJumps };
    let (mut verdicts, mut n_parts, mut n_covered) = ([0u64; 3], 0u64, 0u64);
    for run in 0..N {
        let analysis = comparison.analysed(SEED + 7919 * run, &[]);
        let found = figure(&analysis);
        let ratio = found.ratio.as_ref().expect("no block is missing");
        let interval = ratio.interval.expect("there are blocks");
        if found.has_parts() {
            n_parts += 1;
            n_covered += u64::from(interval.low <= before.exp() && (before + 0.2).exp() <= interval.high);
        }
        let verdict: Option<usize> = match &found.verdict {
            Verdict::Winner { side: Side::A } => Some(0),
            Verdict::Winner { side: Side::B } => Some(1),
            Verdict::Invalid { .. } => Some(2),
            Verdict::Equivalent | Verdict::Inconclusive { .. } => None,
        };
        verdict.into_iter().for_each(|verdict| verdicts[verdict] += 1);
    }
    let [winner_a, winner_b, invalid] = verdicts.map(|n| n as f64 / N as f64);
    let (in_parts, coverage) = (n_parts as f64 / N as f64, n_covered as f64 / n_parts.max(1) as f64);
    Jumped { winner_a, winner_b, invalid, in_parts, coverage }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation; `make test` has it")]
fn a_ratio_that_jumps_has_the_winner_of_both_levels_or_none() {
    for law in [Law::Normal, Law::Laplace, Law::Autoregressive] {
        for n_blocks in [8, 9, 12] {
            let same = jumping(law, 0.1, n_blocks);
            assert!(same.winner_a == 0.0 && same.coverage >= 0.93, "{law:?}, {n_blocks}: {same:?}");
            let opposite = jumping(law, -0.1, n_blocks);
            assert!(opposite.winner_a + opposite.winner_b <= 0.05, "{law:?}, {n_blocks}: {opposite:?}");
        }
        let same = jumping(law, 0.1, 12);
        assert!(same.in_parts > 0.9 && same.winner_b > 0.9, "{law:?}: {same:?}");
        for before in [-0.1, 0.0, -0.2] {
            let none = jumping(law, before, 12);
            assert!(none.invalid > 0.9 && none.winner_a + none.winner_b <= 0.05, "{law:?}: {none:?}");
        }
    }
}
