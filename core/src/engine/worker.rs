//! The loop on the engine's thread: admit → plan → submit → collect → sample → emit.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use tokio::sync::oneshot;

use super::generation::{After, Generation, Submission};
use super::scheduler::{PlannedRow, RowKind, Scheduler, Ticket};
use super::thread::{Tick, Worker, earliest};
use super::{EngineState, Shared};
use crate::backend::RunnerJob;
use crate::error::BackendError;
use crate::event::FinishReason;
use crate::runner::{ModelRunner, PlanRow, RowTokens, SeqId, StepId, StepPlan, Want};
use crate::sampling::TokenLogprobs;
use crate::text::{TokenId, Tokenizer};

/// Everything that can reach a model's loop from outside.
pub(super) enum Message {
    /// A request, already checked.
    Generate(Box<Submission>),
    /// A job that wants the runner for itself.
    Exclusive(RunnerJob, oneshot::Sender<()>),
    /// End everything and free the model; the answer comes when it is freed.
    Shutdown(Option<oneshot::Sender<()>>),
}

struct InFlight {
    step: StepId,
    rows: Vec<PlannedRow>,
    /// Every token of this step is sampled on the device, so the next one may be started before it is read.
    all_on_device: bool,
}

/// A token that a collected step gave to a sequence.
struct Sampled {
    seq: SeqId,
    result: Result<(TokenId, Option<TokenLogprobs>), BackendError>,
}

pub(super) struct ModelWorker<R> {
    runner: Option<R>,
    inbox: Receiver<Message>,
    shared: Arc<Shared>,
    tokenizer: Arc<dyn Tokenizer>,
    prefill_chunk: u32,
    scheduler: Scheduler,
    waiting: HashMap<u64, Submission>,
    running: Vec<Option<Generation>>,
    n_tickets: u64,
    in_flight: VecDeque<InFlight>,
    exclusive: VecDeque<(RunnerJob, oneshot::Sender<()>)>,
    shutdown: Option<Option<oneshot::Sender<()>>>,
    // Buffers that live as long as the worker, so that a step allocates nothing.
    spare_rows: Vec<Vec<PlannedRow>>,
    released: Vec<SeqId>,
    sampled: Vec<Sampled>,
}

impl<R: ModelRunner> ModelWorker<R> {
    pub(super) fn new(
        runner: R,
        inbox: Receiver<Message>,
        shared: Arc<Shared>,
        tokenizer: Arc<dyn Tokenizer>,
        prefill_chunk: u32,
    ) -> Self {
        let capabilities = runner.capabilities();
        let n = capabilities.max_sequences;
        Self {
            scheduler: Scheduler::new(n, capabilities.kv_tokens),
            prefill_chunk: prefill_chunk.clamp(1, capabilities.max_step_tokens),
            runner: Some(runner),
            inbox,
            shared,
            tokenizer,
            waiting: HashMap::new(),
            running: (0..n).map(|_| None).collect(),
            n_tickets: 0,
            in_flight: VecDeque::new(),
            exclusive: VecDeque::new(),
            shutdown: None,
            spare_rows: Vec::new(),
            released: Vec::new(),
            sampled: Vec::new(),
        }
    }

    fn runner(&mut self) -> &mut R {
        self.runner.as_mut().expect("the runner is there until shutdown, after which no tick comes")
    }

    fn read_inbox(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(Message::Generate(submission)) => {
                    let key = self.n_tickets;
                    self.n_tickets += 1;
                    self.scheduler.enqueue(Ticket {
                        key,
                        n_prompt: submission.request.prompt.len() as u32,
                        max_tokens: submission.request.max_tokens,
                    });
                    self.waiting.insert(key, *submission);
                }
                Ok(Message::Exclusive(job, done)) => self.exclusive.push_back((job, done)),
                Ok(Message::Shutdown(done)) => self.shutdown = Some(done),
                Err(std::sync::mpsc::TryRecvError::Empty) => return,
                // The last handle is gone without a word: nobody can be waiting for an answer either.
                Err(std::sync::mpsc::TryRecvError::Disconnected) => {
                    self.shutdown.get_or_insert(None);
                    return;
                }
            }
        }
    }

    /// Ends what its reader has left, what is overdue, and parks or resumes slow readers. Gives the next deadline.
    fn look_after_requests(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut next = None;
        let overdue: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, submission)| {
                let deadline = submission.request.deadline;
                next = earliest(next, deadline);
                submission.is_cancelled() || deadline.is_some_and(|deadline| deadline <= now)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in overdue {
            self.scheduler.withdraw(key);
            if let Some(submission) = self.waiting.remove(&key) {
                self.leave_queue();
                if submission.is_cancelled() {
                    self.count_cancelled();
                } else {
                    submission.fail(BackendError::DeadlineExceeded);
                }
            }
        }
        for index in 0..self.running.len() {
            let Some(generation) = self.running[index].as_mut() else { continue };
            let seq = SeqId(index as u32);
            if generation.is_cancelled() {
                self.count_cancelled();
                self.running[index] = None;
                self.free(seq);
            } else if let Some(error) = generation.overdue(now) {
                self.fail(seq, error);
            } else {
                if let Some(parked) = generation.parking_change(now) {
                    self.scheduler.set_parked(seq, parked);
                }
                // Again after the flag is up: the reader may have caught up just before it.
                if let Some(parked) = generation.parking_change(now) {
                    self.scheduler.set_parked(seq, parked);
                }
                next = earliest(next, generation.deadline());
            }
        }
        next
    }

    fn admit(&mut self) {
        if !self.exclusive.is_empty() {
            return; // let the running ones end first
        }
        while let Some((key, seq)) = self.scheduler.admit() {
            let submission = self.waiting.remove(&key).expect("every ticket has its submission");
            self.leave_queue();
            let runner = self.runner.as_ref().expect("as in runner()");
            let generation =
                Generation::new(submission, &self.tokenizer, runner.capabilities(), runner.n_vocab());
            self.running[seq.0 as usize] = Some(generation);
        }
    }

    fn leave_queue(&self) {
        self.shared.n_waiting.fetch_sub(1, Ordering::AcqRel);
    }

    fn count_cancelled(&self) {
        self.shared.n_cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// Submits steps while the engine takes more and there is something to run. `false`: a step failed, which freed
    /// sequences, so that there may be more to do.
    fn fill_pipeline(&mut self) -> bool {
        let depth = self.runner().capabilities().steps_in_flight as usize;
        while self.in_flight.len() < depth {
            let run_ahead = match self.in_flight.back() {
                None => false,
                Some(newest) if newest.all_on_device => true,
                Some(_) => return true,
            };
            let mut rows = self.spare_rows.pop().unwrap_or_default();
            self.scheduler.plan(self.prefill_chunk, run_ahead, &mut rows);
            if rows.is_empty() {
                self.spare_rows.push(rows);
                return true;
            }
            if !self.submit(rows) {
                return false;
            }
        }
        true
    }

    fn submit(&mut self, rows: Vec<PlannedRow>) -> bool {
        let mut wants = Vec::with_capacity(rows.len());
        let mut all_on_device = true;
        for row in &rows {
            let generation =
                self.running[row.seq.0 as usize].as_mut().expect("rows only for running sequences");
            generation.saw_batch(rows.len() as u32);
            let want = match row.yields_token() {
                false => Want::Nothing,
                true => generation.next_on_device().map_or(Want::LastLogits, Want::Token),
            };
            all_on_device &= want != Want::LastLogits;
            wants.push(want);
        }
        let plan: Vec<PlanRow<'_>> = rows
            .iter()
            .zip(wants)
            .map(|(row, want)| {
                let generation = self.running[row.seq.0 as usize].as_ref().expect("as above");
                let tokens = match row.kind {
                    RowKind::Prefill { .. } => {
                        let start = row.position as usize;
                        RowTokens::Host(&generation.prompt()[start..start + row.n_tokens as usize])
                    }
                    RowKind::Decode { in_flight: true } => RowTokens::Previous,
                    RowKind::Decode { in_flight: false } => {
                        RowTokens::Host(std::slice::from_ref(generation.newest()))
                    }
                };
                PlanRow { seq: row.seq, position: row.position, tokens, want }
            })
            .collect();
        let result = self.runner.as_mut().expect("as in runner()").submit(StepPlan { rows: &plan });
        drop(plan);
        match result {
            Ok(step) => {
                self.scheduler.submitted(step, &rows);
                self.in_flight.push_back(InFlight { step, rows, all_on_device });
                true
            }
            Err(error) => {
                self.step_failed(&rows, &error);
                self.recycle(rows);
                false
            }
        }
    }

    fn recycle(&mut self, mut rows: Vec<PlannedRow>) {
        rows.clear();
        self.spare_rows.push(rows);
    }

    /// A step did not happen: its requests get an error, the others go on.
    fn step_failed(&mut self, rows: &[PlannedRow], error: &BackendError) {
        tracing::error!(error = %error.chain(), "a step failed");
        if let BackendError::EngineCrashed { detail } = error {
            self.crashed(detail);
        }
        for row in rows {
            self.fail(row.seq, BackendError::engine("decode", error.chain()));
        }
    }

    /// Collects the oldest step and gives its tokens to their requests.
    fn collect(&mut self) {
        let Some(InFlight { step, rows, .. }) = self.in_flight.pop_front() else { return };
        let mut sampled = std::mem::take(&mut self.sampled);
        let runner = self.runner.as_mut().expect("as in runner()");
        let failure = match runner.collect() {
            Ok(output) => {
                let mut n_logits = 0;
                for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.yields_token()) {
                    let logits = match output.tokens[index] {
                        Some(_) => None,
                        None => {
                            n_logits += 1;
                            Some(output.row(n_logits - 1))
                        }
                    };
                    // Gone meanwhile: cancelled, or stopped by the step before.
                    let Some(generation) = self.running[row.seq.0 as usize].as_mut() else { continue };
                    let result = match (logits, output.tokens[index]) {
                        (Some(logits), _) => generation.sample(logits),
                        (None, token) => Ok((token.unwrap_or_default(), None)),
                    };
                    sampled.push(Sampled { seq: row.seq, result });
                }
                None
            }
            Err(error) => Some(error),
        };
        let mut released = std::mem::take(&mut self.released);
        self.scheduler.collected(step, &mut released);
        for &seq in &released {
            self.runner().release(seq);
        }
        self.released = released;
        if let Some(error) = failure {
            self.step_failed(&rows, &error);
        }
        let now = Instant::now();
        for Sampled { seq, result } in sampled.drain(..) {
            self.give_token(seq, result, now);
        }
        self.sampled = sampled;
        self.recycle(rows);
    }

    fn give_token(
        &mut self,
        seq: SeqId,
        result: Result<(TokenId, Option<TokenLogprobs>), BackendError>,
        now: Instant,
    ) {
        let newest = !self.in_flight.iter().any(|step| step.rows.iter().any(|row| row.seq == seq));
        self.scheduler.token_known(seq, newest);
        let Some(generation) = self.running[seq.0 as usize].as_mut() else { return };
        match result {
            Err(error) => self.fail(seq, error),
            Ok((id, logprobs)) => match generation.accept(id, logprobs, now) {
                After::Continue => {}
                After::Finished(reason) => self.finish(seq, reason),
            },
        }
    }

    fn finish(&mut self, seq: SeqId, reason: FinishReason) {
        if let Some(generation) = self.running[seq.0 as usize].take() {
            // Free first: whoever sees the last event may rely on the sequence being free.
            self.free(seq);
            self.publish();
            generation.finish(reason);
        }
    }

    fn fail(&mut self, seq: SeqId, error: BackendError) {
        if let Some(generation) = self.running[seq.0 as usize].take() {
            self.free(seq);
            self.publish();
            generation.fail(error);
        }
    }

    fn free(&mut self, seq: SeqId) {
        let oldest = self.in_flight.front().map(|step| step.step);
        if self.scheduler.finish(seq, oldest) {
            self.runner().release(seq);
        }
    }

    /// Counters for other threads.
    fn publish(&mut self) {
        let n_running = self.scheduler.n_running();
        if let Some(runner) = self.runner.as_ref() {
            self.shared.n_running.store(n_running, Ordering::Release);
            self.shared.n_cells_used.store(runner.n_cells_used(), Ordering::Release);
            self.shared.n_forward_passes.store(runner.n_forward_passes(), Ordering::Release);
        }
    }

    fn run_exclusive(&mut self) {
        while let Some((job, done)) = self.exclusive.pop_front() {
            let runner: &mut dyn ModelRunner = self.runner();
            job(runner);
            for seq in 0..runner.capabilities().max_sequences {
                runner.release(SeqId(seq));
            }
            self.publish();
            let _ = done.send(());
        }
    }

    fn end_all(&mut self, error: impl Fn() -> BackendError) {
        for generation in self.running.iter_mut().filter_map(Option::take) {
            generation.fail(error());
        }
        for (_, submission) in self.waiting.drain() {
            self.shared.n_waiting.fetch_sub(1, Ordering::AcqRel);
            submission.fail(error());
        }
        // What was sent after the state changed and before the inbox goes.
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Generate(submission) => {
                    self.shared.n_waiting.fetch_sub(1, Ordering::AcqRel);
                    submission.fail(error());
                }
                Message::Exclusive(..) => {} // the dropped answer tells
                Message::Shutdown(done) => {
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }
            }
        }
        self.exclusive.clear();
    }
}

impl<R: ModelRunner> Worker for ModelWorker<R> {
    fn tick(&mut self) -> Tick {
        self.read_inbox();
        if let Some(done) = self.shutdown.take() {
            self.shared.set_state(EngineState::Stopped);
            while self.in_flight.pop_front().is_some() {
                let _ = self.runner().collect(); // nothing of it is wanted any more
            }
            self.end_all(|| BackendError::ShuttingDown);
            self.runner = None;
            self.shared.n_running.store(0, Ordering::Release);
            self.shared.n_cells_used.store(0, Ordering::Release);
            if let Some(done) = done {
                let _ = done.send(());
            }
            return Tick::Done;
        }
        let deadline = self.look_after_requests();
        self.admit();
        let all_went_well = self.fill_pipeline();
        if !self.in_flight.is_empty() {
            self.collect();
            self.publish();
            return Tick::Busy;
        }
        if !all_went_well {
            return Tick::Busy;
        }
        if !self.exclusive.is_empty() && self.scheduler.n_running() == 0 {
            self.run_exclusive();
            return Tick::Busy;
        }
        self.publish();
        let memory = self.runner().memory();
        self.shared.set_memory(memory);
        Tick::Idle(deadline)
    }

    fn crashed(&mut self, message: &str) {
        tracing::error!(message, "the engine's loop panicked");
        self.shared.set_state(EngineState::Crashed);
        let detail = message.to_owned();
        self.end_all(|| BackendError::EngineCrashed { detail: detail.clone() });
    }
}
