//! A run from models to report: plan → hash → load and warm → blocks (A/A, pilot, A/B) → agreement → weights → report.
//!
//! Both arms stay loaded in this process (mode `resident`). An arm that fails is left out of everything after; the
//! other one is still measured, and the report says what happened.

mod alive;
mod arm;
mod blocks;
pub(crate) mod journal;
mod logits;
mod pace;
mod reference;
pub(crate) mod schedule;
mod setup;
mod visit;

use std::sync::Arc;
use std::time::SystemTime;

use duet_core::WeightsMode;
use duet_core::model::ModelInfo;
use duet_core::registry::Registry;

use self::alive::Alive;
use self::arm::Arm;
use self::blocks::Run;
use self::journal::Journal;
pub use self::journal::note_hang;
use self::logits::{agree_once, refer_once};
use self::pace::{fit, pace, say_piloted};
pub use self::reference::ReferenceModel;
use self::schedule::Counts;
use self::setup::{has_server, hash_all, plan, sizes};
use self::visit::Measure;
use crate::clock::nanos;
use crate::error::BenchError;
use crate::input;
use crate::machine::Machine;
use crate::options::BenchOptions;
use crate::order::{Side, block_orders};
use crate::report::{BlockKind, Found, Manifest, Report, build};
use crate::reporter::{Phase, Reporter};
use crate::scenario::{self, Stage};
use crate::weights::{ArmWeights, WeightProof, prove};
use crate::work::Work;

/// Measures what `options` name on the engines of `registry`. Needs a tokio runtime; two arms are loaded at a time.
///
/// # Errors
/// [`BenchError`] if nothing could be measured at all. An arm that fails to load or to answer is in the report.
///
/// # Cancel safety
/// Dropping the future unloads both arms after the step they are in.
pub async fn run(
    registry: &Registry,
    options: &BenchOptions,
    reporter: Arc<dyn Reporter>,
) -> Result<Report, BenchError> {
    options.validate()?;
    let subject = options.subject.clone();
    let models = tokio::task::spawn_blocking(move || input::models(&subject)).await??;
    run_models(registry, &models, options, reporter).await
}

/// As [`run`], for models whose headers are read already: one, or one for each arm. `options.subject` is not looked at.
///
/// # Errors
/// As [`run`].
pub async fn run_models(
    registry: &Registry,
    models: &[Arc<ModelInfo>],
    options: &BenchOptions,
    reporter: Arc<dyn Reporter>,
) -> Result<Report, BenchError> {
    options.validate()?;
    let started = SystemTime::now();
    let clock = options.clock.clone();
    let begin = clock.now();
    let (mut text_name, text) = options.text.read()?;
    let (text, said) = text.rendered(|| match models.first().map(|model| registry.text_assets(model)) {
        Some(Ok(assets)) => assets.template,
        Some(Err(error)) => Err(duet_core::chain(&error)),
        None => Err("there is no model".to_owned()),
    })?;
    if let Some(said) = said {
        text_name = format!("{text_name}, {said}");
    }
    let inputs = input::resolve(registry, models, options.engines.as_ref(), text.text())?;
    let mut counts = Counts::asked(options);
    let (sizes, context_length) = sizes(options, &inputs, counts)?;
    let work = Work::new(text_name, &text, inputs[0].tokenizer.as_ref(), sizes)?;
    let mut plan = plan(options, &inputs, &work, context_length);
    plan.set_counts(counts.n_aa, counts.n_pilot, counts.n_ab);
    reporter.planned(&plan);

    let reporter: Arc<dyn Reporter> = match options.journal.as_deref() {
        Some(path) => Arc::new(Alive::new(reporter, path)?),
        None => reporter,
    };
    let mut journal =
        options.journal.as_deref().map(|path| Journal::open(path, &work.ids_sha256)).transpose()?;
    let files = hash_all(models, &reporter).await?;
    let mut arms = inputs.map(|input| Arm::new(input, files.clone(), reporter.clone()));
    let measure = Measure { work: &work, options, begin };
    for (side, arm) in Side::BOTH.into_iter().zip(&mut arms) {
        arm.load(options, context_length).await;
        arm.warm_up(&measure, side).await;
        if options.watch_machine {
            arm.probe_library(options.prefill_chunk.min(options.n_prompt)).await;
        }
        if options.swap {
            arm.unload().await;
        }
    }
    probe_memory(&mut arms, options).await;
    let pace = pace(&arms, work.sizes, options.swap);
    let decided = journal.as_ref().and_then(Journal::counts);
    match (decided, pace, options.budget) {
        (Some((decided, _)), ..) => counts = decided,
        (None, Some(pace), Some(budget)) => counts = fit(counts, pace.block, budget, reporter.as_ref()),
        _ => {}
    }
    decide(&mut journal, counts, false)?;
    if let Some(pace) = pace {
        reporter.estimated(counts.time(pace.block) + pace.agreement);
    }
    let mut run = Run {
        measure,
        arms: &mut arms,
        reporter: reporter.as_ref(),
        blocks: journal.as_mut().map(|journal| std::mem::take(&mut journal.blocks)).unwrap_or_default(),
        context_length,
        restart: journal.as_ref().map_or(0, |journal| journal.n_processes),
        journal,
        before: None,
        n_planned: 0,
    };
    // A stream of coins of its own, so that the A/B orders do not depend on how many A/A blocks there are.
    run.blocks(&schedule::aa(!options.seed, counts.n_aa, 1), &Phase::NoiseFloor).await?;
    let orders = block_orders(options.seed, counts.n_pilot + counts.n_ab);
    let (pilots, orders) = orders.split_at(counts.n_pilot);
    let request = 1 + 2 * counts.n_aa;
    run.blocks(&schedule::ab(BlockKind::Pilot, pilots, request), &Phase::Pilot).await?;
    let is_piloted = decided.is_some_and(|(_, piloted)| piloted);
    if let Some(piloted) =
        schedule::from_pilot(&run.blocks, options.margin, counts.n_ab).filter(|_| !is_piloted)
    {
        let n_processes = options.n_processes as usize;
        counts.n_ab = piloted.n_ab.div_ceil(n_processes).max(schedule::LEAST.min(counts.n_ab));
        say_piloted(&piloted, counts.n_ab, options, pace, reporter.as_ref());
        decide(&mut run.journal, counts, true)?;
    }
    let request = request + 2 * counts.n_pilot;
    run.blocks(&schedule::ab(BlockKind::Ab, &orders[..counts.n_ab], request), &Phase::Measuring).await?;
    let Run { blocks, mut journal, .. } = run;
    plan.set_counts(counts.n_aa, counts.n_pilot, counts.n_ab);

    let agreement = agree_once(&mut journal, &mut arms, &work, options.swap, reporter.as_ref()).await?;
    let reference = refer_once(&mut journal, registry, &arms, &work, options, reporter.as_ref()).await?;
    for arm in &mut arms {
        // Where one is loaded at a time, the others are not there to be asked, and the first figures stay.
        if options.watch_machine && !options.swap {
            arm.probe_library(options.prefill_chunk.min(options.n_prompt)).await;
        }
    }
    for arm in &arms {
        arm.unload().await;
    }
    probe_memory(&mut arms, options).await;
    let stage = Stage {
        options,
        inputs: arms.each_ref().map(Arm::input),
        failed: arms.iter().find(|arm| arm.running().is_none()).map(|arm| arm.label().to_owned()),
        ids: work.ids(),
        begin,
        reporter: reporter.as_ref(),
    };
    let scenarios = scenario::run(stage, &mut journal).await?;
    let weights = weights(options, &arms, &reporter).await?;
    let manifest = Manifest {
        started: humantime::format_rfc3339_seconds(started).to_string(),
        wall_ns: nanos(clock.now().saturating_sub(begin)),
        duet_version: options.duet_version.clone(),
        machine: Machine::this(),
        threads: options.threads,
        kv_type: options.kv_type.map(|kv_type| format!("{kv_type:?}").to_lowercase()),
        weights_mode: mode_name(options.weights).to_owned(),
        mode: if options.swap { "swap" } else { "resident" }.to_owned(),
    };
    let found = Found { blocks, agreement, reference, weights, scenarios };
    Ok(build(manifest, plan, arms.map(Arm::into_facts), found))
}

/// Before and after the blocks, lest something else slow the only probe down.
async fn probe_memory(arms: &mut [Arm; 2], options: &BenchOptions) {
    if !options.watch_machine {
        return;
    }
    let machine = Machine::this();
    let n_threads = options.threads.map(|n| n as usize).or(machine.n_cores).unwrap_or(machine.n_threads);
    for arm in arms {
        arm.probe_memory(n_threads).await;
    }
}

/// Notes how many blocks there are.
fn decide(journal: &mut Option<Journal>, counts: Counts, piloted: bool) -> Result<(), BenchError> {
    match journal {
        Some(journal) => journal.decided(counts, piloted),
        None => Ok(()),
    }
}

async fn weights(
    options: &BenchOptions,
    arms: &[Arm; 2],
    reporter: &Arc<dyn Reporter>,
) -> Result<WeightProof, BenchError> {
    if has_server(options, arms.iter().map(Arm::engine_id)) {
        return Ok(WeightProof::Unknown { reason: "a server does not show its weights".to_owned() });
    }
    let of = |arm: &Arm| ArmWeights {
        engine: arm.engine_id().to_owned(),
        model: arm.model().clone(),
        weights: options.weights,
    };
    let [a, b] = arms.each_ref().map(of);
    let shower = match options.same_bits.clone() {
        Some(shower) => shower,
        None if a.is(&b) => return Ok(WeightProof::OneFile),
        None => {
            let reason = "nothing in this build can show the weights of both engines".to_owned();
            return Ok(WeightProof::Unknown { reason });
        }
    };
    let reporter = reporter.clone();
    let proof = tokio::task::spawn_blocking(move || {
        prove(shower.as_ref(), &a, &b, |n_tensors| reporter.progress(&Phase::Weights, n_tensors, 0))
    });
    Ok(proof.await?)
}

fn mode_name(mode: WeightsMode) -> &'static str {
    match mode {
        WeightsMode::Auto => "auto",
        WeightsMode::Packed => "packed",
        WeightsMode::Dense => "dense",
    }
}
