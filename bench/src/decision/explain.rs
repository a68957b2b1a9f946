//! The whole way from samples to the choice, for people.

use std::fmt::Write;

use duet_core::decision::Decision;

use super::posterior::workload_ratio;
use super::{Fit, Workload};
use crate::order::Side;
use crate::report::{BlockKind, Report};

/// How a decision came about: samples → blocks → fits → times of the workloads → choice. The last line is the one that a
/// server logs. No trailing line break.
pub fn explain(report: &Report, decision: &Decision) -> String {
    let mut text = String::new();
    let n_visits: usize = report.blocks.iter().map(|block| block.visits.len()).sum();
    let n_ab = report.blocks.iter().filter(|block| block.kind == BlockKind::Ab).count();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "samples: {n_visits} visits, each a prompt of {} tokens and {} decoded at two levels",
        report.plan.n_prompt, report.plan.n_decode
    );
    let _ = writeln!(text, "blocks: {n_ab} of A against B, of {} in all", report.blocks.len());
    for finding in &report.findings {
        let _ = writeln!(text, "  {}", report.finding_line(finding));
    }
    for comparison in &report.comparisons {
        let _ = writeln!(text, "  {}", report.sentence(comparison));
    }
    for side in Side::BOTH {
        let label = report.label(side);
        let _ = match Fit::of(report, side) {
            Some(fit) => writeln!(
                text,
                "fit {label}: {:.3} ms for each prompt token, {:.3} ms for each generated one",
                fit.prompt / 1e6,
                fit.decode / 1e6
            ),
            None => writeln!(text, "fit {label}: not measured"),
        };
    }
    for choice in &decision.workloads {
        let workload = Workload::new(&choice.workload, choice.n_prompt, choice.n_decode);
        let seconds = Side::BOTH.map(|side| {
            let fit = Fit::of(report, side);
            fit.map_or_else(|| "?".to_owned(), |fit| format!("{:.2} s", fit.time_ns(&workload) / 1e9))
        });
        let n_blocks = workload_ratio(report, &workload).map_or(0, |ratio| ratio.n_blocks);
        let estimate = if choice.estimate { ", extrapolated from shorter requests" } else { "" };
        let chosen = choice.engine.as_deref().unwrap_or("no engine by more than the margin");
        let _ = writeln!(
            text,
            "{} ({} + {} tokens{estimate}): {} {}, {} {}; {chosen}, faster with probability {:.3}, expected loss {:.2} % \
             ({n_blocks} blocks)",
            choice.workload,
            choice.n_prompt,
            choice.n_decode,
            report.label(Side::A),
            seconds[0],
            report.label(Side::B),
            seconds[1],
            choice.probability,
            100.0 * choice.expected_loss,
        );
    }
    for crossover in &decision.crossovers {
        let _ = writeln!(text, "crossover: {crossover}");
    }
    for row in &decision.matrix {
        for risk in &row.risks {
            let _ = writeln!(text, "risk of {}: {risk}", row.engine);
        }
    }
    if let Some(grade) = &decision.grade {
        let _ = writeln!(text, "grade {grade}");
    }
    let _ = write!(text, "{}", last_line(decision));
    text
}

/// The choice in one line.
pub fn last_line(decision: &Decision) -> String {
    let Decision { reason, probability, expected_loss, expires, command, .. } = decision;
    match &decision.engine {
        Some(engine) => format!(
            "choice: {engine}, because {reason}; probability {probability:.3}, expected loss {:.2} %, until {expires}",
            100.0 * expected_loss
        ),
        None => format!("choice: the stated rule, because {reason}; `{command}` measures it anew"),
    }
}
