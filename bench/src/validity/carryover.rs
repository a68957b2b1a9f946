//! Whether an arm is slower just after the other one than after itself, the wash-out notwithstanding.
//!
//! Per arm the logarithms of its times are fitted by a level, a drift over the run and the effect of a switch before the
//! visit. In ABBA and BAAB blocks in random order about half of the visits follow a switch.

use super::{Code, Finding, Planned, valid};
use crate::order::Side;
use crate::report::{Block, Metric};
use crate::stats::student::t_quantile;

/// Level of the test.
const LEVEL: f64 = 1e-4;
/// Visits of an arm below which nothing is said.
const LEAST_VISITS: usize = 12;

pub(super) fn find(
    blocks: &[Block],
    restart: u32,
    metric: Metric,
    findings: &[Finding],
    planned: Planned,
) -> Vec<Finding> {
    let in_time = valid(blocks, restart, metric, findings).flat_map(|(_, block)| &block.visits);
    let visits: Vec<_> = in_time
        .enumerate()
        .filter_map(|(at, visit)| {
            Some((visit.side, at as f64, visit.wash_out.is_some(), metric.time_ns(visit)?.ln()))
        })
        .collect();
    let of_side = |side: Side| {
        let rows: Vec<[f64; 3]> = visits
            .iter()
            .filter(|visit| visit.0 == side)
            .map(|(_, at, switched, log)| [*at, f64::from(u8::from(*switched)), *log])
            .collect();
        let effect = switch_effect(&rows, planned.least_change.ln_1p())?;
        let detail = format!(
            "{}: {} takes {:+.1} % just after the other arm than after itself",
            metric.name(),
            side.name(),
            100.0 * effect.exp_m1()
        );
        Some(Finding::of_run(Code::Carryover, Some(side), &[metric], detail))
    };
    Side::BOTH.into_iter().filter_map(of_side).collect()
}

/// The effect of a switch in rows of (time, switched, log), if it is at least `least` and beyond the noise.
fn switch_effect(rows: &[[f64; 3]], least: f64) -> Option<f64> {
    let n = rows.len();
    let n_switched = rows.iter().filter(|row| row[1] > 0.0).count();
    if n < LEAST_VISITS || n_switched < 3 || n - n_switched < 3 {
        return None;
    }
    let mean = |column: usize| rows.iter().map(|row| row[column]).sum::<f64>() / n as f64;
    let means = [mean(0), mean(1), mean(2)];
    let sum =
        |i: usize, j: usize| rows.iter().map(|row| (row[i] - means[i]) * (row[j] - means[j])).sum::<f64>();
    let (tt, ts, ss, ty, sy, yy) = (sum(0, 0), sum(0, 1), sum(1, 1), sum(0, 2), sum(1, 2), sum(2, 2));
    let determinant = tt * ss - ts * ts;
    if determinant <= 1e-9 * tt * ss {
        return None; // switches at one end of the run only cannot be told from the drift
    }
    let drift = (ty * ss - sy * ts) / determinant;
    let effect = (sy * tt - ty * ts) / determinant;
    let degrees = (n - 3) as f64;
    let variance = ((yy - drift * ty - effect * sy) / degrees).max(0.0) * tt / determinant;
    let beyond_noise = || effect.abs() > t_quantile(1.0 - LEVEL / 2.0, degrees) * variance.sqrt();
    (effect.abs() >= least && beyond_noise()).then_some(effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(drift: f64, effect: f64) -> Vec<[f64; 3]> {
        let pattern = [0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1];
        let wobble = [0.001, -0.001, 0.002, 0.0, -0.002, 0.001];
        let row = |(at, switched): (usize, &u8)| {
            let (at_f, switched) = (at as f64, f64::from(*switched));
            [at_f, switched, 5.0 + drift * at_f + effect * switched + wobble[at % 6]]
        };
        pattern.iter().enumerate().map(row).collect()
    }

    #[test]
    fn an_effect_is_found_beside_a_drift() {
        let found = switch_effect(&rows(0.01, 0.08), 0.03).unwrap();
        assert!((found - 0.08).abs() < 0.003, "{found}");
        assert_eq!(switch_effect(&rows(0.02, 0.0), 0.03), None, "a drift alone is none");
        assert_eq!(switch_effect(&rows(0.0, 0.02), 0.03), None, "too small");
        assert_eq!(switch_effect(&rows(0.0, 0.08)[..11], 0.03), None, "too few");
    }

    #[test]
    fn switches_at_one_end_tell_nothing() {
        let row = |at: usize| [at as f64, 1.0, 0.0];
        assert_eq!(switch_effect(&(0..20).map(row).collect::<Vec<_>>(), 0.0), None);
    }
}
