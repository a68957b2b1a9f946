//! A yes or no for a build: has it become slower, larger or wrong?
//!
//! *Within one report* arm A is the candidate and arm B what it is held against: the best there is, because both were
//! measured in turns. *Against an older report* the old run is the baseline; then counts and bytes decide, and a clock
//! only does where an arm has become slower both by itself and relative to the other arm.

use super::{Direction, Subject, compare};
use crate::order::Side;
use crate::report::{Comparison, Metric, Report};
use crate::stats::verdict::{Position, Verdict};

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// Nothing became worse by more than the margin.
    Ok,
    /// It cannot be said yet.
    Inconclusive,
    /// The measurement does not hold, or the reports are not of the same work.
    Invalid,
    /// Something became worse.
    Regression,
}

impl Gate {
    /// What a process should exit with: 0 ok, 1 regression, 2 invalid, 3 inconclusive.
    pub fn exit_code(self) -> u8 {
        match self {
            Gate::Ok => 0,
            Gate::Regression => 1,
            Gate::Invalid => 2,
            Gate::Inconclusive => 3,
        }
    }

    /// "ok", "regression", "invalid" or "inconclusive".
    pub fn name(self) -> &'static str {
        match self {
            Gate::Ok => "ok",
            Gate::Regression => "regression",
            Gate::Invalid => "invalid",
            Gate::Inconclusive => "inconclusive",
        }
    }
}

/// A gate's answer with its grounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateReport {
    /// The worst of the grounds.
    pub gate: Gate,
    /// What each figure says, one sentence each.
    pub grounds: Vec<(Gate, String)>,
}

impl GateReport {
    fn of(grounds: Vec<(Gate, String)>) -> Self {
        // Nothing to go by is no pass.
        let gate = grounds.iter().map(|(gate, _)| *gate).max().unwrap_or(Gate::Invalid);
        Self { gate, grounds }
    }

    /// The answer first, then its grounds, worst first. No trailing line break.
    pub fn to_text(&self) -> String {
        let mut grounds: Vec<&(Gate, String)> = self.grounds.iter().collect();
        grounds.sort_by_key(|(gate, _)| std::cmp::Reverse(*gate));
        let lines = grounds.into_iter().map(|(gate, ground)| format!("{}: {ground}", gate.name()));
        std::iter::once(format!("gate: {}", self.gate.name())).chain(lines).collect::<Vec<_>>().join("\n")
    }
}

/// Whether `report` passes in these figures: against `baseline`, or without one its arm A against its arm B.
pub fn gate(report: &Report, baseline: Option<&Report>, metrics: &[Metric]) -> GateReport {
    let mut grounds = Vec::new();
    for arm in &report.arms {
        if let Some(failure) = &arm.failure {
            let ground = format!("{} failed during {}: {}", arm.label, failure.during, failure.error);
            grounds.push((Gate::Invalid, ground));
        }
    }
    match baseline {
        None => grounds.extend(metrics.iter().map(|metric| within(report, *metric))),
        Some(old) => grounds.extend(against(report, old, metrics)),
    }
    GateReport::of(grounds)
}

/// A against B in one figure of one report.
fn within(report: &Report, metric: Metric) -> (Gate, String) {
    let Some(found) = report.comparisons.iter().find(|found| found.metric == metric) else {
        return (Gate::Invalid, format!("{} was not measured on both arms", metric.name()));
    };
    let gate = match &found.verdict {
        Verdict::Winner { side: Side::B } => Gate::Regression,
        Verdict::Winner { side: Side::A } | Verdict::Equivalent => Gate::Ok,
        Verdict::Inconclusive { .. } => Gate::Inconclusive,
        Verdict::Invalid { .. } => Gate::Invalid,
    };
    (gate, report.sentence(found))
}

fn against(new: &Report, old: &Report, metrics: &[Metric]) -> Vec<(Gate, String)> {
    let compared = compare(new, old);
    let labels = [new.label(Side::A), new.label(Side::B)];
    let mut grounds: Vec<(Gate, String)> =
        compared.obstacles.iter().map(|obstacle| (Gate::Invalid, obstacle.clone())).collect();
    for change in &compared.changes {
        let gate = if change.direction == Direction::Worse { Gate::Regression } else { Gate::Ok };
        grounds.push((gate, change.line(labels)));
    }
    for &metric in metrics {
        let invalid = [(new, "new"), (old, "old")].into_iter().find_map(|(report, which)| {
            let found = report.comparisons.iter().find(|found| found.metric == metric)?;
            Some(format!("{} of the {which} report {}", metric.name(), unusable(found)?))
        });
        match invalid {
            Some(ground) => grounds.push((Gate::Invalid, ground)),
            None => grounds.push(by_the_clock(&compared, metric, labels)),
        }
    }
    grounds
}

/// Why a figure is no baseline, and may not be held against one.
fn unusable(found: &Comparison) -> Option<String> {
    match &found.verdict {
        Verdict::Invalid { codes } => Some(format!("does not hold: {}", codes.join(", "))),
        _ if found.has_parts() => Some(
            "jumped during the run: it holds in each part, but has no single ratio to compare".to_owned(),
        ),
        _ => None,
    }
}

/// What times say of one figure: a regression needs the arm's own row and the ratio's to agree.
fn by_the_clock(compared: &super::Compared, metric: Metric, labels: [&str; 2]) -> (Gate, String) {
    let of = |subject: Subject| {
        let row = compared.rows.iter().find(|row| (row.metric, row.subject) == (metric, subject));
        row.map(|row| row.position)
    };
    let name = metric.name();
    let (Some(a), Some(b), Some(ratio)) =
        (of(Subject::Arm(Side::A)), of(Subject::Arm(Side::B)), of(Subject::Ratio))
    else {
        return (Gate::Invalid, format!("{name} is not in both reports"));
    };
    match (a, b, ratio) {
        (Position::Above, _, Position::Above) => {
            (Gate::Regression, format!("{name}: {} is slower, and has lost against {}", labels[0], labels[1]))
        }
        (_, Position::Above, Position::Below) => {
            (Gate::Regression, format!("{name}: {} is slower, and has lost against {}", labels[1], labels[0]))
        }
        (Position::Above, Position::Above, _) => {
            let remedy = "measure old and new in one run";
            (
                Gate::Inconclusive,
                format!("{name}: both arms are slower: the machine, or what they share; {remedy}"),
            )
        }
        (Position::Within | Position::Below, Position::Within | Position::Below, _) => {
            (Gate::Ok, format!("{name}: neither arm is slower"))
        }
        // The machine may differ; the arms' ratio does not.
        (_, _, Position::Within) => (Gate::Ok, format!("{name}: the arms' ratio is what it was")),
        _ => (Gate::Inconclusive, format!("{name}: neither a loss nor its absence can be shown")),
    }
}
