//! A run from models to report: plan → hash → load and warm → blocks (A/A, pilot, A/B) → agreement → weights → report.
//!
//! Both arms stay loaded in this process (mode `resident`). An arm that fails is left out of everything after; the
//! other one is still measured, and the report says what happened.

mod alive;
mod arm;
pub(crate) mod journal;
mod reference;
pub(crate) mod schedule;
mod visit;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use duet_core::WeightsMode;
use duet_core::model::ModelInfo;
use duet_core::registry::Registry;

use self::alive::Alive;
use self::arm::Arm;
pub use self::journal::note_hang;
use self::journal::{Came, Journal, Past};
pub use self::reference::ReferenceModel;
use self::schedule::{Counts, Piloted, Planned};
use self::visit::Measure;
use crate::agreement::{self, Agreement, AgreementError, AgreementWork, Reference};
use crate::clock::nanos;
use crate::error::BenchError;
use crate::files::{FileHash, hash_file};
use crate::input::{self, ArmInput};
use crate::machine::Machine;
use crate::options::BenchOptions;
use crate::order::{Side, block_orders};
use crate::plan::{Plan, PlannedArm};
use crate::report::{Block, BlockKind, Found, Manifest, Report, Visit, build};
use crate::reporter::{Phase, Reporter};
use crate::scenario::{self, Stage};
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

/// A run while its blocks are measured.
struct Run<'a> {
    measure: Measure<'a>,
    arms: &'a mut [Arm; 2],
    reporter: &'a dyn Reporter,
    blocks: Vec<Block>,
    journal: Option<Journal>,
    context_length: u32,
    /// Processes before this one.
    restart: u32,
    /// The arm of the visit before.
    before: Option<Side>,
    /// Blocks planned so far, those of earlier processes among them.
    n_planned: usize,
}

impl Run<'_> {
    /// Where only one arm is loaded at a time: frees the other one and loads this one; how long that took.
    async fn swap_to(&mut self, side: Side) -> Option<u64> {
        let options = self.measure.options;
        if !options.swap || self.arms[side.index()].running().is_none() {
            return None;
        }
        self.arms[side.other().index()].unload().await;
        let begin = options.clock.now();
        self.arms[side.index()].load(options, self.context_length).await;
        Some(nanos(options.clock.now().saturating_sub(begin)))
    }

    /// Measures these blocks, one after the other, but for those that an earlier process has done or lost.
    async fn blocks(&mut self, planned: &[Planned], phase: &Phase) -> Result<(), BenchError> {
        let total: u64 = planned.iter().map(|block| block.visits.len() as u64).sum();
        let mut done = 0;
        for planned in planned {
            self.n_planned += 1;
            if self.n_planned <= self.blocks.len() {
                done += planned.visits.len() as u64;
                continue;
            }
            let visits = Vec::with_capacity(planned.visits.len());
            let (kind, order) = (planned.kind, planned.order.clone());
            let mut block = Block { kind, restart: self.restart, order, visits, lost: None };
            for (number, &visit) in planned.visits.iter().enumerate() {
                self.reporter.progress(phase, done, total);
                done += 1;
                let index = self.blocks.len();
                if let Some(journal) = &mut self.journal {
                    journal.begin(index, kind, &block.order, visit.arm)?;
                }
                let during = format!("block {}, visit {}", index + 1, number + 1);
                let switched = self.before != Some(visit.arm);
                let reload = if switched { self.swap_to(visit.arm).await } else { None };
                let arm = &mut self.arms[visit.arm.index()];
                let measured = arm.visit(&self.measure, visit, switched, during).await;
                block.visits.extend(measured.map(|visit| Visit { reload_ns: reload, ..visit }));
                self.before = Some(visit.arm);
            }
            if let Some(journal) = &mut self.journal {
                journal.done(&block)?;
            }
            self.blocks.push(block);
        }
        if total > 0 {
            self.reporter.progress(phase, total, total);
        }
        Ok(())
    }
}

/// Notes how many blocks there are.
fn decide(journal: &mut Option<Journal>, counts: Counts, piloted: bool) -> Result<(), BenchError> {
    match journal {
        Some(journal) => journal.decided(counts, piloted),
        None => Ok(()),
    }
}

/// Cuts the blocks to the time there is, and says so.
fn fit(asked: Counts, block: Duration, budget: Duration, reporter: &dyn Reporter) -> Counts {
    let counts = asked.fitted(block, budget);
    if counts != asked {
        let floor = match counts.n_aa {
            0 if asked.n_aa > 0 => ", without a noise floor".to_owned(),
            0 => String::new(),
            n => format!(" and {n} for the noise floor"),
        };
        reporter.note(&format!(
            "a block takes about {} here: {} of {} blocks{floor}, to keep the blocks within {}",
            seconds(block),
            counts.n_ab,
            asked.n_ab,
            seconds(budget.max(counts.time(block))),
        ));
    }
    counts
}

fn say_piloted(
    piloted: &Piloted,
    n_here: usize,
    options: &BenchOptions,
    pace: Option<Pace>,
    reporter: &dyn Reporter,
) {
    let time = pace.map(|pace| pace.block.saturating_mul(n_here as u32));
    let shared = match options.n_processes {
        1 => String::new(),
        n => format!(", {n_here} in each of {n} processes"),
    };
    reporter.note(&format!(
        "pilot: blocks of {} vary by {:.1} %; {} blocks resolve {:.1} % with a probability of 80 %{shared}{}",
        piloted.metric.name(),
        100.0 * piloted.log_sd,
        piloted.n_ab,
        100.0 * options.margin,
        time.map_or_else(String::new, |time| {
            format!("; about {}", seconds(time.saturating_mul(options.n_processes)))
        }),
    ));
    if let (Some(time), Some(pace)) = (time, pace) {
        reporter.estimated(time + pace.agreement);
    }
}

/// "3m 20s"; below ten seconds with a decimal.
fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 10.0 => format!("{s:.1}s"),
        s => humantime::format_duration(Duration::from_secs(s.round() as u64)).to_string(),
    }
}

/// How much of everything, and the context it takes.
fn sizes(options: &BenchOptions, inputs: &[ArmInput; 2], counts: Counts) -> Result<(Sizes, u32), BenchError> {
    // 0: the headers do not say.
    let context_of = |input: &ArmInput| match input.model.context_length {
        0 => u32::MAX,
        n => n,
    };
    let shortest = inputs.iter().min_by_key(|input| context_of(input));
    let context = shortest.map_or(u32::MAX, context_of);
    let n_vocab = inputs.iter().map(|input| input.model.vocab_size.max(input.tokenizer.vocab_size())).max();
    let mut sizes = Sizes::new(options, context, n_vocab.unwrap_or(1), counts.n_requests());
    if has_server(options, inputs.iter().map(|input| input.backend.info().id)) {
        sizes.n_windows = 0; // no logits come over HTTP
    }
    if options.swap {
        sizes.n_windows = 0; // a window's logits are compared while both are loaded
    }
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

fn has_server<'a>(options: &BenchOptions, mut engines: impl Iterator<Item = &'a str>) -> bool {
    engines.any(|engine| options.server(engine).is_some())
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
        n_aa_blocks: 0,
        n_pilot_blocks: 0,
        orders: Vec::new(),
        seed: options.seed,
        margin: options.margin,
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

/// How long things take here.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// A block of four visits.
    block: Duration,
    /// The agreement.
    agreement: Duration,
}

/// From the warm-ups; `None` if an arm has none.
fn pace(arms: &[Arm; 2], sizes: Sizes, swap: bool) -> Option<Pace> {
    let (mut block, mut agreement) = (0.0, 0.0);
    for arm in arms {
        let visit = arm.warm_up.as_ref()?;
        let (prompt_ns, step_ns) = match (&visit.runner, &visit.engine) {
            (Some(sample), _) => (sample.prefill_ns, &sample.step_ns),
            (None, Some(sample)) => (sample.ttft_ns, &sample.itl_ns),
            (None, None) => return None,
        };
        let per_token = prompt_ns as f64 / 1e9 / sizes.n_prompt as f64;
        let times: Vec<f64> = step_ns.iter().map(|ns| *ns as f64 / 1e9).collect();
        let step = crate::stats::median(&times)?;
        // Both modes, twice; a wash-out at about every second visit, which mostly ends when it may.
        let visit = 2.0 * (per_token * sizes.n_prompt as f64 + step * sizes.n_decode as f64);
        block += 2.0 * visit + step * sizes.n_wash_out as f64 / 2.0;
        if swap {
            // Each arm comes back once in a block, and at about every second one's beginning.
            block += 1.5 * arm.load_time().as_secs_f64();
        }
        agreement += (sizes.n_windows * sizes.window) as f64 * per_token * 1.3; // all heads instead of one
    }
    let duration = |seconds| Duration::try_from_secs_f64(seconds).ok();
    Some(Pace { block: duration(block)?, agreement: duration(agreement)? })
}

/// The stage in which logits are compared.
const AGREEMENT: &str = "agreement";

/// As [`agree`], unless an earlier process has done it, or was lost in it.
async fn agree_once(
    journal: &mut Option<Journal>,
    arms: &mut [Arm; 2],
    work: &Work,
    swap: bool,
    reporter: &dyn Reporter,
) -> Result<Result<Agreement, String>, BenchError> {
    if work.sizes.n_windows == 0 {
        return Ok(agree(arms, work, swap, reporter).await);
    }
    match journal.as_ref().map_or(Past::New, |journal| journal.past(AGREEMENT)) {
        Past::Done(Came::Agreement(agreement)) => return Ok(Ok(*agreement)),
        Past::Lost(why) => {
            return Ok(Err(format!("the process that was to compare the logits was lost: {why}")));
        }
        Past::New | Past::Done(_) => {}
    }
    if let Some(journal) = journal {
        journal.begin_stage(AGREEMENT)?;
    }
    let found = agree(arms, work, swap, reporter).await;
    if let Some(journal) = journal {
        let came = found.as_ref().map_or(Came::Nothing, |found| Came::Agreement(Box::new(found.clone())));
        journal.stage_done(AGREEMENT, came)?;
    }
    Ok(found)
}

/// The stage in which both arms are held against the reference.
const REFERENCE: &str = "reference";

/// Both arms against the reference, unless an earlier process has done it, or was lost in it; why not is said.
async fn refer_once(
    journal: &mut Option<Journal>,
    registry: &Registry,
    arms: &[Arm; 2],
    work: &Work,
    options: &BenchOptions,
    reporter: &dyn Reporter,
) -> Result<Option<Result<Reference, String>>, BenchError> {
    let Some(reference) = &options.reference else { return Ok(None) };
    let [Some(a), Some(b)] = arms.each_ref().map(Arm::running) else {
        return Ok(Some(Err("an arm failed".to_owned())));
    };
    if work.sizes.n_windows == 0 {
        return Ok(Some(Err("no logits are compared in this run".to_owned())));
    }
    match journal.as_ref().map_or(Past::New, |journal| journal.past(REFERENCE)) {
        Past::Done(Came::Reference(found)) => return Ok(Some(Ok(*found))),
        Past::Lost(why) => return Ok(Some(Err(why))),
        Past::New | Past::Done(_) => {}
    }
    if let Some(journal) = journal {
        journal.begin_stage(REFERENCE)?;
    }
    let both = reference::Arms { models: [a, b], tokenizer: a.tokenizer().as_ref() };
    let found = reference::compare(registry, reference, both, work, options, reporter).await;
    if let Some(journal) = journal {
        let came = found.as_ref().map_or(Came::Nothing, |found| Came::Reference(Box::new(found.clone())));
        journal.stage_done(REFERENCE, came)?;
    }
    Ok(Some(found))
}

async fn agree(
    arms: &mut [Arm; 2],
    work: &Work,
    swap: bool,
    reporter: &dyn Reporter,
) -> Result<Agreement, String> {
    let sizes = work.sizes;
    if sizes.n_windows == 0 && swap {
        return Err("only one arm is loaded at a time".to_owned());
    }
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
            arms[side.index()].fail("the agreement".to_owned(), &source, source.code());
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
