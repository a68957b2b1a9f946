//! Reports of several processes as one: what a run differs by from one start to the next becomes visible, and an engine
//! that takes its process down loses one of them and not the whole.

use super::{ArmReport, Report, Summary};
use crate::agreement::{Agreement, Reference, finding};
use crate::analysis::{Question, analyse};
use crate::report::{BlockKind, Metric};
use crate::scenario;
use crate::validity::Finding;
use crate::weights::Graded;

/// Why reports are not one measurement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// There is none.
    #[error("there is no report to put together")]
    Empty,
    /// They measured something else, with other things, or elsewhere.
    #[error("report {number} differs from the first one in {what}")]
    Differs {
        /// Which report, counted from 1.
        number: usize,
        /// In what.
        what: &'static str,
    },
}

impl Report {
    /// One report of these, which have to be of the same machine, program, engines, files, settings and text. Everything
    /// is computed anew from all samples; what is known once (memory, loading, agreement, weights) is the first one's.
    ///
    /// # Errors
    /// [`MergeError`], naming the first difference.
    pub fn merge(reports: Vec<Report>) -> Result<Report, MergeError> {
        let mut reports = reports.into_iter();
        let mut merged = reports.next().ok_or(MergeError::Empty)?;
        let mut next_restart = n_restarts(&merged);
        for (index, other) in reports.enumerate() {
            if let Some(what) = difference(&merged, &other) {
                return Err(MergeError::Differs { number: index + 2, what });
            }
            let n = n_restarts(&other);
            merged.take(other, next_restart);
            next_restart += n;
        }
        merged.analyse_again();
        Ok(merged)
    }

    /// Takes the samples of another report as those of processes from `restart` on.
    fn take(&mut self, other: Report, restart: u32) {
        let blocks = other.blocks.into_iter();
        self.blocks.extend(blocks.map(|mut block| {
            block.restart += restart;
            block
        }));
        for scenario in other.scenarios {
            match self.scenarios.iter_mut().find(|own| own.name == scenario.name) {
                Some(own) => own.take(scenario, restart),
                None => self.scenarios.push(scenario),
            }
        }
        self.manifest.wall_ns = self.manifest.wall_ns.saturating_add(other.manifest.wall_ns);
        self.plan.orders.extend(other.plan.orders);
        self.plan.n_aa_blocks += other.plan.n_aa_blocks;
        self.plan.n_pilot_blocks += other.plan.n_pilot_blocks;
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        for (own, others) in self.arms.iter_mut().zip(other.arms) {
            if own.failure.is_none() {
                own.failure = others.failure;
            }
        }
    }

    /// Summaries, comparisons and findings from the samples, as this version computes them.
    pub fn analyse_again(&mut self) {
        let n_prompt = self.plan.n_prompt;
        for arm in &mut self.arms {
            let of_arm = self.blocks.iter().filter(|block| block.kind == BlockKind::Ab);
            let visits =
                || of_arm.clone().flat_map(|block| &block.visits).filter(|visit| visit.arm == arm.side);
            arm.summaries =
                Metric::ALL.iter().filter_map(|metric| Summary::of(*metric, visits(), n_prompt)).collect();
        }
        let question = Question {
            margin: self.plan.margin,
            n_decode: self.plan.n_decode,
            grade: self.grade.clone(),
            fidelity: fidelity(
                self.agreement.as_ref(),
                self.reference.as_ref(),
                self.grade.as_ref(),
                &self.arms,
            ),
        };
        let analysis = analyse(&self.blocks, &self.arms, &question);
        (self.comparisons, self.findings) = (analysis.comparisons, analysis.findings);
        for scenario in &mut self.scenarios {
            scenario::analyse_again(scenario, &question);
        }
    }
}

/// What the agreement says against the ratios of these arms, or the reference, which knows which of them is wrong.
pub(super) fn fidelity(
    agreement: Option<&Agreement>,
    reference: Option<&Reference>,
    grade: Option<&Graded>,
    arms: &[ArmReport],
) -> Option<Finding> {
    let [a, b] = arms else { return None };
    let quantizations = [a.model.quantization.as_str(), &b.model.quantization];
    let of_reference = reference.and_then(|reference| reference.finding(quantizations));
    of_reference.or_else(|| finding(agreement, grade, quantizations))
}

fn n_restarts(report: &Report) -> u32 {
    report.blocks.iter().map(|block| block.restart + 1).max().unwrap_or(1)
}

/// The first thing in which two reports are not of the same measurement.
fn difference(a: &Report, b: &Report) -> Option<&'static str> {
    let same = [
        (a.schema == b.schema, "the version of the report"),
        (a.manifest.machine == b.manifest.machine, "the machine"),
        (a.manifest.duet_version == b.manifest.duet_version, "duet's version"),
        (settings(a) == settings(b), "the settings"),
        (a.plan.ids_sha256 == b.plan.ids_sha256, "the text's token ids"),
        (work(a) == work(b), "the work of a request"),
        (a.arms.iter().map(artefact).eq(b.arms.iter().map(artefact)), "the engines or the models' files"),
    ];
    same.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
}

fn settings(report: &Report) -> impl PartialEq + '_ {
    let manifest = &report.manifest;
    (manifest.threads, &manifest.kv_type, &manifest.weights_mode, &manifest.mode)
}

fn work(report: &Report) -> impl PartialEq + '_ {
    let plan = &report.plan;
    (
        plan.n_prompt,
        plan.n_decode,
        plan.prefill_chunk,
        plan.wash_out,
        plan.context_length,
        plan.margin.to_bits(),
    )
}

/// What was measured in an arm: engine, its version, and the content of the files.
fn artefact(arm: &ArmReport) -> (&str, &str, Vec<&str>) {
    let files = arm.model.files.iter().map(|file| file.sha256.as_str()).collect();
    (&arm.engine.id, &arm.engine.version, files)
}
