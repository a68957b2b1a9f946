//! From a report to the record that `engine = "auto"` follows: how long requests of a workload take on each engine, how
//! sure that is, and what a wrong choice would cost.
//!
//! Two figures of the engine's own level carry it, since that is what a user waits for: time to the first token, taken
//! as proportional to the prompt, and the time of a generated token. A request of P prompt and N generated tokens takes
//! P·a + N·b. Blocks are observations here too: each gives a log-ratio of that time between the arms, and Student's t on
//! these gives the probability that an engine is faster and the expected loss of choosing it.

mod explain;
mod posterior;
mod workload;

use std::time::{Duration, SystemTime};

use duet_core::decision::{
    Decision, EngineIdentity, EngineRow, MachineIdentity, ModelIdentity, WorkloadChoice,
};

pub use self::explain::{explain, last_line};
pub use self::posterior::Posterior;
use self::posterior::workload_ratio;
pub use self::workload::{Fit, Workload};
use crate::machine::Machine;
use crate::order::Side;
use crate::report::{ArmReport, Metric, Report};
use crate::stats::verdict::{Position, Verdict};
use crate::weights::Grade;

/// What a decision needs besides the report.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The kinds of requests to decide for, most important first.
    pub workloads: Vec<Workload>,
    /// How long it holds.
    pub valid_for: Duration,
    /// [`duet_core::model::fingerprint`] of the first arm's model.
    pub fingerprint: String,
    /// SHA-256 of the report's file, or of its JSON.
    pub report_sha256: String,
    /// The command that measures it anew.
    pub command: String,
    /// Now.
    pub now: SystemTime,
}

/// Ninety days.
pub const VALID_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why a report gives no decision at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoDecision {
    /// Both arms are one engine, or run other files.
    #[error("the report compares {what}, which is no choice between engines for one model")]
    NoChoice {
        /// What it compares instead.
        what: &'static str,
    },
    /// No arm came through.
    #[error("neither arm came through")]
    BothFailed,
}

/// On equal weights a mean KL divergence beyond this is an error of one engine, not rounding.
const MOST_KL_OF_EQUALS: f64 = 0.01;

/// The decision that a report supports. Where it supports none of the engines, the decision says so, and `auto` keeps to
/// its stated rule.
///
/// # Errors
/// [`NoDecision`] for reports that are about something else.
pub fn decide(report: &Report, terms: &Terms) -> Result<Decision, NoDecision> {
    let [a, b] = report.arms.as_slice() else { return Err(NoDecision::NoChoice { what: "nothing" }) };
    if a.engine.id == b.engine.id {
        return Err(NoDecision::NoChoice { what: "one engine with itself" });
    }
    if a.model.files.iter().map(|file| &file.sha256).ne(b.model.files.iter().map(|file| &file.sha256)) {
        return Err(NoDecision::NoChoice { what: "two models" });
    }
    if a.failure.is_some() && b.failure.is_some() {
        return Err(NoDecision::BothFailed);
    }
    let workloads: Vec<WorkloadChoice> =
        terms.workloads.iter().filter_map(|workload| choice(report, workload)).collect();
    let chosen = overall(report, &workloads);
    let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
    let floors = report
        .comparisons
        .iter()
        .filter_map(|found| Some((found.metric.name().to_owned(), found.margin.floor?)));
    let mut codes: Vec<String> =
        report.findings.iter().map(|finding| finding.code.name().to_owned()).collect();
    codes.sort_unstable();
    codes.dedup();
    Ok(Decision {
        model: identity(a, terms),
        machine: report.manifest.machine.identity(),
        engines: report.arms.iter().map(engine_identity).collect(),
        decided: time(terms.now),
        expires: time(terms.now + terms.valid_for),
        engine: chosen.engine,
        reason: chosen.reason,
        probability: chosen.probability,
        expected_loss: chosen.expected_loss,
        workloads,
        matrix: report.arms.iter().map(|arm| row(report, arm)).collect(),
        crossovers: crossover(report).into_iter().collect(),
        grade: report.grade.as_ref().map(|graded| format!("{:?}: {}", graded.grade, graded.reason)),
        noise_floors: floors.collect(),
        codes,
        report_sha256: terms.report_sha256.clone(),
        command: terms.command.clone(),
    })
}

/// The choice where the workload is not known.
struct Chosen {
    engine: Option<String>,
    reason: String,
    probability: f64,
    expected_loss: f64,
}

impl Chosen {
    fn none(reason: String) -> Self {
        Self { engine: None, reason, probability: 0.5, expected_loss: 0.0 }
    }
}

fn overall(report: &Report, workloads: &[WorkloadChoice]) -> Chosen {
    for (failed, other) in [(Side::A, Side::B), (Side::B, Side::A)] {
        if let Some(failure) = &report.arms[failed.index()].failure {
            let engine = Some(report.arms[other.index()].engine.id.clone());
            let reason = format!("{} failed during {}", report.label(failed), failure.during);
            return Chosen { engine, reason, probability: 1.0, expected_loss: 0.0 };
        }
    }
    if let Some(reason) = not_eligible(report) {
        return Chosen::none(reason);
    }
    let named: Vec<&WorkloadChoice> = workloads.iter().filter(|choice| choice.engine.is_some()).collect();
    let Some(first) = named.first() else {
        return Chosen::none(match workloads.is_empty() {
            true => "the measurement holds no block for it".to_owned(),
            false => "no engine is faster by more than the margin at any workload".to_owned(),
        });
    };
    if named.iter().any(|choice| choice.engine != first.engine) {
        return Chosen::none("the faster engine depends on the workload".to_owned());
    }
    let names: Vec<&str> = named.iter().map(|choice| choice.workload.as_str()).collect();
    let engine = first.engine.clone().unwrap_or_default();
    let gain = 100.0 * (first.time_ratio.max(1.0 / first.time_ratio) - 1.0);
    Chosen {
        reason: format!("{engine} answers {} faster, {} by {gain:.0} %", names.join(", "), first.workload),
        engine: Some(engine),
        probability: named.iter().map(|choice| choice.probability).fold(1.0, f64::min),
        expected_loss: named.iter().map(|choice| choice.expected_loss).fold(0.0, f64::max),
    }
}

/// Why no engine may be recommended, however fast.
fn not_eligible(report: &Report) -> Option<String> {
    for metric in [Metric::Ttft, Metric::DecodeNative] {
        let found = report.comparisons.iter().find(|found| found.metric == metric);
        match found.map(|found| &found.verdict) {
            None => return Some(format!("{} was not measured on both", metric.name())),
            Some(Verdict::Invalid { codes }) => {
                return Some(format!("{} does not hold: {}", metric.name(), codes.join(", ")));
            }
            Some(_) => {}
        }
    }
    let equal = report.grade.as_ref().is_some_and(|graded| matches!(graded.grade, Grade::A | Grade::B));
    let kl = report.agreement.as_ref()?.kl.mean;
    (equal && kl > MOST_KL_OF_EQUALS).then(|| {
        format!("on equal weights the engines differ by {kl:.4} nats: one of them computes something else")
    })
}

/// The choice for one workload; `None` without two whole blocks.
fn choice(report: &Report, workload: &Workload) -> Option<WorkloadChoice> {
    let ratio = workload_ratio(report, workload)?;
    let posterior = Posterior::of(&ratio)?;
    let limit = report
        .comparisons
        .iter()
        .filter(|found| matches!(found.metric, Metric::Ttft | Metric::DecodeNative))
        .map(|found| found.margin.log())
        .fold(0.0, f64::max);
    let faster = if ratio.time_ratio > 1.0 { Side::B } else { Side::A };
    let engine = match ratio.position(limit) {
        Some(Position::Above) => Some(Side::B),
        Some(Position::Below) => Some(Side::A),
        Some(Position::Within | Position::Open) | None => None,
    };
    let id = |side: Side| report.arms.get(side.index()).map(|arm| arm.engine.id.clone());
    Some(WorkloadChoice {
        workload: workload.name.clone(),
        n_prompt: workload.n_prompt,
        n_decode: workload.n_decode,
        estimate: !workload.is_within(report),
        engine: engine.filter(|_| not_eligible(report).is_none()).and_then(id),
        probability: posterior.probability(faster),
        expected_loss: posterior.expected_loss(faster),
        time_ratio: ratio.time_ratio,
    })
}

/// Where the faster engine changes, if it does.
fn crossover(report: &Report) -> Option<String> {
    let [a, b] = Side::BOTH.map(|side| Fit::of(report, side));
    let per_token = a?.crossover(&b?)?;
    let (for_prompts, for_answers) = match a?.prompt < b?.prompt {
        true => (report.label(Side::A), report.label(Side::B)),
        false => (report.label(Side::B), report.label(Side::A)),
    };
    Some(format!(
        "{for_prompts} is faster with more than {per_token:.1} prompt tokens for each generated one, {for_answers} with \
         fewer"
    ))
}

fn identity(arm: &ArmReport, terms: &Terms) -> ModelIdentity {
    let file =
        arm.model.files.first().and_then(|file| file.path.file_name()).map(|name| name.to_string_lossy());
    let name = arm.model.name.clone().or_else(|| file.map(|name| name.into_owned()));
    ModelIdentity {
        name: name.unwrap_or_else(|| arm.model.architecture.clone()),
        fingerprint: terms.fingerprint.clone(),
        sha256: arm.model.files.iter().map(|file| file.sha256.clone()).collect(),
    }
}

fn engine_identity(arm: &ArmReport) -> EngineIdentity {
    EngineIdentity {
        id: arm.engine.id.clone(),
        version: arm.engine.version.clone(),
        device: arm.engine.devices.first().cloned().unwrap_or_default(),
    }
}

fn row(report: &Report, arm: &ArmReport) -> EngineRow {
    let median = |metric| arm.summaries.iter().find(|found| found.metric == metric).map(|found| found.median);
    let perplexity = report.agreement.as_ref().map(|found| match arm.side {
        Side::A => found.perplexity_a,
        Side::B => found.perplexity_b,
    });
    let grown = arm.memory.as_ref().and_then(|memory| memory.process_warm).map(|grown| grown.pss_bytes);
    let mut risks: Vec<String> = arm.loaded.iter().flat_map(|loaded| loaded.notes.iter().cloned()).collect();
    risks.extend(arm.failure.iter().map(|failure| format!("failed during {}", failure.during)));
    EngineRow {
        engine: arm.engine.id.clone(),
        prefill_rate: median(Metric::Prefill),
        decode_rate: median(Metric::DecodeNative),
        load_seconds: arm.loaded.as_ref().map(|loaded| loaded.load_ns as f64 / 1e9),
        memory_bytes: grown.and_then(|bytes| u64::try_from(bytes).ok()),
        context_length: arm.loaded.as_ref().map(|loaded| loaded.context_length),
        perplexity,
        risks,
    }
}

impl Machine {
    /// What of this machine a decision is bound to.
    pub fn identity(&self) -> MachineIdentity {
        MachineIdentity {
            cpu: self.cpu.clone().unwrap_or_default(),
            n_threads: self.n_threads,
            arch: self.arch.clone(),
            memory_bytes: self.memory_bytes,
            os: self.os.clone().unwrap_or_default(),
        }
    }
}
