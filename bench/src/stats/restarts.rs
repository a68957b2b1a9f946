//! Blocks of several processes: what varies between them and what within.
//!
//! One process lays out memory, picks threads and warms caches once, and all its blocks share that luck: identical code
//! has differed by 28 % from one start to the next (smda#268). Where the processes differ by more than their blocks
//! explain, the mean of a process is one observation and Student's t runs over processes; otherwise all blocks are
//! observations of one kind. The question is decided by the one-way F statistic at its median under equal processes,
//! p = 0.5, because a stricter test overlooks differences that matter: simulated with 3 to 5 processes of 3 to 5 blocks
//! and a standard deviation between processes of 0 to 2 times that within, a nominal 95 % covers 94.5–97.6 % (with
//! p = 0.25, 91.2–96.4 %; with p = 0.1, 87.1–95.7 %).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, FisherSnedecor};

use super::student::Estimate;
use super::{mean, standard_deviation};

/// What varies between processes and what within them, as standard deviations of block log-ratios.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestartSpread {
    /// Between processes, what blocks explain taken off; 0 if they explain all.
    pub between_sd: f64,
    /// Within processes; absent if no process has two blocks.
    pub within_sd: Option<f64>,
    /// Whether the interval is over processes rather than over blocks.
    pub matters: bool,
}

/// The mean log-ratio of these processes' blocks (none empty), and what varies; `None` below two blocks. With one
/// process there is no spread between them.
pub fn estimate(restarts: &[&[f64]]) -> Option<(Estimate, Option<RestartSpread>)> {
    let all = restarts.concat();
    let pooled = Estimate::of(&all)?;
    if restarts.len() < 2 {
        return Some((pooled, None));
    }
    let means: Vec<f64> = restarts.iter().filter_map(|blocks| mean(blocks)).collect();
    let over_means = Estimate::of(&means)?;
    let n_within = all.len() - restarts.len();
    if n_within == 0 {
        // One block each: the two are the same.
        let spread = RestartSpread { between_sd: standard_deviation(&all)?, within_sd: None, matters: true };
        return Some((over_means, Some(spread)));
    }
    let squares = |blocks: &&[f64]| {
        let mean = mean(blocks).unwrap_or(0.0);
        blocks.iter().map(|d| (d - mean).powi(2)).sum::<f64>()
    };
    let within = restarts.iter().map(squares).sum::<f64>() / n_within as f64;
    let n_means = restarts.len() as f64;
    let weighted: f64 = restarts
        .iter()
        .zip(&means)
        .map(|(blocks, mean)| blocks.len() as f64 * (mean - pooled.mean).powi(2))
        .sum();
    let between = weighted / (n_means - 1.0);
    // Blocks per process, for processes of unequal length (the usual n₀ of the random-effects analysis of variance).
    let n_all = all.len() as f64;
    let sum_of_squares: f64 = restarts.iter().map(|blocks| (blocks.len() as f64).powi(2)).sum();
    let n_each = (n_all - sum_of_squares / n_all) / (n_means - 1.0);
    let matters = exceeds_median(between, within, n_means - 1.0, n_within as f64);
    let spread = RestartSpread {
        between_sd: ((between - within) / n_each).max(0.0).sqrt(),
        within_sd: Some(within.sqrt()),
        matters,
    };
    Some((if matters { over_means } else { pooled }, Some(spread)))
}

fn exceeds_median(between: f64, within: f64, degrees_1: f64, degrees_2: f64) -> bool {
    if within == 0.0 {
        return between > 0.0;
    }
    FisherSnedecor::new(degrees_1, degrees_2).map_or(true, |f| f.cdf(between / within) > 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_differ_are_the_observations() {
        let (found, spread) = estimate(&[&[0.0, 0.01], &[0.10, 0.11], &[0.20, 0.21]]).unwrap();
        let spread = spread.unwrap();
        assert!(spread.matters && found.degrees == 2.0, "{found:?}");
        assert!((found.mean - 0.105).abs() < 1e-12);
        assert!((found.standard_error - 0.1 / 3f64.sqrt()).abs() < 1e-12);
        // Within: 0.01² / 2; between: the means' variance less half of it.
        assert!((spread.within_sd.unwrap().powi(2) - 0.000_05).abs() < 1e-12);
        assert!((spread.between_sd.powi(2) - (0.01 - 0.000_025)).abs() < 1e-12);
    }

    #[test]
    fn processes_that_are_alike_are_pooled() {
        let (found, spread) = estimate(&[&[0.0, 0.1, 0.05], &[0.1, 0.0, 0.05]]).unwrap();
        assert!(!spread.unwrap().matters && found.degrees == 5.0);
        assert_eq!(spread.unwrap().between_sd, 0.0);
    }

    #[test]
    fn odd_shapes() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[&[0.1]]), None);
        assert!(estimate(&[&[0.1, 0.2]]).unwrap().1.is_none());
        let (found, spread) = estimate(&[&[0.1], &[0.3]]).unwrap();
        assert!(found.degrees == 1.0 && spread.unwrap().within_sd.is_none() && spread.unwrap().matters);
        let (found, spread) = estimate(&[&[0.1, 0.1], &[0.1, 0.1]]).unwrap();
        assert!(found.standard_error == 0.0 && !spread.unwrap().matters);
        // Unequal lengths: a process counts as one mean.
        let (found, _) = estimate(&[&[0.0, 0.001, 0.0, 0.001], &[1.0]]).unwrap();
        assert!((found.mean - 0.500_25).abs() < 1e-12, "{found:?}");
    }
}
