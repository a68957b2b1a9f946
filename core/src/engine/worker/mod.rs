//! The loop on the engine's thread: look after requests → admit → plan → submit → collect → sample → emit.

mod admission;
mod step;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::drain::DrainRate;
use super::embedding::{EmbeddingJob, Embeddings};
use super::generation::{Generation, Submission};
use super::prefixes::Prefixes;
use super::scheduler::{ANSWER_RESERVE, CatchUp, Scheduler, SchedulerSettings, Ticket};
use super::thread::{Tick, Worker, earliest};
use super::{EngineState, Shared};
use crate::backend::{LoadSpec, RunnerJob};
use crate::error::BackendError;
use crate::event::{FinishReason, StopCause};
use crate::prefix::{FetchError, ModelKey};
use crate::runner::{ModelRunner, SeqId, SequenceSnapshot};
use crate::text::{TokenId, Tokenizer};
use step::Pipeline;
pub(super) use step::Token;

/// Everything that can reach a model's loop from outside.
pub(super) enum Message {
    /// A request, already checked.
    Generate(Box<Submission>),
    /// A prefix that a waiting request asked the host tier for.
    Fetched(u64, Result<Arc<SequenceSnapshot>, FetchError>),
    /// A job that wants the runner for itself.
    Exclusive(RunnerJob, oneshot::Sender<()>),
    /// Texts whose vectors are wanted, already checked.
    Embed(EmbeddingJob),
    /// End everything and free the model; the answer comes when it is freed.
    Shutdown(Option<oneshot::Sender<()>>),
}

/// Puts a message into the loop's inbox and wakes it, from any thread.
pub(super) type Post = Arc<dyn Fn(Message) + Send + Sync>;

/// A sequence whose request is over while a step of it is in flight.
struct Departed {
    tokens: Vec<TokenId>,
}

pub(super) struct ModelWorker<R> {
    runner: Option<R>,
    inbox: Receiver<Message>,
    post: Post,
    shared: Arc<Shared>,
    tokenizer: Arc<dyn Tokenizer>,
    scheduler: Scheduler,
    prefixes: Prefixes,
    drain: DrainRate,
    waiting: HashMap<u64, Generation>,
    running: Vec<Option<Generation>>,
    /// By sequence: what to keep of it when its last step has come in.
    departed: Vec<Option<Departed>>,
    n_tickets: u64,
    pipeline: Pipeline,
    exclusive: VecDeque<(RunnerJob, oneshot::Sender<()>)>,
    embeddings: Embeddings,
    shutdown: Option<Option<oneshot::Sender<()>>>,
    // Lives as long as the worker, so that a step allocates nothing.
    catch_ups: Vec<CatchUp>,
}

impl<R: ModelRunner> ModelWorker<R> {
    pub(super) fn new(
        runner: R,
        inbox: Receiver<Message>,
        post: Post,
        shared: Arc<Shared>,
        spec: &LoadSpec,
        key: ModelKey,
    ) -> Self {
        let capabilities = runner.capabilities();
        let n = capabilities.max_sequences;
        Self {
            scheduler: Scheduler::new(SchedulerSettings {
                max_sequences: n,
                kv_tokens: capabilities.kv_tokens,
                slowdown: spec.stream_slowdown,
                answer_reserve: ANSWER_RESERVE,
            }),
            prefixes: Prefixes::new(&spec.prefix_cache, key, capabilities),
            pipeline: Pipeline::new(spec.prefill_chunk.clamp(1, capabilities.max_step_tokens)),
            drain: DrainRate::default(),
            inbox,
            post,
            shared,
            tokenizer: spec.tokenizer.clone(),
            waiting: HashMap::new(),
            running: (0..n).map(|_| None).collect(),
            departed: (0..n).map(|_| None).collect(),
            n_tickets: 0,
            exclusive: VecDeque::new(),
            embeddings: Embeddings::new(spec.stream_slowdown),
            shutdown: None,
            catch_ups: Vec::new(),
            runner: Some(runner),
        }
    }

    fn runner(&mut self) -> &mut R {
        self.runner.as_mut().expect("the runner is there until shutdown, after which no tick comes")
    }

    fn read_inbox(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(Message::Generate(submission)) => self.enqueue(*submission),
                Ok(Message::Fetched(key, result)) => self.fetched(key, result),
                Ok(Message::Exclusive(job, done)) => self.exclusive.push_back((job, done)),
                Ok(Message::Embed(job)) => self.embeddings.push(job),
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

    fn enqueue(&mut self, submission: Submission) {
        let key = self.n_tickets;
        self.n_tickets += 1;
        let runner = self.runner.as_ref().expect("as in runner()");
        let generation =
            Generation::new(submission, &self.tokenizer, runner.capabilities(), runner.n_vocab());
        self.scheduler.enqueue(Ticket {
            key,
            n_prompt: generation.tokens().len() as u32,
            max_tokens: generation.request().max_tokens,
            priority: generation.request().priority,
        });
        self.waiting.insert(key, generation);
    }

    /// Ends what its reader has left or had enough of, what is overdue, and parks or resumes slow readers. Gives the next
    /// deadline.
    fn look_after_requests(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let next = self.look_after_waiting(now);
        earliest(next, self.look_after_running(now))
    }

    fn look_after_waiting(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        let mut over = Vec::new(); // allocates only when somebody goes
        for (key, generation) in &mut self.waiting {
            if generation.is_cancelled() || generation.is_stopped() || generation.overdue(now).is_some() {
                over.push(*key);
                continue;
            }
            // Preempted while its reader stood still: its turn comes when the reader has caught up.
            if generation.parking_change(now) == Some(false) {
                self.scheduler.set_held(*key, false);
            }
            next = earliest(next, generation.deadline());
        }
        for key in over {
            self.scheduler.withdraw(key);
            let Some(generation) = self.waiting.remove(&key) else { continue };
            self.leave_queue();
            match generation.overdue(now) {
                _ if generation.is_cancelled() => self.count_cancelled(),
                Some(error) => generation.fail(error),
                None => generation.finish(FinishReason::Length), // the reader knows why it wanted no more
            }
        }
        next
    }

    fn look_after_running(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for index in 0..self.running.len() {
            let Some(generation) = self.running[index].as_mut() else { continue };
            let seq = SeqId(index as u32);
            if generation.is_cancelled() {
                self.count_cancelled();
                self.depart(seq);
            } else if generation.is_stopped() {
                self.finish(seq, FinishReason::Length); // the reader knows why it wanted no more
            } else if let Some(error) = generation.overdue(now) {
                self.fail(seq, error);
            } else if generation.is_whole() {
                self.finish(seq, FinishReason::Stop(StopCause::Constraint));
            } else {
                // Twice: the reader may have caught up just before the flag was up.
                for _ in 0..2 {
                    if let Some(parked) = generation.parking_change(now) {
                        self.scheduler.set_parked(seq, parked);
                    }
                }
                next = earliest(next, generation.deadline());
            }
        }
        next
    }

    fn leave_queue(&self) {
        self.shared.n_waiting.fetch_sub(1, Ordering::AcqRel);
    }

    fn count_cancelled(&self) {
        self.shared.n_cancelled.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(&mut self, seq: SeqId, reason: FinishReason) {
        // Free first: whoever sees the last event may rely on the sequence being free.
        if let Some(generation) = self.depart(seq) {
            self.publish();
            generation.finish(reason);
        }
    }

    fn fail(&mut self, seq: SeqId, error: BackendError) {
        if let Some(generation) = self.depart(seq) {
            self.publish();
            generation.fail(error);
        }
    }

    /// Takes a request out of its sequence, whose cells are kept as a prefix or freed, at once or after its last step.
    fn depart(&mut self, seq: SeqId) -> Option<Generation> {
        self.hand_over_to_followers(seq);
        let generation = self.running[seq.0 as usize].take()?;
        let tokens = if generation.may_share() { generation.tokens().to_vec() } else { Vec::new() };
        if self.scheduler.finish(seq, self.pipeline.oldest()) {
            self.release(seq, tokens);
        } else {
            self.departed[seq.0 as usize] = Some(Departed { tokens });
        }
        self.drain.ended(Instant::now());
        Some(generation)
    }

    fn release(&mut self, seq: SeqId, tokens: Vec<TokenId>) {
        let runner = self.runner.as_mut().expect("as in runner()");
        self.prefixes.keep(runner, seq, tokens);
    }

    /// Counters for other threads.
    fn publish(&mut self) {
        let n_running = self.scheduler.n_running();
        if let Some(runner) = self.runner.as_ref() {
            self.shared.n_running.store(n_running, Ordering::Release);
            self.shared.n_cells_used.store(runner.n_cells_used(), Ordering::Release);
            self.shared.n_forward_passes.store(runner.n_forward_passes(), Ordering::Release);
        }
        self.shared.set_drain_interval(self.drain.interval());
    }

    /// Evaluates a part of a text whose vector is wanted, if that is due. Gives how long it took.
    fn embed(&mut self) -> Option<Duration> {
        let runner = self.runner.as_mut().expect("as in runner()");
        let (n_tokens, took) = self.embeddings.step(runner, self.pipeline.is_empty())?;
        self.shared.n_prompt_tokens.fetch_add(n_tokens as u64, Ordering::Relaxed);
        Some(took)
    }

    fn run_exclusive(&mut self) {
        let runner = self.runner.as_mut().expect("as in runner()");
        self.prefixes.clear(runner);
        while let Some((job, done)) = self.exclusive.pop_front() {
            let runner: &mut dyn ModelRunner = self.runner();
            job(runner);
            let capabilities = runner.capabilities();
            for seq in 0..capabilities.max_sequences + capabilities.n_holders {
                runner.release(SeqId(seq));
            }
            let memory = runner.memory();
            self.shared.set_memory(memory);
            self.publish();
            let _ = done.send(());
        }
    }

    fn shut_down(&mut self, done: Option<oneshot::Sender<()>>) {
        self.shared.set_state(EngineState::Stopped);
        while self.pipeline.pop().is_some() {
            let _ = self.runner().collect(); // nothing of it is wanted any more
        }
        self.end_all(|| BackendError::ShuttingDown);
        if let Some(runner) = self.runner.as_mut() {
            self.prefixes.persist(runner, super::PERSIST_TIMEOUT);
        }
        self.runner = None;
        self.shared.n_running.store(0, Ordering::Release);
        self.shared.n_cells_used.store(0, Ordering::Release);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    fn end_all(&mut self, error: impl Fn() -> BackendError) {
        for generation in self.running.iter_mut().filter_map(Option::take) {
            generation.fail(error());
        }
        for (_, generation) in self.waiting.drain() {
            self.shared.n_waiting.fetch_sub(1, Ordering::AcqRel);
            generation.fail(error());
        }
        // What was sent after the state changed and before the inbox goes.
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Generate(submission) => {
                    self.shared.n_waiting.fetch_sub(1, Ordering::AcqRel);
                    submission.fail(error());
                }
                // The dropped answer tells.
                Message::Exclusive(..) | Message::Embed(_) | Message::Fetched(..) => {}
                Message::Shutdown(done) => {
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }
            }
        }
        self.exclusive.clear();
        self.embeddings.clear();
    }
}

impl<R: ModelRunner> Worker for ModelWorker<R> {
    fn tick(&mut self) -> Tick {
        self.read_inbox();
        if let Some(done) = self.shutdown.take() {
            self.shut_down(done);
            return Tick::Done;
        }
        let deadline = self.look_after_requests();
        self.sample_late();
        if self.exclusive.is_empty() {
            self.admit();
        } // else let the running ones end first
        self.serve_followers();
        let started = Instant::now();
        let all_went_well = self.fill_pipeline();
        let embedded = self.embed();
        if !self.pipeline.is_empty() {
            self.collect();
            self.publish();
            self.embeddings.streams_ran(started.elapsed().saturating_sub(embedded.unwrap_or_default()));
            return Tick::Busy;
        }
        if !all_went_well || embedded.is_some() {
            return Tick::Busy;
        }
        if !self.exclusive.is_empty() && self.scheduler.n_running() == 0 {
            self.run_exclusive();
            return Tick::Busy;
        }
        self.publish();
        self.drain.idle();
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
