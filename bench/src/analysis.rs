//! From raw samples to verdicts: findings, ratios, noise floors, margins, verdicts. The one road for a run, for reports
//! of several processes put together, and for a report that was read from a file.

use crate::order::Side;
use crate::report::{ArmReport, Block, BlockKind, Comparison, LoadedReport, Metric, SelfRatio};
use crate::stats::holm::holm;
use crate::stats::median;
use crate::stats::ratio::Ratio;
use crate::stats::verdict::{Margin, Needs, NeedsUnit, Position, Verdict, judge};
use crate::validity::{Code, Finding, Planned, arms, find, restarts};
use crate::weights::Graded;

/// What the analysis has to know besides the samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The margin asked for: 0.03 for 3 %.
    pub margin: f64,
    /// Tokens decoded by each request, in each mode.
    pub n_decode: usize,
    /// What the ratios compare.
    pub grade: Option<Graded>,
    /// What the arms' agreement says against any verdict.
    pub fidelity: Option<Finding>,
}

/// What the samples say.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// A against B, figure by figure.
    pub comparisons: Vec<Comparison>,
    /// What speaks against them.
    pub findings: Vec<Finding>,
}

/// Fewer valid blocks than this carry no verdict once others were taken out.
const LEAST_BLOCKS: usize = 3;
/// Level of the test whether an engine differs from itself, over all figures and arms together.
const AA_LEVEL: f64 = 0.05;

/// Everything that `blocks` and what is known of the arms say. Pure; the same samples always give the same verdicts.
pub fn analyse(blocks: &[Block], arms: &[ArmReport], question: &Question) -> Analysis {
    let planned = Planned { n_decode: question.n_decode, least_change: question.margin };
    let mut findings = of_arms(arms, blocks);
    findings.extend(question.fidelity.clone());
    findings.extend(find(blocks, planned));
    let selves: Vec<Vec<SelfRatio>> =
        Metric::ALL.map(|metric| against_self(blocks, metric, &findings)).into();
    findings.extend(biased(&selves, question.margin));
    let with_figure = |metric: Metric| {
        let has = |side| {
            let of_ab = blocks.iter().filter(|block| block.kind == BlockKind::Ab);
            of_ab
                .flat_map(|block| &block.visits)
                .any(|visit| visit.side == side && metric.time_ns(visit).is_some())
        };
        has(Side::A) && has(Side::B)
    };
    let comparisons = Metric::ALL.into_iter().zip(selves).filter(|(metric, _)| with_figure(*metric));
    let comparisons: Vec<Comparison> =
        comparisons.filter_map(|(metric, aa)| compare(blocks, metric, aa, &findings, question)).collect();
    for finding in findings.iter_mut().filter(|finding| finding.is_jump_of_ratio()) {
        finding.stands =
            comparisons.iter().any(|found| finding.metrics == [found.metric] && found.is_in_parts());
    }
    Analysis { comparisons, findings }
}

/// What is known of the arms as wholes.
fn of_arms(arms: &[ArmReport], blocks: &[Block]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for arm in arms {
        if let Some(loaded) = &arm.loaded {
            findings.extend(arms::proof(arm.side, &arm.engine.id, &loaded.backend));
            findings.extend(above_ceiling(arm.side, loaded, blocks));
        }
        if let Some(memory) = &arm.memory {
            findings.extend(arms::kv(arm.side, memory.predicted_kv_bytes, memory.engine.kv_bytes));
        }
        let failure = arm.failure.as_ref().filter(|failure| failure.code == Some(Code::NonFinite));
        findings.extend(failure.map(|failure| arms::non_finite(arm.side, &failure.error)));
    }
    findings
}

/// `CEILING` for the median request of each decode mode, against the best that the probe saw: what others did to the
/// machine meanwhile slows both down, and cannot make a request look impossible.
fn above_ceiling(arm: Side, loaded: &LoadedReport, blocks: &[Block]) -> Vec<Finding> {
    let Some(rate) = loaded.memory_bytes_per_second else { return Vec::new() };
    let usual = |metric: Metric| {
        let of_arm = blocks.iter().flat_map(|block| &block.visits).filter(|visit| visit.arm == arm);
        let ns = median(&of_arm.filter_map(|visit| metric.time_ns(visit)).collect::<Vec<_>>())?;
        arms::ceiling(arm, metric, ns / 1e9, loaded.weight_bytes_per_token, rate)
    };
    [Metric::DecodeForced, Metric::DecodeNative].into_iter().filter_map(usual).collect()
}

/// Both arms against themselves, as far as there are A/A blocks.
fn against_self(blocks: &[Block], metric: Metric, findings: &[Finding]) -> Vec<SelfRatio> {
    let of_arm = |arm: Side| {
        let log_ratios =
            log_ratios(blocks, metric, findings, BlockKind::Aa, |block| block.aa_log_ratio(metric, arm));
        let ratio = Ratio::of(&log_ratios)?;
        let interval = ratio.interval?;
        let floor = interval.high.ln().max(-interval.low.ln()).exp_m1();
        Some(SelfRatio { arm, ratio, floor })
    };
    Side::BOTH.into_iter().filter_map(of_arm).collect()
}

/// `AA_BIAS` for arms that differ from themselves by more than chance, Holm's procedure over all of them, and possibly by
/// more than the margin: whatever does that would show between arms too.
fn biased(selves: &[Vec<SelfRatio>], margin: f64) -> Vec<Finding> {
    let all: Vec<(Metric, &SelfRatio)> = Metric::ALL
        .into_iter()
        .zip(selves)
        .flat_map(|(metric, own)| own.iter().map(move |one| (metric, one)))
        .collect();
    let p_values: Vec<f64> = all
        .iter()
        .map(|(_, own)| own.ratio.estimate().map_or(1.0, |estimate| estimate.p_value(0.0)))
        .collect();
    let significant = holm(&p_values, AA_LEVEL);
    let bias = |((metric, own), significant): (&(Metric, &SelfRatio), bool)| {
        (significant && own.floor > margin).then(|| {
            let percent = 100.0 * (own.ratio.time_ratio - 1.0);
            let detail =
                format!("{}: {} differs from itself by {percent:+.1} %", metric.name(), own.arm.name());
            Finding::of_run(Code::AaBias, Some(own.arm), &[*metric], detail)
        })
    };
    all.iter().zip(significant).filter_map(bias).collect()
}

/// The log-ratios of blocks of a kind that nothing speaks against, a list for each process.
fn log_ratios(
    blocks: &[Block],
    metric: Metric,
    findings: &[Finding],
    kind: BlockKind,
    of: impl Fn(&Block) -> Option<f64>,
) -> Vec<Vec<f64>> {
    let of_restart = |restart: u32| {
        let valid = blocks.iter().enumerate().filter(|(index, block)| {
            block.restart == restart
                && block.kind == kind
                && !findings.iter().any(|finding| finding.voids(metric, *index))
        });
        valid.filter_map(|(_, block)| of(block)).collect()
    };
    restarts(blocks).into_iter().map(of_restart).collect()
}

/// `None` where no block is whole and none was taken out: an arm failed before it had one.
fn compare(
    blocks: &[Block],
    metric: Metric,
    aa: Vec<SelfRatio>,
    findings: &[Finding],
    question: &Question,
) -> Option<Comparison> {
    let voids = |index: usize| findings.iter().any(|finding| finding.voids(metric, index));
    let n_void =
        blocks.iter().enumerate().filter(|(i, block)| block.kind == BlockKind::Ab && voids(*i)).count();
    let log_ratios = log_ratios(blocks, metric, findings, BlockKind::Ab, |block| block.log_ratio(metric));
    let ratio = Ratio::of(&log_ratios).map(|ratio| ratio.in_parts(&log_ratios, question.margin.ln_1p()));
    if ratio.is_none() && n_void == 0 {
        return None;
    }
    let margin = Margin::new(question.margin, aa.iter().map(|own| own.floor).reduce(f64::max));
    let n_valid = ratio.as_ref().map_or(0, |ratio| ratio.n_blocks);
    let too_few = n_void > 0 && (n_valid < LEAST_BLOCKS || n_valid < n_void);
    let against: Vec<&Finding> = findings
        .iter()
        .filter(|finding| {
            finding.invalidates(metric)
                || (too_few && finding.blocks.iter().any(|block| finding.voids(metric, *block)))
        })
        .collect();
    let parts_agree = ratio.as_ref().is_some_and(|ratio| {
        !ratio.parts.is_empty() && ratio.position(margin.log()).is_some_and(|found| found != Position::Open)
    });
    let stands = parts_agree && against.iter().all(|finding| finding.is_jump_of_ratio());
    let mut codes: Vec<Code> = against.into_iter().filter(|_| !stands).map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let verdict = match &ratio {
        _ if !codes.is_empty() => {
            Verdict::Invalid { codes: codes.into_iter().map(|code| code.name().to_owned()).collect() }
        }
        Some(ratio) => timed(judge(ratio, margin), blocks),
        None => Verdict::Inconclusive { faster: None, needs: None },
    };
    Some(Comparison { metric, ratio, n_void, aa, margin, verdict, grade: question.grade.clone() })
}

/// Says how long what is missing would take, from how long the blocks took.
fn timed(verdict: Verdict, blocks: &[Block]) -> Verdict {
    match verdict {
        Verdict::Inconclusive { faster, needs: Some(needs) } => {
            let each = match needs.unit {
                NeedsUnit::Blocks => block_seconds(blocks),
                NeedsUnit::Restarts => {
                    block_seconds(blocks).map(|s| s * blocks.len() as f64 / restarts(blocks).len() as f64)
                }
            };
            let seconds = each.map(|each| (each * needs.n_more as f64).ceil() as u64);
            Verdict::Inconclusive { faster, needs: Some(Needs { seconds, ..needs }) }
        }
        other => other,
    }
}

/// How long an A/B block takes: the median time from one's first visit to the next one's.
pub(crate) fn block_seconds(blocks: &[Block]) -> Option<f64> {
    let starts = |pair: &[Block]| {
        let [first, second] = pair else { return None };
        if first.kind == BlockKind::Aa || first.restart != second.restart {
            return None;
        }
        let start = |block: &Block| Some(block.visits.first()?.started_ns);
        Some(start(second)?.checked_sub(start(first)?)? as f64 / 1e9)
    };
    median(&blocks.windows(2).filter_map(starts).collect::<Vec<_>>())
}
