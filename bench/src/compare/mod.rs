//! Two reports of the same work, as of two versions of duet: what has become faster, slower, larger or other.
//!
//! The runs were not interleaved, so that whatever the machine did differently then and now is in an arm's own row. It is
//! not in the row of the ratio A ÷ B, each of which comes from one run: that row says whether an arm has changed
//! *relative to the other*.

mod deterministic;
mod gate;

pub use deterministic::{Change, Direction};
pub use gate::{Gate, GateReport, gate};

use crate::order::Side;
use crate::report::{Block, BlockKind, Comparison, Metric, Report};
use crate::stats::ratio::{CONFIDENCE, RatioInterval};
use crate::stats::restarts::estimate;
use crate::stats::student::Estimate;
use crate::stats::verdict::{Position, position};
use crate::stats::{mean, ratio::Ratio};
use crate::validity::{Finding, restarts};

/// What a row compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The times of an arm.
    Arm(Side),
    /// The ratio of times A / B.
    Ratio,
}

/// One figure, new against old.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which figure.
    pub metric: Metric,
    /// Of what.
    pub subject: Subject,
    /// New time / old time, or new ratio / old ratio.
    pub time_ratio: f64,
    /// Its 95 % interval, by Welch's t.
    pub interval: RatioInterval,
    /// Above the margin: slower than it was.
    pub position: Position,
}

/// Two reports side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Why the two are not of the same work; their rows mean little then.
    pub obstacles: Vec<String>,
    /// Figures whose ratio jumped during one of the runs: a mean over both levels is compared with nothing.
    pub jumped: Vec<String>,
    /// What has changed and does not depend on time.
    pub changes: Vec<Change>,
    /// Figures, in the order of the reports' tables.
    pub rows: Vec<Row>,
    /// The margin used: the larger of both reports'.
    pub margin: f64,
}

/// Compares a new report with an old one of the same work, arm by arm in order.
pub fn compare(new: &Report, old: &Report) -> Compared {
    let margin = margin(new).max(margin(old));
    let limit = margin.ln_1p();
    let subjects = [Subject::Arm(Side::A), Subject::Arm(Side::B), Subject::Ratio];
    let row = |metric: Metric, subject: Subject| {
        let change = log_time(new, metric, subject)?.minus(&log_time(old, metric, subject)?);
        let interval = RatioInterval::of(&change, CONFIDENCE);
        let position = position(&change, limit);
        Some(Row { metric, subject, time_ratio: change.mean.exp(), interval, position })
    };
    let rows = Metric::ALL.into_iter().flat_map(|metric| subjects.map(|subject| row(metric, subject)));
    Compared {
        obstacles: deterministic::obstacles(new, old),
        jumped: [jumped(new, "new"), jumped(old, "old")].concat(),
        changes: deterministic::changes(new, old),
        rows: rows.flatten().collect(),
        margin,
    }
}

/// A line for each figure of a report whose ratio jumped.
fn jumped(report: &Report, which: &str) -> Vec<String> {
    let line = |found: &Comparison| {
        let name = found.metric.name();
        format!("{name}: the ratio jumped during the {which} run, and is compared with nothing")
    };
    report.comparisons.iter().filter(|found| found.has_parts()).map(line).collect()
}

/// The margin that a report's verdicts went by, the largest.
fn margin(report: &Report) -> f64 {
    report.comparisons.iter().map(|found| found.margin.used).fold(report.plan.margin, f64::max)
}

/// The logarithm of a figure of a report: an arm's time in nanoseconds, or the ratio of times.
fn log_time(report: &Report, metric: Metric, subject: Subject) -> Option<Estimate> {
    match subject {
        Subject::Ratio => report
            .comparisons
            .iter()
            .find(|found| found.metric == metric && !found.has_parts())?
            .ratio
            .as_ref()
            .and_then(Ratio::estimate),
        Subject::Arm(arm) => {
            let of_restart = |restart| {
                let blocks = report.blocks.iter().enumerate();
                let valid = blocks.filter(|(index, block)| {
                    block.restart == restart
                        && block.kind == BlockKind::Ab
                        && !report.findings.iter().any(|finding: &Finding| finding.voids(metric, *index))
                });
                valid.filter_map(|(_, block)| block_log(block, metric, arm)).collect::<Vec<f64>>()
            };
            let by_restart: Vec<Vec<f64>> = restarts(&report.blocks)
                .into_iter()
                .map(of_restart)
                .filter(|logs| !logs.is_empty())
                .collect();
            let slices: Vec<&[f64]> = by_restart.iter().map(Vec::as_slice).collect();
            Some(estimate(&slices)?.0)
        }
    }
}

/// The mean log-time of an arm's visits in a block.
fn block_log(block: &Block, metric: Metric, arm: Side) -> Option<f64> {
    let times = block.visits.iter().filter(|visit| visit.arm == arm).map(|visit| metric.time_ns(visit));
    mean(&times.map(|time| time.map(f64::ln)).collect::<Option<Vec<f64>>>()?)
}

impl Compared {
    /// The comparison for people, without colours or a trailing line break. `labels` are the arms'.
    pub fn to_text(&self, labels: [&str; 2]) -> String {
        let mut lines: Vec<String> = Vec::new();
        lines.extend(self.obstacles.iter().map(|obstacle| format!("not the same work: {obstacle}")));
        lines.extend(self.rows.iter().map(|row| self.row_line(row, labels)));
        lines.extend(self.jumped.iter().cloned());
        lines.extend(self.changes.iter().map(|change| change.line(labels)));
        if !self.rows.is_empty() {
            lines.push(
                "an arm's row holds whatever the machine did differently in the two runs; the row of A ÷ B does not"
                    .to_owned(),
            );
        }
        lines.join("\n")
    }

    fn row_line(&self, row: &Row, labels: [&str; 2]) -> String {
        let percent = 100.0 * self.margin;
        let (what, said) = match row.subject {
            Subject::Arm(side) => {
                let said = match row.position {
                    Position::Above => format!("slower by more than {percent:.1} %"),
                    Position::Below => format!("faster by more than {percent:.1} %"),
                    Position::Within => format!("as fast as before within ±{percent:.1} %"),
                    Position::Open => "open".to_owned(),
                };
                (labels[side.index()].to_owned(), said)
            }
            Subject::Ratio => {
                let [a, b] = labels;
                let said = match row.position {
                    Position::Above => format!("{a} has lost against {b}"),
                    Position::Below => format!("{a} has gained on {b}"),
                    Position::Within => format!("unchanged within ±{percent:.1} %"),
                    Position::Open => "open".to_owned(),
                };
                (format!("{a} ÷ {b}"), said)
            }
        };
        let RatioInterval { low, high, .. } = row.interval;
        let name = row.metric.name();
        format!("{name}, {what}: {said}; time new ÷ old {:.3} [{low:.3}, {high:.3}]", row.time_ratio)
    }
}
