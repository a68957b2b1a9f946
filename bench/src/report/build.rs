//! From what a run has collected to the report: summaries, ratios, grade, differences, notes.

use std::sync::Arc;

use duet_core::decision::device_name;
use duet_core::model::ModelInfo;
use duet_core::{BackendInfo, Capabilities, LoadedInfo};

use super::merge::fidelity;
use super::{
    ArmFailure, ArmMemory, ArmReport, Block, BlockKind, EngineReport, LoadedReport, Manifest, Metric,
    ModelReport, Report, Summary, Visit,
};
use crate::agreement::{Agreement, Reference};
use crate::analysis::{Analysis, Question, analyse};
use crate::clock::nanos;
use crate::files::FileHash;
use crate::forecast::arithmetic::prefill_flops;
use crate::library::LibraryRates;
use crate::order::Side;
use crate::plan::Plan;
use crate::scenario::{ScenarioReport, analyse_again};
use crate::weights::{WeightProof, grade};

/// What a run has collected of one arm.
pub(crate) struct ArmFacts {
    pub(crate) label: String,
    pub(crate) backend: BackendInfo,
    pub(crate) reason: String,
    pub(crate) probe_notes: Vec<String>,
    pub(crate) model: Arc<ModelInfo>,
    pub(crate) files: Vec<FileHash>,
    pub(crate) loaded: Option<(LoadedInfo, Capabilities, std::time::Duration)>,
    pub(crate) memory: Option<ArmMemory>,
    pub(crate) memory_bytes_per_second: Option<f64>,
    pub(crate) library: Option<LibraryRates>,
    pub(crate) warm_up: Option<Visit>,
    pub(crate) failure: Option<ArmFailure>,
}

/// What a run has collected of both arms together.
pub(crate) struct Found {
    pub(crate) blocks: Vec<Block>,
    pub(crate) agreement: Result<Agreement, String>,
    pub(crate) reference: Option<Result<Reference, String>>,
    pub(crate) weights: WeightProof,
    pub(crate) scenarios: Vec<ScenarioReport>,
}

/// Puts a report together.
pub(crate) fn build(manifest: Manifest, plan: Plan, arms: [ArmFacts; 2], found: Found) -> Report {
    let Found { blocks, agreement, reference, weights, mut scenarios } = found;
    let infos = arms.each_ref().map(|arm| arm.loaded.as_ref().map(|(info, ..)| info));
    let grade = infos[0].zip(infos[1]).map(|(a, b)| grade(&weights, a, b));
    let differences = infos[0].zip(infos[1]).map(|(a, b)| differences(a, b)).unwrap_or_default();
    let mut notes = notes(&arms);
    let reference = match reference {
        Some(Err(why)) => {
            notes.push(format!("not held against the reference: {why}"));
            None
        }
        Some(Ok(reference)) => Some(reference),
        None => None,
    };
    let definitions =
        Metric::ALL.iter().map(|metric| (metric.name().to_owned(), metric.definition().to_owned())).collect();
    let mut sides = Side::BOTH.into_iter();
    let arms = arms.map(|arm| {
        let side = sides.next().unwrap_or(Side::B);
        arm_report(side, arm, &blocks, plan.n_prompt)
    });
    let question = Question {
        margin: plan.margin,
        n_decode: plan.n_decode,
        grade: grade.clone(),
        fidelity: fidelity(agreement.as_ref().ok(), reference.as_ref(), grade.as_ref(), &arms),
    };
    let Analysis { comparisons, findings } = analyse(&blocks, &arms, &question);
    for scenario in &mut scenarios {
        analyse_again(scenario, &question);
    }
    let (agreement, no_agreement) = match agreement {
        Ok(agreement) => (Some(agreement), None),
        Err(reason) => (None, Some(reason)),
    };
    Report {
        schema: Report::SCHEMA.to_owned(),
        manifest,
        plan,
        definitions,
        arms: arms.into(),
        comparisons,
        findings,
        agreement,
        no_agreement,
        reference,
        weights,
        grade,
        differences,
        notes,
        scenarios,
        blocks,
    }
}

fn arm_report(side: Side, arm: ArmFacts, blocks: &[Block], n_prompt: usize) -> ArmReport {
    let ab = || blocks.iter().filter(|block| block.kind == BlockKind::Ab);
    let visits = || ab().flat_map(|block| &block.visits).filter(|visit| visit.arm == side);
    let summaries =
        Metric::ALL.iter().filter_map(|metric| Summary::of(*metric, visits(), n_prompt)).collect();
    let prompt_flops = Some(prefill_flops(&arm.model, n_prompt as u64)).filter(|flops| *flops > 0.0);
    let devices = arm.backend.devices.iter().map(device_name);
    ArmReport {
        side,
        label: arm.label,
        engine: EngineReport {
            id: arm.backend.id.to_owned(),
            library: arm.backend.library.to_owned(),
            version: arm.backend.version,
            devices: devices.collect(),
            features: arm.backend.features,
            library_path: arm.backend.library_path,
            reason: arm.reason,
        },
        model: ModelReport {
            format: arm.model.format.as_str().to_owned(),
            name: arm.model.name.clone(),
            architecture: arm.model.architecture.clone(),
            n_params: arm.model.n_params,
            quantization: arm.model.quantization.clone(),
            bits_per_weight: arm.model.bits_per_weight,
            files: arm.files,
        },
        loaded: arm.loaded.map(|(info, capabilities, load_time)| LoadedReport {
            backend: info.backend.to_owned(),
            device: info.device,
            weights: info.weights,
            weight_bytes_per_token: info.weight_bytes_per_token,
            memory_bytes_per_second: arm.memory_bytes_per_second,
            library: arm.library,
            prompt_flops,
            kv_type: info.kv_type,
            notes: info.notes,
            load_ns: nanos(load_time),
            context_length: capabilities.context_length,
            max_step_tokens: capabilities.max_step_tokens,
            steps_in_flight: capabilities.steps_in_flight,
            greedy_on_device: capabilities.device_sampling.greedy,
        }),
        memory: arm.memory,
        warm_up: arm.warm_up,
        summaries,
        failure: arm.failure,
    }
}

fn differences(a: &LoadedInfo, b: &LoadedInfo) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, a: &str, b: &str| {
        if a != b {
            found.push(format!("{what}: {a} against {b}"));
        }
    };
    differ("KV cache", &a.kv_type, &b.kv_type);
    differ("weights held as", &a.weights, &b.weights);
    differ("device", &a.device, &b.device);
    found
}

fn notes(arms: &[ArmFacts; 2]) -> Vec<String> {
    let mut notes = Vec::new();
    for arm in arms {
        let label = &arm.label;
        let own = arm.loaded.iter().flat_map(|(info, ..)| &info.notes);
        notes.extend(arm.probe_notes.iter().chain(own).map(|note| format!("{label}: {note}")));
    }
    notes
}
