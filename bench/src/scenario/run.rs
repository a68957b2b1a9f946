//! The scenarios of a run, one after the other, each in blocks with the arms in turns.

use std::sync::Arc;
use std::time::Duration;

use duet_core::LoadSpec;
use duet_core::text::TokenId;

use super::report::{ScenarioBlock, ScenarioReport, SkipReason, Skipped};
use super::seat::{Common, Seat};
use super::work::ScenarioWork;
use crate::error::BenchError;
use crate::input::ArmInput;
use crate::load::{LoadError, Prompts};
use crate::options::BenchOptions;
use crate::order::{Side, block_orders};
use crate::report::BlockKind;
use crate::reporter::{Phase, Reporter};
use crate::session::journal::{Came, Journal, Past};
use crate::session::schedule::{self, Counts, LEAST, Planned, PlannedVisit};

/// What scenarios are run on.
pub(crate) struct Stage<'a> {
    pub(crate) options: &'a BenchOptions,
    pub(crate) inputs: [ArmInput; 2],
    /// Arms that have failed already, by name.
    pub(crate) failed: Option<String>,
    /// What prompts are made of.
    pub(crate) ids: &'a [TokenId],
    /// The clock when the run began.
    pub(crate) begin: Duration,
    pub(crate) reporter: &'a dyn Reporter,
}

/// Rates of arrivals that are not given leave the slower arm four tenths of its time.
const LOAD: f64 = 0.6;

/// The stage in which both arms are loaded for scenarios.
const LOADING: &str = "loading for scenarios";

/// Does what the options ask for. Both arms are loaded once more, for several requests at once, and freed at the end. What an
/// earlier process has done is taken from the journal; what one was lost in is not tried again.
///
/// # Errors
/// Those of the journal's file.
pub(crate) async fn run(
    stage: Stage<'_>,
    journal: &mut Option<Journal>,
) -> Result<Vec<ScenarioReport>, BenchError> {
    let works = ScenarioWork::all(&stage.options.scenarios, stage.options.seed);
    if works.is_empty() {
        return Ok(Vec::new());
    }
    if stage.options.swap {
        let detail = "scenarios need both arms loaded, and only one is at a time (--swap)".to_owned();
        return Ok(works.iter().map(|work| skipped(work, SkipReason::Room, detail.clone())).collect());
    }
    if let Some(failed) = &stage.failed {
        let detail = format!("{failed} had failed");
        return Ok(works.iter().map(|work| skipped(work, SkipReason::Arm, detail.clone())).collect());
    }
    let (mut reports, works) = room(works, &stage.inputs);
    let all = |works: &[ScenarioWork], reason: SkipReason, detail: &str| {
        works.iter().map(|work| skipped(work, reason, detail.to_owned())).collect::<Vec<_>>()
    };
    let past = |name: &str| journal.as_ref().map_or(Past::New, |journal| journal.past(name));
    if let Past::Lost(why) = past(LOADING) {
        let detail = format!("the process that loaded both arms for them was lost: {why}");
        reports
            .extend(works.iter().map(|work| ScenarioReport { failure: Some(detail.clone()), ..empty(work) }));
        return Ok(reports);
    }
    let known: Vec<Past> = works.iter().map(|work| past(&work.name())).collect();
    let mut seats = match seats(&stage, &works) {
        Ok(seats) => seats,
        Err(error) => {
            reports.extend(all(&works, SkipReason::Room, &duet_core::chain(&error)));
            return Ok(reports);
        }
    };
    if known.contains(&Past::New)
        && let Some(error) = open(&mut seats, journal).await?
    {
        let detail = duet_core::chain(&error);
        stage.reporter.note(&detail);
        reports.extend(all(&works, SkipReason::Arm, &detail));
        close(&mut seats).await;
        return Ok(reports);
    }
    let mut play = Play { stage: &stage, seats, number: 0, spent: Duration::ZERO, failed: None };
    for (index, (work, past)) in works.iter().zip(known).enumerate() {
        reports.push(play.once(*work, works.len() - index, past, journal).await?);
    }
    close(&mut play.seats).await;
    Ok(reports)
}

/// Loads both arms, as a stage of its own; what was wrong, if something was.
async fn open(seats: &mut [Seat; 2], journal: &mut Option<Journal>) -> Result<Option<LoadError>, BenchError> {
    if let Some(journal) = journal {
        journal.begin_stage(LOADING)?;
    }
    let mut failed = None;
    for seat in seats {
        failed = seat.open().await.err();
        if failed.is_some() {
            break;
        }
    }
    if let Some(journal) = journal {
        journal.stage_done(LOADING, Came::Nothing)?;
    }
    Ok(failed)
}

async fn close(seats: &mut [Seat; 2]) {
    for seat in seats {
        seat.close().await;
    }
}

fn skipped(work: &ScenarioWork, reason: SkipReason, detail: String) -> ScenarioReport {
    ScenarioReport { skipped: Some(Skipped { reason, detail }), ..empty(work) }
}

fn empty(work: &ScenarioWork) -> ScenarioReport {
    ScenarioReport {
        name: work.name(),
        work: *work,
        statement: work.statement(),
        skipped: None,
        failure: None,
        comparisons: Vec::new(),
        findings: Vec::new(),
        blocks: Vec::new(),
    }
}

/// What the models' contexts have no room for, and the rest.
fn room(works: Vec<ScenarioWork>, inputs: &[ArmInput; 2]) -> (Vec<ScenarioReport>, Vec<ScenarioWork>) {
    let context = context_of(inputs);
    let (fit, too_long): (Vec<_>, Vec<_>) = works.into_iter().partition(|work| work.longest() <= context);
    let refuse = |work: &ScenarioWork| {
        let detail = format!("it takes {} tokens, and the context has {context}", work.longest());
        skipped(work, SkipReason::Room, detail)
    };
    (too_long.iter().map(refuse).collect(), fit)
}

/// The shorter of both contexts; headers that do not say count as endless.
fn context_of(inputs: &[ArmInput; 2]) -> u32 {
    let of = |input: &ArmInput| {
        if input.model.context_length == 0 { u32::MAX } else { input.model.context_length }
    };
    of(&inputs[0]).min(of(&inputs[1]))
}

fn seats(stage: &Stage<'_>, works: &[ScenarioWork]) -> Result<[Seat; 2], LoadError> {
    let options = stage.options;
    let prompts = Prompts::of_ids(stage.inputs[0].tokenizer.as_ref(), stage.ids.to_vec(), options.seed)?;
    let per_visit = works.iter().map(ScenarioWork::n_prompts).max().unwrap_or(0) + 1;
    let common = Common {
        prompts: Arc::new(prompts),
        per_visit,
        clock: options.clock.clone(),
        begin: stage.begin,
        watch_machine: options.watch_machine,
        start: options.start.clone(),
    };
    let at_once = works.iter().map(ScenarioWork::at_once).max().unwrap_or(1);
    let longest = works.iter().map(ScenarioWork::longest).max().unwrap_or(1);
    let context = longest.next_multiple_of(256).min(context_of(&stage.inputs)).max(longest);
    Ok(stage.inputs.each_ref().map(|input| {
        let mut spec = LoadSpec::new(input.model.clone(), input.tokenizer.clone());
        spec.context_length = context;
        spec.parallel = at_once;
        spec.kv_tokens = context.saturating_mul(at_once);
        spec.max_queue = spec.max_queue.max(options.scenarios.n_arrivals as usize);
        spec.threads = options.threads;
        spec.prefill_chunk = options.prefill_chunk;
        spec.kv_type = options.kv_type;
        spec.weights = options.weights;
        let server = options.server(input.backend.info().id).cloned();
        Seat::new(input.clone(), server, spec, common.clone())
    }))
}

/// The scenarios while they are done.
struct Play<'a> {
    stage: &'a Stage<'a>,
    seats: [Seat; 2],
    /// Visits' prompts are numbered through all scenarios.
    number: usize,
    spent: Duration,
    failed: Option<String>,
}

impl Play<'_> {
    /// One scenario, unless an earlier process has done it or was lost in it.
    async fn once(
        &mut self,
        work: ScenarioWork,
        n_left: usize,
        past: Past,
        journal: &mut Option<Journal>,
    ) -> Result<ScenarioReport, BenchError> {
        match past {
            Past::Done(Came::Scenario(report)) => {
                // Prompts are numbered through all scenarios.
                let visits = report.blocks.iter().flat_map(|block| &block.visits);
                self.number += visits.map(|visit| visit.request + 1).max().unwrap_or(0);
                return Ok(*report);
            }
            Past::Lost(why) => {
                let detail = format!("{}: {why}", work.name());
                self.stage.reporter.note(&detail);
                return Ok(ScenarioReport { failure: Some(why), ..empty(&work) });
            }
            Past::New | Past::Done(_) => {}
        }
        if let Some(journal) = journal {
            journal.begin_stage(&work.name())?;
        }
        let report = self.scenario(work, n_left).await;
        if let Some(journal) = journal {
            journal.stage_done(&work.name(), Came::Scenario(Box::new(report.clone())))?;
        }
        Ok(report)
    }

    /// One scenario, of which `n_left` are left with it.
    async fn scenario(&mut self, work: ScenarioWork, n_left: usize) -> ScenarioReport {
        if let Some(failed) = &self.failed {
            return skipped(&work, SkipReason::Arm, failed.clone());
        }
        let is_server = |seat: &&Seat| seat.server.is_some();
        if let (ScenarioWork::Load { .. }, Some(seat)) = (&work, self.seats.iter().find(is_server)) {
            let detail = format!("{} runs already: its start is not seen here", seat.label());
            return skipped(&work, SkipReason::Server, detail);
        }
        let began = self.stage.options.clock.now();
        let report = match self.rated(work).await {
            Ok(work) => self.blocks(work, n_left).await,
            Err(error) => self.fail(empty(&work), &error),
        };
        self.spent += self.stage.options.clock.now().saturating_sub(began);
        report
    }

    /// A rate of arrivals that was not given: from what one request after the other takes on the slower arm.
    async fn rated(&mut self, work: ScenarioWork) -> Result<ScenarioWork, LoadError> {
        let ScenarioWork::Arrivals { n, per_second, seed, n_prompt, n_decode } = work else {
            return Ok(work);
        };
        if per_second > 0.0 {
            return Ok(work);
        }
        let one = ScenarioWork::Streams { n: 1, n_prompt, n_decode };
        let mut slowest = 0f64;
        for side in Side::BOTH {
            // The first one wakes what has to be awake, and tells nothing.
            for tells in [false, true] {
                let visit =
                    self.visit(&one, PlannedVisit { arm: side, side, request: 0 }, self.number).await?;
                self.number += 1;
                if tells {
                    slowest = slowest.max(visit.wall_ns as f64 / 1e9);
                }
            }
        }
        let per_second = two_digits(LOAD / slowest.max(1e-6));
        Ok(ScenarioWork::Arrivals { n, per_second, seed, n_prompt, n_decode })
    }

    async fn blocks(&mut self, work: ScenarioWork, n_left: usize) -> ScenarioReport {
        let mut report = empty(&work);
        let options = &self.stage.options.scenarios;
        let phase = Phase::Scenario(report.name.clone());
        self.stage.reporter.progress(&phase, 0, 1);
        let pace = match self.warm_up(&work).await {
            Ok(pace) => pace,
            Err(error) => return self.fail(report, &error),
        };
        let asked =
            Counts { n_aa: options.n_aa_blocks as usize, n_pilot: 0, n_ab: options.n_blocks as usize };
        let counts = match options.budget.map(|budget| budget.saturating_sub(self.spent)) {
            None => asked,
            Some(left) => {
                let counts = asked.fitted(pace, left / u32::try_from(n_left).unwrap_or(u32::MAX));
                if counts.time(pace) > left {
                    self.stage.reporter.progress(&phase, 1, 1);
                    let detail = format!(
                        "{LEAST} blocks take about {:.0} s, and {:.0} s are left for scenarios; --scenario {} takes its time",
                        counts.time(pace).as_secs_f64(),
                        left.as_secs_f64(),
                        kind_of(&work)
                    );
                    return skipped(&work, SkipReason::Time, detail);
                }
                counts
            }
        };
        let orders = block_orders(self.stage.options.seed, counts.n_ab);
        let mut planned = schedule::aa(!self.stage.options.seed, counts.n_aa, 1);
        planned.extend(schedule::ab(BlockKind::Ab, &orders, 1 + 2 * counts.n_aa));
        let failure = self.play(&work, &planned, &phase, &mut report.blocks).await;
        self.number += counts.n_requests();
        match failure {
            Some(error) => self.fail(report, &error),
            None => report,
        }
    }

    /// A visit to each arm that does not count; how long a block takes.
    async fn warm_up(&mut self, work: &ScenarioWork) -> Result<Duration, LoadError> {
        let began = self.stage.options.clock.now();
        for side in Side::BOTH {
            self.visit(work, PlannedVisit { arm: side, side, request: 0 }, self.number).await?;
        }
        Ok(2 * self.stage.options.clock.now().saturating_sub(began))
    }

    async fn play(
        &mut self,
        work: &ScenarioWork,
        planned: &[Planned],
        phase: &Phase,
        blocks: &mut Vec<ScenarioBlock>,
    ) -> Option<LoadError> {
        let total: u64 = planned.iter().map(|block| block.visits.len() as u64).sum();
        let mut n_done = 0;
        for planned in planned {
            let mut block = ScenarioBlock {
                kind: planned.kind,
                restart: 0,
                order: planned.order.clone(),
                visits: Vec::with_capacity(planned.visits.len()),
            };
            for visit in &planned.visits {
                self.stage.reporter.progress(phase, n_done, total);
                n_done += 1;
                match self.visit(work, *visit, self.number + visit.request).await {
                    Ok(visit) => block.visits.push(visit),
                    Err(error) => {
                        blocks.push(block);
                        self.stage.reporter.progress(phase, total, total);
                        return Some(error);
                    }
                }
            }
            blocks.push(block);
        }
        self.stage.reporter.progress(phase, total, total);
        None
    }

    async fn visit(
        &mut self,
        work: &ScenarioWork,
        planned: PlannedVisit,
        number: usize,
    ) -> Result<super::report::ScenarioVisit, LoadError> {
        self.seats[planned.arm.index()].visit(work, planned, number).await
    }

    /// Notes a failure; what is left is not done.
    fn fail(&mut self, report: ScenarioReport, error: &LoadError) -> ScenarioReport {
        let detail = duet_core::chain(error);
        self.stage.reporter.note(&format!("{}: {detail}", report.name));
        // Too few prompts are this scenario's affair; anything else is the arm's.
        if !matches!(error, LoadError::Option(_)) {
            self.failed = Some(detail.clone());
        }
        ScenarioReport { failure: Some(detail), ..report }
    }
}

/// The kind that the command line knows it by.
fn kind_of(work: &ScenarioWork) -> super::ScenarioKind {
    use super::ScenarioKind as Kind;
    match work {
        ScenarioWork::Streams { .. } => Kind::Streams,
        ScenarioWork::SharedPrefix { .. } => Kind::SharedPrefix,
        ScenarioWork::Arrivals { .. } => Kind::Arrivals,
        ScenarioWork::Load { .. } => Kind::Load,
        ScenarioWork::Idle { .. } => Kind::Idle,
    }
}

/// Rounded to two significant digits.
fn two_digits(value: f64) -> f64 {
    let power = 10f64.powf(value.abs().log10().floor() - 1.0);
    if power.is_finite() && power > 0.0 {
        // Through decimal digits, so that 3.3 is printed as such.
        format!("{:.10}", (value / power).round() * power).parse().unwrap_or(value)
    } else {
        value
    }
}
