//! How sure it is which arm answers a workload faster, from the blocks.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::Workload;
use crate::order::Side;
use crate::report::{Block, BlockKind, Metric, Report};
use crate::stats::mean;
use crate::stats::ratio::{Ratio, block_log_ratio};
use crate::stats::student::{Estimate, t_quantile};
use crate::validity::restarts;

/// What blocks say about ln(time of A / time of B) of a workload: Student's t around the mean, which is also the posterior
/// under a flat prior. Of a ratio that jumped there is one for each part, and the least favourable counts: nobody knows
/// which state the machine will be in.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// The mean log-ratios with their errors; at least one.
    estimates: Vec<Estimate>,
}

/// Pieces of equal probability over which the loss is summed.
const N_PIECES: usize = 2000;

impl Posterior {
    /// From the ratio of a workload; `None` below two blocks.
    pub fn of(ratio: &Ratio) -> Option<Self> {
        Some(ratio.estimates()).filter(|estimates| !estimates.is_empty()).map(|estimates| Self { estimates })
    }

    /// The probability that this arm is the faster one.
    pub fn probability(&self, faster: Side) -> f64 {
        self.estimates.iter().map(|estimate| probability(estimate, faster)).fold(1.0, f64::min)
    }

    /// How much longer requests take on this arm than on the other, where they do, weighted by the probability that they
    /// do: E[max(0, ln t(chosen) − ln t(other))]. On the logarithm, because the ratio itself has no mean under Student's t.
    pub fn expected_loss(&self, chosen: Side) -> f64 {
        self.estimates.iter().map(|estimate| expected_loss(estimate, chosen)).fold(0.0, f64::max)
    }
}

fn probability(estimate: &Estimate, faster: Side) -> f64 {
    let Estimate { mean, standard_error, degrees } = *estimate;
    let of_a = match StudentsT::new(0.0, 1.0, degrees) {
        Ok(t) if standard_error > 0.0 => t.cdf(-mean / standard_error),
        _ if mean < 0.0 => 1.0,
        _ if mean > 0.0 => 0.0,
        _ => 0.5,
    };
    match faster {
        Side::A => of_a,
        Side::B => 1.0 - of_a,
    }
}

fn expected_loss(estimate: &Estimate, chosen: Side) -> f64 {
    let Estimate { mean, standard_error, degrees } = *estimate;
    let sign = if chosen == Side::A { 1.0 } else { -1.0 };
    let loss = |piece: usize| {
        let t = t_quantile((piece as f64 + 0.5) / N_PIECES as f64, degrees);
        (sign * (mean + standard_error * t)).max(0.0)
    };
    if standard_error == 0.0 {
        return (sign * mean).max(0.0);
    }
    (0..N_PIECES).map(loss).sum::<f64>() / N_PIECES as f64
}

/// The ratio of times of a workload over the blocks that nothing speaks against in either figure, in parts if it jumped;
/// `None` without such a block.
pub(super) fn workload_ratio(report: &Report, workload: &Workload) -> Option<Ratio> {
    let voided = |index: usize| {
        let metrics = [Metric::Ttft, Metric::DecodeNative];
        report.findings.iter().any(|finding| metrics.iter().any(|metric| finding.voids(*metric, index)))
    };
    let of_restart = |restart: u32| -> Vec<f64> {
        let blocks = report.blocks.iter().enumerate().filter(|(index, block)| {
            block.restart == restart && block.kind == BlockKind::Ab && !voided(*index)
        });
        blocks.filter_map(|(_, block)| log_ratio(block, workload, report.plan.n_prompt)).collect()
    };
    let observed: Vec<Vec<f64>> = restarts(&report.blocks).into_iter().map(of_restart).collect();
    Some(Ratio::of(&observed)?.in_parts(&observed, report.plan.margin.ln_1p()))
}

/// ln of the time of a request of this workload on A over that on B, in one block.
fn log_ratio(block: &Block, workload: &Workload, n_prompt: usize) -> Option<f64> {
    let times = |side: Side| -> Option<Vec<f64>> {
        let visits = block.visits.iter().filter(|visit| visit.side == side);
        let time = visits.map(|visit| {
            let prompt = Metric::Ttft.time_ns(visit)? / n_prompt.max(1) as f64;
            Some(
                prompt * workload.n_prompt as f64
                    + Metric::DecodeNative.time_ns(visit)? * workload.n_decode as f64,
            )
        });
        time.collect::<Option<Vec<f64>>>().filter(|times| times.len() == 2 && mean(times).is_some())
    };
    block_log_ratio(&times(Side::A)?, &times(Side::B)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posterior(mean: f64, standard_error: f64, degrees: f64) -> Posterior {
        Posterior { estimates: vec![Estimate { mean, standard_error, degrees }] }
    }

    #[test]
    fn probabilities_by_the_table() {
        // t(0.975, 4) = 2.7764
        let found = posterior(-2.7764, 1.0, 4.0);
        assert!((found.probability(Side::A) - 0.975).abs() < 1e-4);
        assert!((found.probability(Side::B) - 0.025).abs() < 1e-4);
        assert_eq!(posterior(0.1, 0.0, 4.0).probability(Side::B), 1.0);
        assert_eq!(posterior(0.0, 0.0, 4.0).probability(Side::B), 0.5);
    }

    #[test]
    fn the_loss_of_a_coin_toss_is_half_the_mean_distance() {
        // E|t| with 9 degrees is 2·√9·Γ(5)/(√π·8·Γ(4.5)) = 0.8746 (normal: 0.7979).
        let found = posterior(0.0, 1.0, 9.0).expected_loss(Side::A);
        assert!((found - 0.4373).abs() < 0.002, "{found}");
        assert_eq!(posterior(-0.2, 0.0, 9.0).expected_loss(Side::A), 0.0);
        assert_eq!(posterior(-0.2, 0.0, 9.0).expected_loss(Side::B), 0.2);
        let sure = posterior(-0.2, 0.01, 9.0);
        assert!(sure.expected_loss(Side::A) < 1e-4 && (sure.expected_loss(Side::B) - 0.2).abs() < 1e-3);
    }

    #[test]
    fn of_several_parts_the_least_favourable_counts() {
        let parts = [(-0.2, 0.0, 4.0), (0.1, 0.0, 4.0)];
        let estimates =
            parts.map(|(mean, standard_error, degrees)| Estimate { mean, standard_error, degrees });
        let found = Posterior { estimates: estimates.to_vec() };
        assert_eq!((found.probability(Side::A), found.probability(Side::B)), (0.0, 0.0));
        assert_eq!((found.expected_loss(Side::A), found.expected_loss(Side::B)), (0.1, 0.2));
    }
}
