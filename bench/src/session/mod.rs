//! A run from models to report: plan → hash → load and warm → blocks → agreement → weights → report.
//!
//! Both arms stay loaded in this process (mode `resident`). An arm that fails is left out of everything after; the
//! other one is still measured, and the report says what happened.

mod arm;
mod visit;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use duet_core::WeightsMode;
use duet_core::model::ModelInfo;
use duet_core::registry::Registry;

use self::arm::Arm;
use self::visit::Measure;
use crate::agreement::{self, Agreement, AgreementError, AgreementWork};
use crate::clock::nanos;
use crate::error::BenchError;
use crate::files::{FileHash, hash_file};
use crate::input::{self, ArmInput};
use crate::machine::Machine;
use crate::options::BenchOptions;
use crate::order::{Side, block_orders, order_name};
use crate::plan::{Plan, PlannedArm};
use crate::report::{Block, Manifest, Report, build};
use crate::reporter::{Phase, Reporter};
use crate::weights::{ArmWeights, WeightProof, prove};
use crate::work::{Sizes, Work};

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
    let (text_name, text) = options.text.read()?;
    let inputs = input::resolve(registry, models, options.engines.as_ref(), &text)?;
    let (sizes, context_length) = sizes(options, &inputs)?;
    let work = Work::new(text_name, &text, inputs[0].tokenizer.as_ref(), sizes)?;
    let sizes = work.sizes;
    let orders = block_orders(options.seed, sizes.n_blocks);
    let plan = plan(options, &inputs, &work, context_length);
    reporter.planned(&plan);

    let files = hash_all(models, &reporter).await?;
    let mut arms = inputs.map(|input| Arm::new(input, files.clone(), reporter.clone()));
    let measure = Measure { work: &work, options };
    for (side, arm) in Side::BOTH.into_iter().zip(&mut arms) {
        arm.load(options, context_length).await;
        arm.warm_up(&measure, side).await;
    }
    if let Some(remaining) = estimate(&arms, sizes) {
        reporter.estimated(remaining);
    }
    let mut blocks: Vec<Block> = Vec::with_capacity(orders.len());
    let mut before = None;
    for (index, order) in orders.iter().enumerate() {
        let mut block = Block { order: order_name(order), visits: Vec::with_capacity(4) };
        for (number, &side) in order.iter().enumerate() {
            reporter.progress(&Phase::Measuring, (4 * index + number) as u64, 4 * orders.len() as u64);
            // Each arm has two visits in a block; the first of both get one request, the second ones another.
            let visit_of_side = order[..number].iter().filter(|earlier| **earlier == side).count();
            let request = 1 + 2 * index + visit_of_side;
            let during = format!("block {}, visit {}", index + 1, number + 1);
            block.visits.extend(
                arms[side.index()].visit(&measure, side, request, before != Some(side), during).await,
            );
            before = Some(side);
        }
        blocks.push(block);
    }
    reporter.progress(&Phase::Measuring, 4 * orders.len() as u64, 4 * orders.len() as u64);

    let agreement = agree(&mut arms, &work, reporter.as_ref()).await;
    for arm in &arms {
        arm.unload().await;
    }
    let weights = weights(options, &arms, &reporter).await?;
    let manifest = Manifest {
        started: humantime::format_rfc3339_seconds(started).to_string(),
        wall_ns: nanos(clock.now().saturating_sub(begin)),
        duet_version: options.duet_version.clone(),
        machine: Machine::this(),
        threads: options.threads,
        kv_type: options.kv_type.map(|kv_type| format!("{kv_type:?}").to_lowercase()),
        weights_mode: mode_name(options.weights).to_owned(),
        mode: "resident".to_owned(),
    };
    Ok(build(manifest, plan, arms.map(Arm::into_facts), blocks, agreement, weights))
}

/// How much of everything, and the context it takes.
fn sizes(options: &BenchOptions, inputs: &[ArmInput; 2]) -> Result<(Sizes, u32), BenchError> {
    // 0: the headers do not say.
    let context_of = |input: &ArmInput| match input.model.context_length {
        0 => u32::MAX,
        n => n,
    };
    let shortest = inputs.iter().min_by_key(|input| context_of(input));
    let context = shortest.map_or(u32::MAX, context_of);
    let n_vocab = inputs.iter().map(|input| input.model.vocab_size.max(input.tokenizer.vocab_size())).max();
    let sizes = Sizes::new(options, context, n_vocab.unwrap_or(1));
    let n_needed = sizes.longest();
    match u32::try_from(n_needed) {
        Ok(longest) if longest <= context => Ok((sizes, longest.next_multiple_of(256).min(context))),
        _ => Err(BenchError::ContextTooShort {
            path: shortest.map_or_else(PathBuf::new, |input| input.model.path.clone()),
            context_length: context,
            n_needed,
        }),
    }
}

fn plan(options: &BenchOptions, inputs: &[ArmInput; 2], work: &Work, context_length: u32) -> Plan {
    let sizes = work.sizes;
    let arms = inputs.iter().map(|input| PlannedArm {
        label: input.label.clone(),
        engine: input.backend.info().id.to_owned(),
        reason: input.reason.clone(),
        path: input.model.path.clone(),
        weights: input.probe.weights.clone(),
    });
    Plan {
        arms: arms.collect(),
        n_prompt: sizes.n_prompt,
        n_decode: sizes.n_decode,
        orders: block_orders(options.seed, sizes.n_blocks).iter().map(order_name).collect(),
        seed: options.seed,
        prefill_chunk: options.prefill_chunk,
        wash_out: options.wash_out,
        n_windows: sizes.n_windows,
        window: sizes.window,
        context_length,
        text: work.text_name.clone(),
        n_text_tokens: work.n_tokens(),
        ids_sha256: work.ids_sha256.clone(),
    }
}

/// Hashes all files of all models, each once; they are in the file cache afterwards, for both arms alike.
async fn hash_all(
    models: &[Arc<ModelInfo>],
    reporter: &Arc<dyn Reporter>,
) -> Result<Vec<FileHash>, BenchError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in models.iter().flat_map(|model| &model.files) {
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
    let total: u64 = paths.iter().filter_map(|path| Some(std::fs::metadata(path).ok()?.len())).sum();
    let reporter = reporter.clone();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut done = 0;
        let mut hash = |path: PathBuf| {
            hash_file(&path, |n| {
                done += n;
                reporter.progress(&Phase::Hashing, done, total);
            })
            .map_err(|source| BenchError::File { path, source })
        };
        paths.into_iter().map(&mut hash).collect()
    });
    hashed.await?
}

/// How long the blocks and the agreement will take, from the warm-ups; `None` if an arm has none.
fn estimate(arms: &[Arm; 2], sizes: Sizes) -> Option<Duration> {
    let mut seconds = 0.0;
    for arm in arms {
        let sample = arm.warm_up.as_ref()?.runner.as_ref()?;
        let per_token = sample.prefill_ns as f64 / 1e9 / sizes.n_prompt as f64;
        let times: Vec<f64> = sample.step_ns.iter().map(|ns| *ns as f64 / 1e9).collect();
        let step = crate::stats::median(&times)?;
        // Both modes; a wash-out at about every second visit.
        let visit = 2.0 * (per_token * sizes.n_prompt as f64 + step * sizes.n_decode as f64)
            + 0.5 * step * sizes.n_wash_out as f64;
        seconds += 2.0 * sizes.n_blocks as f64 * visit;
        seconds += (sizes.n_windows * sizes.window) as f64 * per_token * 1.3; // all heads instead of one
    }
    Duration::try_from_secs_f64(seconds).ok()
}

async fn agree(arms: &mut [Arm; 2], work: &Work, reporter: &dyn Reporter) -> Result<Agreement, String> {
    let sizes = work.sizes;
    if sizes.n_windows == 0 {
        return Err("not asked for".to_owned());
    }
    let [a, b] = &*arms;
    let models = match (a.running(), b.running()) {
        (Some(a), Some(b)) => [a, b],
        (None, _) => return Err(format!("{} failed", a.label())),
        (_, None) => return Err(format!("{} failed", b.label())),
    };
    let sizes = AgreementWork { n_windows: sizes.n_windows, window: sizes.window };
    match agreement::run(models, work, sizes, reporter).await {
        Ok(agreement) => Ok(agreement),
        Err(AgreementError::Arm { side, source }) => {
            arms[side.index()].fail("the agreement".to_owned(), &source);
            Err(format!("{} failed", arms[side.index()].label()))
        }
        Err(other) => Err(duet_core::chain(&other)),
    }
}

async fn weights(
    options: &BenchOptions,
    arms: &[Arm; 2],
    reporter: &Arc<dyn Reporter>,
) -> Result<WeightProof, BenchError> {
    let Some(shower) = options.same_bits.clone() else {
        let reason = "nothing in this build can show the weights of both engines".to_owned();
        return Ok(WeightProof::Unknown { reason });
    };
    let of = |arm: &Arm| ArmWeights {
        engine: arm.engine_id().to_owned(),
        model: arm.model().clone(),
        weights: options.weights,
    };
    let [a, b] = arms.each_ref().map(of);
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
