//! Whether a series of observations stands still: a trend, a step, or neither.
//!
//! The shape that leaves the smaller sum of squares is looked at, the other not. It has to be *large* (at least a given change), *beyond the noise* (t test at one in ten thousand) and
//! *orderly* (Mann–Kendall for a trend; for a step every value before on one side of every value after). The last keeps
//! single outliers and heavy tails from looking like either. With fewer than [`LEAST_OBSERVATIONS`] there is no answer.

use super::{mean, median};
use crate::stats::student::t_quantile;

/// Below this nothing is said.
pub const LEAST_OBSERVATIONS: usize = 6;

/// Level of the t tests.
const LEVEL: f64 = 1e-4;
/// Level of the Mann–Kendall test; with six observations only a series without exception reaches it.
const KENDALL_LEVEL: f64 = 0.005;
/// Observations on either side of a step.
const LEAST_SEGMENT: usize = 2;

/// How a series moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Not in a way that can be told from noise.
    Still,
    /// Steadily.
    Trend {
        /// From the first to the last observation, by Theil and Sen's slope.
        change: f64,
    },
    /// At once.
    Step {
        /// The first observation after it.
        at: usize,
        /// Mean after it less mean before it.
        change: f64,
    },
}

/// How `values` move, changes below `least` not counted.
pub fn shape(values: &[f64], least: f64) -> Shape {
    if values.len() < LEAST_OBSERVATIONS || values.iter().any(|value| !value.is_finite()) {
        return Shape::Still;
    }
    let (trend, trend_squares) = trend(values, least);
    let (step, step_squares) = step(values, least);
    let better = if trend_squares <= step_squares { trend } else { step };
    better.unwrap_or(Shape::Still)
}

/// The trend, if there is one, and the sum of squares that a line leaves.
fn trend(values: &[f64], least: f64) -> (Option<Shape>, f64) {
    let n = values.len() as f64;
    let (centre, level) = ((n - 1.0) / 2.0, mean(values).unwrap_or(0.0));
    let (mut xx, mut xy) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let x = index as f64 - centre;
        xx += x * x;
        xy += x * (value - level);
    }
    let slope = xy / xx;
    let squares: f64 = values
        .iter()
        .enumerate()
        .map(|(index, value)| (value - level - slope * (index as f64 - centre)).powi(2))
        .sum();
    let change = theil_sen(values) * (n - 1.0);
    let error = (squares / (n - 2.0) / xx).sqrt();
    // Quantiles and exact tables last: most series are still, and thousands of them are simulated.
    let beyond_noise = || slope.abs() > t_quantile(1.0 - LEVEL / 2.0, n - 2.0) * error;
    let found = change.abs() >= least && beyond_noise() && kendall_p(values) <= KENDALL_LEVEL;
    (found.then_some(Shape::Trend { change }), squares)
}

/// The most likely step, if there is one, and the sum of squares that it leaves.
fn step(values: &[f64], least: f64) -> (Option<Shape>, f64) {
    let n = values.len();
    let splits = LEAST_SEGMENT..=n - LEAST_SEGMENT;
    let n_splits = splits.clone().count() as f64;
    let best = splits
        .map(|at| {
            let (before, after) = values.split_at(at);
            let (low, high) = (mean(before).unwrap_or(0.0), mean(after).unwrap_or(0.0));
            let squares: f64 = before.iter().map(|value| (value - low).powi(2)).sum::<f64>()
                + after.iter().map(|value| (value - high).powi(2)).sum::<f64>();
            (at, high - low, squares)
        })
        .min_by(|a, b| a.2.total_cmp(&b.2));
    let Some((at, change, squares)) = best else { return (None, f64::INFINITY) };
    let error = (squares / (n - 2) as f64 * (1.0 / at as f64 + 1.0 / (n - at) as f64)).sqrt();
    // Bonferroni over the places where it could have been.
    let beyond_noise = || change.abs() > t_quantile(1.0 - LEVEL / (2.0 * n_splits), (n - 2) as f64) * error;
    let (before, after) = values.split_at(at);
    let found = change.abs() >= least && apart(before, after) && beyond_noise();
    (found.then_some(Shape::Step { at, change }), squares)
}

/// Whether all of one are below all of the other.
fn apart(a: &[f64], b: &[f64]) -> bool {
    let range = |values: &[f64]| {
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
    };
    let ((low_a, high_a), (low_b, high_b)) = (range(a), range(b));
    high_a < low_b || high_b < low_a
}

/// The median slope over all pairs, per observation; 0 below two values.
pub fn theil_sen(values: &[f64]) -> f64 {
    let mut slopes = Vec::with_capacity(values.len() * values.len().saturating_sub(1) / 2);
    for (i, first) in values.iter().enumerate() {
        for (j, second) in values.iter().enumerate().skip(i + 1) {
            slopes.push((second - first) / (j - i) as f64);
        }
    }
    median(&slopes).unwrap_or(0.0)
}

/// Two-sided p-value of Mann and Kendall's test for a monotone trend: exact up to 30 values without ties, by the normal
/// approximation with continuity correction beyond. 1 below two values.
pub fn kendall_p(values: &[f64]) -> f64 {
    let n = values.len();
    if n < 2 {
        return 1.0;
    }
    let mut s = 0i64;
    for (i, first) in values.iter().enumerate() {
        for second in &values[i + 1..] {
            s += i64::from(second > first) - i64::from(second < first);
        }
    }
    if n <= 30 { exact_kendall_p(n, s.unsigned_abs()) } else { normal_kendall_p(n as f64, s.abs() as f64) }
}

/// Of all orders of `n` values the share whose |S| is at least `s`: S = pairs − 2·inversions, and the number of orders
/// with k inversions follows by adding one value at a time.
fn exact_kendall_p(n: usize, s: u64) -> f64 {
    let pairs = n * (n - 1) / 2;
    let mut share = vec![1.0]; // of inversions 0, 1, …
    for m in 2..=n {
        let mut next = vec![0.0; m * (m - 1) / 2 + 1];
        for (inversions, p) in share.iter().enumerate() {
            for more in 0..m {
                next[inversions + more] += p / m as f64;
            }
        }
        share = next;
    }
    let most_inversions = (pairs as u64 - s.min(pairs as u64)) / 2;
    let tail: f64 = share.iter().take(most_inversions as usize + 1).sum();
    (2.0 * tail).min(1.0)
}

fn normal_kendall_p(n: f64, s: f64) -> f64 {
    use statrs::distribution::{ContinuousCDF, Normal};
    let sd = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    (2.0 * Normal::standard().sf((s - 1.0).max(0.0) / sd)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kendalls_table() {
        // Kendall, Rank Correlation Methods, appendix table 1, doubled: n, S, p.
        for (n, s, p) in
            [(4, 6, 0.083_33), (5, 8, 0.083_33), (8, 16, 0.061_5), (10, 21, 0.072_6), (6, 15, 0.002_78)]
        {
            assert!((exact_kendall_p(n, s) - p).abs() < 1e-3, "{n} {s}: {}", exact_kendall_p(n, s));
        }
        let ascending: Vec<f64> = (0..40).map(f64::from).collect();
        assert!(kendall_p(&ascending) < 1e-10 && kendall_p(&[1.0; 40]) > 0.9);
        assert_eq!((kendall_p(&[1.0]), kendall_p(&[1.0, 1.0, 1.0])), (1.0, 1.0));
    }

    const WOBBLE: [f64; 12] =
        [0.001, -0.002, 0.0, 0.002, -0.001, 0.001, 0.002, -0.002, 0.0, -0.001, 0.002, 0.001];

    fn with(f: impl Fn(usize) -> f64) -> Vec<f64> {
        WOBBLE.iter().enumerate().map(|(index, wobble)| wobble + f(index)).collect()
    }

    #[test]
    fn shapes_are_told_apart() {
        assert_eq!(shape(&WOBBLE, 0.03), Shape::Still);
        let Shape::Trend { change } = shape(&with(|i| 0.01 * i as f64), 0.03) else { panic!("no trend") };
        assert!((change - 0.11).abs() < 0.01, "{change}");
        let Shape::Trend { change } = shape(&with(|i| -0.01 * i as f64), 0.03) else { panic!("no trend") };
        assert!((change + 0.11).abs() < 0.01, "{change}");
        let found = shape(&with(|i| if i < 5 { 0.0 } else { 0.1 }), 0.03);
        let Shape::Step { at: 5, change } = found else { panic!("{found:?}") };
        assert!((change - 0.1).abs() < 0.01, "{change}");
    }

    #[test]
    fn what_is_small_short_or_wild_is_neither() {
        assert_eq!(shape(&with(|i| 0.002 * i as f64), 0.03), Shape::Still, "too small");
        assert_eq!(shape(&with(|i| if i == 7 { 0.5 } else { 0.0 }), 0.03), Shape::Still, "an outlier");
        assert_eq!(shape(&[0.0, 0.1, 0.2, 0.3, 0.4], 0.03), Shape::Still, "too short");
        assert_eq!(shape(&[f64::NAN; 12], 0.03), Shape::Still);
        assert_eq!(shape(&[0.5; 12], 0.03), Shape::Still);
    }
}
