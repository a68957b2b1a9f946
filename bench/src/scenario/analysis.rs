//! From a scenario's visits to verdicts, by the road of all other figures: each figure's cost takes the place of a time
//! that [`crate::analysis`] knows, so that blocks, noise floor, detectors and verdicts are the same ones.

use super::report::{
    ScenarioBlock, ScenarioComparison, ScenarioFinding, ScenarioReport, ScenarioSpread, ScenarioValue,
    ScenarioVisit,
};
use crate::analysis::{Question, analyse};
use crate::measure::EngineSample;
use crate::order::Side;
use crate::report::{Block, BlockKind, Metric, Visit, VisitFailure};
use crate::stats::verdict::Margin;
use crate::stats::{median, quantile};
use crate::validity::{Code, Finding};

/// The figure of the common road that a scenario's figure travels as.
const AS: Metric = Metric::Ttft;
/// Costs are seconds, or their like; the road counts nanoseconds.
const PER_SECOND: f64 = 1e9;

/// Comparisons and findings of a scenario, anew from its samples.
pub(crate) fn analyse_again(scenario: &mut ScenarioReport, question: &Question) {
    let known = figures(&scenario.blocks);
    let mut findings: Vec<ScenarioFinding> = Vec::new();
    let mut comparisons = Vec::new();
    for figure in &known {
        let arms: Vec<_> = Side::BOTH.map(|side| spread(&scenario.blocks, figure, side)).into();
        let mut comparison = ScenarioComparison {
            figure: figure.figure.clone(),
            unit: figure.unit.clone(),
            better: figure.better,
            arms,
            ratio: None,
            n_void: 0,
            aa: Vec::new(),
            margin: Margin::new(question.margin, None),
            verdict: None,
            grade: question.grade.clone(),
        };
        if figure.is_compared() {
            let blocks: Vec<Block> =
                scenario.blocks.iter().map(|block| as_block(block, figure, question.n_decode)).collect();
            let found = analyse(&blocks, &[], question);
            for finding in found.findings.iter().filter(|finding| finding.metrics.contains(&AS)) {
                note(&mut findings, finding, figure);
            }
            if let Some(found) = found.comparisons.into_iter().find(|found| found.metric == AS) {
                comparison.ratio = found.ratio;
                comparison.n_void = found.n_void;
                comparison.aa = found.aa;
                comparison.margin = found.margin;
                comparison.verdict = Some(found.verdict);
            }
        }
        comparisons.push(comparison);
    }
    (scenario.comparisons, scenario.findings) = (comparisons, findings);
}

/// Every figure that the visits have, in order of first appearance.
fn figures(blocks: &[ScenarioBlock]) -> Vec<ScenarioValue> {
    let mut known: Vec<ScenarioValue> = Vec::new();
    for value in blocks.iter().flat_map(|block| &block.visits).flat_map(|visit| &visit.figures) {
        if !known.iter().any(|other| other.figure == value.figure) {
            known.push(value.clone());
        }
    }
    known
}

fn value<'a>(visit: &'a ScenarioVisit, figure: &ScenarioValue) -> Option<&'a ScenarioValue> {
    visit.figures.iter().find(|value| value.figure == figure.figure)
}

fn spread(blocks: &[ScenarioBlock], figure: &ScenarioValue, arm: Side) -> Option<ScenarioSpread> {
    let of_ab = blocks.iter().filter(|block| block.kind == BlockKind::Ab).flat_map(|block| &block.visits);
    let of_arm = of_ab.filter(|visit| visit.arm == arm);
    let values: Vec<f64> = of_arm.filter_map(|visit| Some(value(visit, figure)?.value)).collect();
    let (low, high) = (quantile(&values, 0.0)?, quantile(&values, 1.0)?);
    Some(ScenarioSpread { median: median(&values)?, low, high, n: values.len() })
}

/// The block as the common road knows blocks, with the figure's cost as its only time.
fn as_block(block: &ScenarioBlock, figure: &ScenarioValue, n_decode: usize) -> Block {
    let visits = block.visits.iter().map(|visit| as_visit(visit, figure, n_decode)).collect();
    Block { kind: block.kind, restart: block.restart, order: block.order.clone(), visits, lost: None }
}

fn as_visit(visit: &ScenarioVisit, figure: &ScenarioValue, n_decode: usize) -> Visit {
    let cost = value(visit, figure).map(|value| value.cost() * PER_SECOND);
    let cost = cost.filter(|cost| cost.is_finite() && *cost >= 1.0 && *cost < 1e18);
    let sample = cost.map(|ns| EngineSample {
        ttft_ns: ns.round() as u64,
        ttft_again_ns: Vec::new(),
        itl_ns: Vec::new(),
        engine_decode_ns: 0,
        n_cached_tokens: 0,
        n_tokens: u32::try_from(n_decode).unwrap_or(u32::MAX),
        ids: Vec::new(),
    });
    let fault = visit.faults.first();
    Visit {
        arm: visit.arm,
        side: visit.side,
        request: visit.request,
        ids_sha256: visit.ids_sha256.clone(),
        started_ns: visit.started_ns,
        reload_ns: None,
        wash_out: None,
        runner: None,
        engine: sample,
        failure: fault.map(|fault| VisitFailure { code: fault.code, detail: fault.detail.clone() }),
        environment: visit.environment,
    }
}

/// Keeps a finding under the scenario's figure; what several figures have in common is said once.
fn note(findings: &mut Vec<ScenarioFinding>, finding: &Finding, figure: &ScenarioValue) {
    let detail = finding.detail.replace(AS.name(), &figure.figure);
    let alike = |other: &&mut ScenarioFinding| {
        (other.code, other.arm, &other.blocks, &other.detail, other.stands)
            == (finding.code, finding.arm, &finding.blocks, &detail, finding.stands)
    };
    match findings.iter_mut().find(alike) {
        Some(other) => other.figures.push(figure.figure.clone()),
        None => findings.push(ScenarioFinding {
            code: finding.code,
            arm: finding.arm,
            figures: vec![figure.figure.clone()],
            blocks: finding.blocks.clone(),
            detail,
            stands: finding.stands,
        }),
    }
}

impl ScenarioReport {
    /// The codes that take a block, or the whole scenario, out of the verdict on a figure.
    pub(super) fn codes_against(&self, figure: &str, block: usize) -> Vec<Code> {
        let against = |finding: &&ScenarioFinding| {
            !finding.stands
                && finding.figures.iter().any(|name| name == figure)
                && (finding.blocks.is_empty() || finding.blocks.contains(&block))
        };
        let mut codes: Vec<Code> = self.findings.iter().filter(against).map(|finding| finding.code).collect();
        codes.dedup();
        codes
    }
}
