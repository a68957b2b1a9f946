//! Steps: what is submitted, what is collected, who samples.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Instant;

use smallvec::SmallVec;

use super::super::generation::{After, Drawn, Generation};
use super::super::sampling_pool::sample_rows;
use super::super::scheduler::{Planned, PlannedRow, RowKind, StepLimits};
use super::ModelWorker;
use crate::error::BackendError;
use crate::runner::{ModelRunner, PlanRow, RowTokens, SeqId, StepId, StepOutput, StepPlan, Want};

/// Rows that a plan holds without an allocation.
const USUAL_ROWS: usize = 16;

type RowCounts = SmallVec<[u32; USUAL_ROWS]>;

struct InFlight {
    step: StepId,
    rows: Vec<PlannedRow>,
    /// Rows of logits that come back, by row.
    n_logits: RowCounts,
    /// Every token of this step is sampled on the device, so the next one may be started before it is read.
    all_on_device: bool,
    submitted: Instant,
}

/// What a collected step gave to a sequence.
pub(in super::super) type Token = Result<Drawn, BackendError>;

/// Steps in flight, and buffers that live as long as the worker, so that a step allocates nothing.
pub(super) struct Pipeline {
    max_tokens: u32,
    in_flight: VecDeque<InFlight>,
    spare_rows: Vec<Vec<PlannedRow>>,
    released: Vec<SeqId>,
    sampled: Vec<(SeqId, Token)>,
    last_collected: Option<Instant>,
}

impl Pipeline {
    /// `max_tokens`: most tokens of a step.
    pub(super) fn new(max_tokens: u32) -> Self {
        Self {
            max_tokens,
            in_flight: VecDeque::new(),
            spare_rows: Vec::new(),
            released: Vec::new(),
            sampled: Vec::new(),
            last_collected: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The oldest step that was not collected.
    pub(super) fn oldest(&self) -> Option<StepId> {
        self.in_flight.front().map(|step| step.step)
    }

    /// Forgets the oldest step.
    pub(super) fn pop(&mut self) -> Option<StepId> {
        self.in_flight.pop_front().map(|step| step.step)
    }

    fn has_row_of(&self, seq: SeqId) -> bool {
        self.in_flight.iter().any(|step| step.rows.iter().any(|row| row.seq == seq))
    }

    fn recycle(&mut self, mut rows: Vec<PlannedRow>) {
        rows.clear();
        self.spare_rows.push(rows);
    }
}

impl<R: ModelRunner> ModelWorker<R> {
    /// Submits steps while the engine takes more and there is something to run. `false`: something failed or was
    /// preempted, so that there may be more to do.
    pub(super) fn fill_pipeline(&mut self) -> bool {
        let depth = self.runner().capabilities().steps_in_flight as usize;
        while self.pipeline.in_flight.len() < depth {
            let run_ahead = match self.pipeline.in_flight.back() {
                None => false,
                Some(newest) if newest.all_on_device => true,
                Some(_) => return true,
            };
            let runner = self.runner.as_ref().expect("as in runner()");
            let limits = StepLimits {
                max_tokens: self.pipeline.max_tokens,
                n_cells_free: runner.capabilities().kv_tokens.saturating_sub(runner.n_cells_used()),
                run_ahead,
            };
            let mut rows = self.pipeline.spare_rows.pop().unwrap_or_default();
            match self.scheduler.plan(limits, &mut rows) {
                Planned::Step if self.submit(&rows) => {}
                Planned::Step => {
                    self.pipeline.recycle(rows);
                    return false;
                }
                Planned::Nothing => {
                    self.pipeline.recycle(rows);
                    return true;
                }
                Planned::NoCells => {
                    self.pipeline.recycle(rows);
                    if self.find_cells() {
                        continue;
                    }
                    return !self.pipeline.is_empty();
                }
            }
        }
        true
    }

    /// Somebody could run and there are no cells: drops a kept prefix, else preempts somebody. `false`: nothing could be
    /// done now; with a step in flight it may after that, without one a request was failed.
    fn find_cells(&mut self) -> bool {
        let runner = self.runner.as_mut().expect("as in runner()");
        if self.prefixes.evict(runner, None) {
            return true;
        }
        if !self.pipeline.is_empty() {
            return false; // its end may free cells, and nobody in it can be preempted
        }
        if let Some(victim) = self.scheduler.victim() {
            tracing::debug!(seq = victim.0, "preempted for want of KV cells");
            self.preempt(victim);
            return true;
        }
        // Cannot be, as a request alone always fits; if it is all the same, nobody must hang.
        if let Some(index) = self.running.iter().position(Option::is_some) {
            self.fail(SeqId(index as u32), BackendError::engine("decode", "the KV cache has no room"));
        }
        false
    }

    /// `false`: the step failed, and so did its requests.
    fn submit(&mut self, rows: &[PlannedRow]) -> bool {
        let mut wants: SmallVec<[Want; USUAL_ROWS]> = SmallVec::new();
        let (mut all_on_device, mut n_logits) = (true, RowCounts::new());
        for row in rows {
            let generation =
                self.running[row.seq.0 as usize].as_mut().expect("rows only for running sequences");
            generation.saw_batch(rows.len() as u32);
            let want = match row.yields_token() {
                _ if generation.wants_scores(row.position + row.n_tokens) => Want::AllLogits,
                false => Want::Nothing,
                true => generation.next_on_device().map_or(Want::LastLogits, Want::Token),
            };
            let n = want.n_logits(row.n_tokens as usize) as u32;
            all_on_device &= n == 0;
            n_logits.push(n);
            wants.push(want);
        }
        let plan: SmallVec<[PlanRow<'_>; USUAL_ROWS]> =
            rows.iter().zip(wants).map(|(row, want)| plan_row(row, want, &self.running)).collect();
        let submitted = Instant::now();
        let result = self.runner.as_mut().expect("as in runner()").submit(StepPlan { rows: &plan });
        drop(plan);
        match result {
            Ok(step) => {
                self.scheduler.submitted(step, rows);
                let mut copy = self.pipeline.spare_rows.pop().unwrap_or_default();
                copy.extend_from_slice(rows);
                self.pipeline.in_flight.push_back(InFlight {
                    step,
                    rows: copy,
                    n_logits,
                    all_on_device,
                    submitted,
                });
                true
            }
            Err(error) => {
                self.step_failed(rows, &error);
                false
            }
        }
    }

    /// A step did not happen: its requests get an error, the others go on.
    fn step_failed(&mut self, rows: &[PlannedRow], error: &BackendError) {
        tracing::error!(error = %error.chain(), "a step failed");
        if let BackendError::EngineCrashed { detail } = error {
            use super::super::thread::Worker;
            self.crashed(detail);
        }
        for row in rows {
            self.fail(row.seq, BackendError::engine("decode", error.chain()));
        }
    }

    /// Collects the oldest step and gives its tokens to their requests.
    pub(super) fn collect(&mut self) {
        let Some(InFlight { step, rows, n_logits, submitted, .. }) = self.pipeline.in_flight.pop_front()
        else {
            return;
        };
        let mut sampled = std::mem::take(&mut self.pipeline.sampled);
        let runner = self.runner.as_mut().expect("as in runner()");
        let collected = runner.collect();
        let now = Instant::now();
        let failure = match collected {
            Ok(output) => {
                sample(&rows, &n_logits, &output, &mut self.running, &mut sampled);
                None
            }
            Err(error) => Some(error),
        };
        // A step that waited for the one before it took from that one's end on.
        let began = self.pipeline.last_collected.map_or(submitted, |last| last.max(submitted));
        self.pipeline.last_collected = Some(now);
        self.scheduler.took(&rows, now.saturating_duration_since(began).as_secs_f64());
        self.release_departed(step, &rows);
        match &failure {
            Some(error) => self.step_failed(&rows, error),
            None => {
                let is_token = |(_, token): &&(SeqId, Token)| matches!(token, Ok(Drawn::Token(..)));
                self.count(&rows, sampled.iter().filter(is_token).count());
            }
        }
        let now = Instant::now();
        for (seq, token) in sampled.drain(..) {
            self.give_token(seq, token, now);
        }
        self.pipeline.sampled = sampled;
        self.pipeline.recycle(rows);
    }

    fn release_departed(&mut self, step: StepId, rows: &[PlannedRow]) {
        let mut released = std::mem::take(&mut self.pipeline.released);
        self.scheduler.collected(step, rows, &mut released);
        for seq in released.drain(..) {
            let tokens =
                self.departed[seq.0 as usize].take().map_or_else(Vec::new, |departed| departed.tokens);
            self.release(seq, tokens);
        }
        self.pipeline.released = released;
    }

    fn count(&self, rows: &[PlannedRow], n_sampled: usize) {
        let n_prompt: u32 = rows
            .iter()
            .filter(|row| matches!(row.kind, RowKind::Prefill { .. }))
            .map(|row| row.n_tokens)
            .sum();
        self.shared.n_prompt_tokens.fetch_add(u64::from(n_prompt), Ordering::Relaxed);
        self.shared.n_completion_tokens.fetch_add(n_sampled as u64, Ordering::Relaxed);
    }

    /// Rows whose masks were late and have come.
    pub(super) fn sample_late(&mut self) {
        for index in 0..self.running.len() {
            let late = self.running[index].as_mut().and_then(Generation::sample_late);
            if let Some(token) = late {
                let n = u64::from(matches!(token, Ok(Drawn::Token(..))));
                self.shared.n_completion_tokens.fetch_add(n, Ordering::Relaxed);
                self.give_token(SeqId(index as u32), token, Instant::now());
            }
        }
    }

    fn give_token(&mut self, seq: SeqId, token: Token, now: Instant) {
        // Without a token nothing is known, and the sequence stays out of the batch.
        if matches!(token, Ok(Drawn::Late)) {
            return;
        }
        let newest = !self.pipeline.has_row_of(seq);
        self.scheduler.token_known(seq, newest);
        let Some(generation) = self.running[seq.0 as usize].as_mut() else { return };
        match token {
            Err(error) => self.fail(seq, error),
            Ok(Drawn::Late) => {}
            Ok(Drawn::End(reason)) => self.finish(seq, reason),
            Ok(Drawn::Token(id, logprobs)) => match generation.accept(id, logprobs, now) {
                After::Continue => {}
                After::Finished(reason) => self.finish(seq, reason),
            },
        }
    }
}

fn plan_row<'a>(row: &PlannedRow, want: Want, running: &'a [Option<Generation>]) -> PlanRow<'a> {
    let generation = running[row.seq.0 as usize].as_ref().expect("rows only for running sequences");
    let tokens = match row.kind {
        RowKind::Prefill { .. } => {
            let start = row.position as usize;
            RowTokens::Host(&generation.tokens()[start..start + row.n_tokens as usize])
        }
        RowKind::Decode { in_flight: true } => RowTokens::Previous,
        RowKind::Decode { in_flight: false } => RowTokens::Host(generation.newest()),
    };
    PlanRow { seq: row.seq, position: row.position, tokens, want }
}

/// The tokens of a step's rows, in their order; rows whose request is gone give none.
fn sample(
    rows: &[PlannedRow],
    n_logits: &[u32],
    output: &StepOutput<'_>,
    running: &mut [Option<Generation>],
    sampled: &mut Vec<(SeqId, Token)>,
) {
    let mut first = 0;
    let mut on_host: SmallVec<[(SeqId, usize); USUAL_ROWS]> = SmallVec::new();
    for (index, row) in rows.iter().enumerate() {
        let end = first + n_logits[index] as usize;
        let own = first..end;
        first = end;
        // Gone meanwhile: cancelled, or stopped by the step before.
        let Some(generation) = running[row.seq.0 as usize].as_mut() else { continue };
        if generation.wants_scores(row.position + row.n_tokens) {
            let logits = &output.logits[own.start * output.n_vocab..own.end * output.n_vocab];
            generation.score(row.position, logits, output.n_vocab);
        }
        match output.tokens[index] {
            _ if !row.yields_token() => {}
            Some(token) => sampled.push((row.seq, Ok(Drawn::Token(token, None)))),
            None => on_host.push((row.seq, own.end - 1)),
        }
    }
    sample_rows(&on_host, output, running, sampled);
}
