//! Series of times: a ratio that moves, and jumps of the whole machine inside of a block.
//!
//! A drift of both arms alike cancels in mirrored blocks, and nothing is taken out for it. What does not cancel is a
//! *ratio* that moves, because then its mean belongs to no state of either arm; and a jump between the first two or the
//! last two visits of a block, because only one of its two halves is mirrored.

use super::{Code, Finding, Planned, valid};
use crate::order::Side;
use crate::report::{Block, Metric};
use crate::stats::median;
use crate::stats::robust::robust_sd;
use crate::stats::series::{LEAST_OBSERVATIONS, Shape, shape};

/// The ratio's own movement over the run: takes the figure out as a whole.
pub(super) fn moving(
    blocks: &[Block],
    restart: u32,
    metric: Metric,
    findings: &[Finding],
    planned: Planned,
) -> Option<Finding> {
    let (numbers, log_ratios): (Vec<usize>, Vec<f64>) = valid(blocks, restart, metric, findings)
        .filter_map(|(index, block)| Some((index, block.log_ratio(metric)?)))
        .unzip();
    // As the reports' ratio is: of speeds, which is the inverse.
    let percent = |change: f64| 100.0 * (-change).exp_m1();
    let (code, detail) = match shape(&log_ratios, planned.least_change.ln_1p()) {
        Shape::Still => return None,
        Shape::Trend { change } => {
            let change = percent(change);
            (
                Code::Trend,
                format!("{}: the ratio moved by {change:+.1} % from first to last block", metric.name()),
            )
        }
        Shape::Step { at, change } => {
            let (name, change, block) = (metric.name(), percent(change), numbers[at] + 1);
            (Code::Changepoint, format!("{name}: the ratio jumped by {change:+.1} % at block {block}"))
        }
    };
    Some(Finding::of_run(code, None, &[metric], detail))
}

/// A jump has to be this many times the noise between neighbouring visits, and …
const JUMP_TO_NOISE: f64 = 8.0;
/// … this large: 5 %.
const LEAST_JUMP: f64 = 0.05;
/// Visits on either side that are compared. With four, one spike in ten visits looked like a jump in one run of ten.
const NEIGHBOURS: usize = 6;

/// How far the values after are above (or, negative, below) those before, all but one of each side: a single spike is no
/// change of level, nor are two on the same side. 0 if they overlap.
fn change_of_level(before: &[f64], after: &[f64]) -> f64 {
    let second = |values: &[f64], sign: f64| {
        let mut values: Vec<f64> = values.iter().map(|value| sign * value).collect();
        values.sort_by(f64::total_cmp);
        sign * values[1]
    };
    let (up, down) = (second(after, 1.0) - second(before, -1.0), second(before, 1.0) - second(after, -1.0));
    if up > 0.0 { up } else { -down.max(0.0) }
}

/// Jumps of both arms' times inside of a block: each takes its block out.
pub(super) fn jumps(
    blocks: &[Block],
    restart: u32,
    metric: Metric,
    findings: &[Finding],
    _planned: Planned,
) -> Vec<Finding> {
    let visits: Vec<(usize, usize, Side, f64)> = valid(blocks, restart, metric, findings)
        .flat_map(|(index, block)| block.visits.iter().enumerate().map(move |(at, visit)| (index, at, visit)))
        .filter_map(|(index, at, visit)| Some((index, at, visit.side, metric.time_ns(visit)?.ln())))
        .collect();
    if visits.len() < 4 * LEAST_OBSERVATIONS {
        return Vec::new();
    }
    let level = Side::BOTH.map(|side| {
        let of: Vec<f64> = visits.iter().filter(|visit| visit.2 == side).map(|visit| visit.3).collect();
        median(&of).unwrap_or(0.0)
    });
    let series: Vec<f64> = visits.iter().map(|(_, _, side, log)| log - level[side.index()]).collect();
    let steps: Vec<f64> = series.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let noise = robust_sd(&steps).unwrap_or(0.0) / 2f64.sqrt();
    let jump = |at: usize| change_of_level(&series[at - NEIGHBOURS..at], &series[at..at + NEIGHBOURS]);
    let candidates: Vec<(usize, f64)> =
        (NEIGHBOURS..=series.len() - NEIGHBOURS).map(|at| (at, jump(at))).collect();
    let strong = |(_, size): &&(usize, f64)| size.abs() > (JUMP_TO_NOISE * noise).max(LEAST_JUMP);
    let mut found: Vec<Finding> = Vec::new();
    for (at, size) in candidates.iter().filter(strong) {
        // Windows beside the jump see most of it too; the place is where single visits change the most.
        let place = (at - 1..=at + 1)
            .filter(|place| (1..series.len()).contains(place))
            .max_by(|a, b| steps[a - 1].abs().total_cmp(&steps[b - 1].abs()))
            .unwrap_or(*at);
        let (block, position, ..) = visits[place];
        // Between blocks nothing is harmed, and between the middle visits both arms have one on either side.
        if steps[place - 1].abs() < 0.5 * size.abs() || !matches!(position, 1 | 3) {
            continue;
        }
        let before = visits[place - 1].0;
        if before == block && !found.iter().any(|finding| finding.blocks == [block]) {
            let change = 100.0 * size.exp_m1();
            let detail =
                format!("{}: both arms' times jumped by {change:+.0} % inside of the block", metric.name());
            found.push(Finding::of_block(Code::Changepoint, None, &[metric], block, detail));
        }
    }
    found
}
