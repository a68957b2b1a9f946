//! A [`LoadedModel`] over any [`ModelRunner`]: queue, scheduling, sampling, text and streams, once for both engines.
//!
//! Down by calls and one queue per model, up by one stream per request; nobody calls back. All work on a model happens
//! on its engine's thread, in [`worker`]; what other threads may read of it are the atomics in [`Shared`].

mod drain;
mod embedding;
mod fingerprint;
mod generation;
mod prefixes;
mod sampling_pool;
pub mod scheduler;
mod thread;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::oneshot;

use embedding::{EmbeddingJob, Place};
pub(crate) use generation::StreamControl;
use generation::Submission;
pub use thread::EngineThread;
use worker::{Message, ModelWorker, Post};

use crate::backend::{EngineLoad, Health, LoadProgress, LoadSpec, LoadedInfo, LoadedModel, RunnerJob};
use crate::constraint::{Constraint, ConstraintCompiler, ConstraintError, ConstraintSpec};
use crate::embedding::Pooling;
use crate::error::BackendError;
use crate::request::GenerateRequest;
use crate::runner::{Capabilities, MemoryReport, ModelRunner};
use crate::stream::GenerationStream;
use crate::text::{TokenId, Tokenizer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EngineState {
    Running = 0,
    Stopped = 1,
    Crashed = 2,
}

/// When to try again while nobody knows how fast requests end.
const UNKNOWN_DRAIN: Duration = Duration::from_secs(1);
/// How long the end of a model may take for writing its prefixes to disk.
const PERSIST_TIMEOUT: Duration = Duration::from_secs(20);

/// What any thread may read of a model's loop.
struct Shared {
    state: AtomicU8,
    n_waiting: AtomicUsize,
    n_running: AtomicUsize,
    n_cells_used: AtomicU32,
    n_forward_passes: AtomicU64,
    n_cancelled: AtomicU64,
    n_prompt_tokens: AtomicU64,
    n_completion_tokens: AtomicU64,
    n_prefix_queried: AtomicU64,
    n_prefix_hits: AtomicU64,
    n_preempted: AtomicU64,
    /// Requests for vectors that are not answered.
    n_embedding: AtomicUsize,
    /// Microseconds from the end of one request to the end of the next; 0 before that is known.
    drain_interval_us: AtomicU64,
    memory: Mutex<MemoryReport>,
}

impl Shared {
    fn set_state(&self, state: EngineState) {
        self.state.store(state as u8, Ordering::Release);
    }

    fn state(&self) -> EngineState {
        match self.state.load(Ordering::Acquire) {
            0 => EngineState::Running,
            1 => EngineState::Stopped,
            _ => EngineState::Crashed,
        }
    }

    fn set_drain_interval(&self, interval: Option<Duration>) {
        let us = interval.map_or(0, |interval| u64::try_from(interval.as_micros()).unwrap_or(u64::MAX));
        self.drain_interval_us.store(us, Ordering::Relaxed);
    }

    /// When a place in the queue should be free.
    fn retry_after(&self) -> Duration {
        match self.drain_interval_us.load(Ordering::Relaxed) {
            0 => UNKNOWN_DRAIN,
            us => Duration::from_micros(us),
        }
    }

    /// Counts one more, if that makes no more than `most`.
    fn take_place(&self, places: &AtomicUsize, most: usize) -> Result<(), BackendError> {
        let taken = places.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < most).then_some(n + 1));
        let overloaded =
            |queue_length| BackendError::Overloaded { queue_length, retry_after: self.retry_after() };
        taken.map(drop).map_err(overloaded)
    }

    fn set_memory(&self, report: MemoryReport) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }
}

/// Progress and cancellation as a load sees them, on the engine's thread.
pub struct LoadControl {
    progress: LoadProgress,
    cancelled: Arc<AtomicBool>,
}

impl LoadControl {
    /// Reports progress, 0.0 to 1.0; `false` means: give up, nobody waits for this load any more.
    pub fn report(&self, fraction: f32) -> bool {
        !self.cancelled.load(Ordering::Acquire) && (self.progress)(fraction)
    }

    /// Like [`LoadControl::report`] as a `Result`.
    ///
    /// # Errors
    /// [`BackendError::LoadCancelled`].
    pub fn check(&self, fraction: f32) -> Result<(), BackendError> {
        if self.report(fraction) { Ok(()) } else { Err(BackendError::LoadCancelled) }
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A model loaded into this process.
pub struct Engine {
    info: LoadedInfo,
    capabilities: Capabilities,
    tokenizer: Arc<dyn Tokenizer>,
    max_queue: usize,
    inbox: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    thread: EngineThread,
    /// Made by the first constrained request.
    constraints: OnceLock<Result<ConstraintCompiler, ConstraintError>>,
}

struct Built {
    info: LoadedInfo,
    capabilities: Capabilities,
    inbox: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

impl Engine {
    /// Builds a runner on `thread` and serves it there. `build` gives the runner and what it says of itself;
    /// `LoadedInfo::load_time` is measured here and overwritten.
    ///
    /// # Errors
    /// Those of `build`, and `EngineCrashed` if it panicked.
    ///
    /// # Cancel safety
    /// Dropping the future makes [`LoadControl::report`] answer `false`; a runner that was finished all the same is
    /// dropped on its thread.
    pub async fn start<R, F>(
        thread: EngineThread,
        spec: &LoadSpec,
        progress: LoadProgress,
        build: F,
    ) -> Result<Arc<dyn LoadedModel>, BackendError>
    where
        R: ModelRunner + 'static,
        F: FnOnce(&LoadControl) -> Result<(R, LoadedInfo), BackendError> + Send + 'static,
    {
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(cancelled.clone());
        let (answer, answered) = oneshot::channel();
        let control = LoadControl { progress, cancelled };
        let for_worker = spec.clone();
        let waker = thread.waker();
        thread.install(Box::new(move || {
            let started = Instant::now();
            let (runner, mut info) = match control.check(0.0).and_then(|()| build(&control)) {
                Ok(built) => built,
                Err(error) => {
                    let _ = answer.send(Err(error)); // a caller that left wants nothing
                    return None;
                }
            };
            info.load_time = started.elapsed();
            let (sender, inbox) = mpsc::channel();
            let shared = Arc::new(Shared {
                state: AtomicU8::new(EngineState::Running as u8),
                n_waiting: AtomicUsize::new(0),
                n_running: AtomicUsize::new(0),
                n_cells_used: AtomicU32::new(0),
                n_forward_passes: AtomicU64::new(runner.n_forward_passes()),
                n_cancelled: AtomicU64::new(0),
                n_prompt_tokens: AtomicU64::new(0),
                n_completion_tokens: AtomicU64::new(0),
                n_prefix_queried: AtomicU64::new(0),
                n_prefix_hits: AtomicU64::new(0),
                n_preempted: AtomicU64::new(0),
                n_embedding: AtomicUsize::new(0),
                drain_interval_us: AtomicU64::new(0),
                memory: Mutex::new(runner.memory()),
            });
            let key = fingerprint::model_key(&info);
            let (to_self, waker) = (sender.clone(), waker);
            let post: Post = Arc::new(move |message| {
                let _ = to_self.send(message); // a loop that ended wants nothing
                waker.unpark();
            });
            let built = Built {
                info,
                capabilities: runner.capabilities().clone(),
                inbox: sender,
                shared: shared.clone(),
            };
            let worker = ModelWorker::new(runner, inbox, post, shared, &for_worker, key);
            match answer.send(Ok(built)) {
                Ok(()) => Some(Box::new(worker)),
                Err(_) => None, // nobody waits any more: free it
            }
        }))?;
        let Built { info, capabilities, inbox, shared } = answered.await.map_err(|_| {
            BackendError::EngineCrashed { detail: "its thread panicked while loading".into() }
        })??;
        let (tokenizer, max_queue) = (spec.tokenizer.clone(), spec.max_queue.max(1));
        let constraints = OnceLock::new();
        Ok(Arc::new(Self { info, capabilities, tokenizer, max_queue, inbox, shared, thread, constraints }))
    }

    fn send(&self, message: Message) -> Result<(), BackendError> {
        let sent = self.inbox.send(message);
        self.thread.wake();
        sent.map_err(|_| self.gone())
    }

    fn gone(&self) -> BackendError {
        match self.shared.state() {
            EngineState::Crashed => BackendError::EngineCrashed { detail: "an earlier failure".into() },
            _ => BackendError::ShuttingDown,
        }
    }

    fn check_ids(&self, param: &'static str, ids: &[TokenId]) -> Result<(), BackendError> {
        let n_vocab = self.tokenizer.vocab_size();
        match ids.iter().find(|id| **id >= n_vocab) {
            Some(id) => {
                let message = format!("token id {id} is outside the vocabulary of {n_vocab}");
                Err(BackendError::invalid(param, message))
            }
            None if ids.is_empty() => Err(BackendError::invalid(param, format!("the {param} has no tokens"))),
            None => Ok(()),
        }
    }

    fn unsupported(&self, feature: &'static str) -> BackendError {
        BackendError::Unsupported { feature: feature.into(), backend: self.info.backend.into() }
    }

    /// What the runner makes of texts, one vector each.
    async fn vectors(
        &self,
        texts: Vec<Vec<TokenId>>,
        pooling: Pooling,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let context_length = self.capabilities.context_length.min(self.capabilities.kv_tokens) as usize;
        for text in &texts {
            self.check_ids("input", text)?;
            if text.len() > context_length {
                let n_prompt_tokens = text.len();
                return Err(BackendError::ContextLengthExceeded { n_prompt_tokens, context_length });
            }
        }
        // One is at work, as it were.
        let _place = Place::take(&self.shared, self.max_queue + 1)?;
        let (answer, vectors) = oneshot::channel();
        self.send(Message::Embed(EmbeddingJob::new(texts, pooling, answer)))?;
        vectors.await.map_err(|_| self.gone())?
    }

    fn check(&self, request: &mut GenerateRequest) -> Result<(), BackendError> {
        if self.shared.state() != EngineState::Running {
            return Err(self.gone());
        }
        if !self.capabilities.generates {
            return Err(self.unsupported("generating text"));
        }
        let context_length = self.capabilities.context_length.min(self.capabilities.kv_tokens) as usize;
        let n_prompt_tokens = request.prompt.len();
        if n_prompt_tokens == 0 {
            return Err(BackendError::invalid("prompt", "the prompt has no tokens"));
        }
        let scores_only = request.max_tokens == 0 && request.prompt_logprobs.is_some();
        if n_prompt_tokens >= context_length + usize::from(scores_only) {
            return Err(BackendError::ContextLengthExceeded { n_prompt_tokens, context_length });
        }
        if request.max_tokens == 0 && !scores_only {
            return Err(BackendError::invalid("max_tokens", "max_tokens must be at least 1"));
        }
        self.check_ids("prompt", &request.prompt)?;
        if let Some(script) = request.script.as_ref().filter(|ids| !ids.is_empty()) {
            self.check_ids("script", script)?;
        }
        request
            .sampling
            .validate(self.tokenizer.vocab_size())
            .map_err(|error| BackendError::invalid(error.param, error.message.clone()))?;
        // A ceiling, not a promise: a full window ends with `length`.
        request.max_tokens = request.max_tokens.min((context_length - n_prompt_tokens) as u32);
        Ok(())
    }
}

#[async_trait]
impl LoadedModel for Engine {
    fn info(&self) -> &LoadedInfo {
        &self.info
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        &self.tokenizer
    }

    fn constraint(&self, spec: ConstraintSpec) -> Result<Constraint, ConstraintError> {
        self.constraints
            .get_or_init(|| ConstraintCompiler::new(self.tokenizer.as_ref()))
            .as_ref()
            .map_err(Clone::clone)?
            .compile(spec)
    }

    fn generate(&self, mut request: GenerateRequest) -> Result<GenerationStream, BackendError> {
        let received = Instant::now();
        self.check(&mut request)?;
        self.shared.take_place(&self.shared.n_waiting, self.max_queue)?;
        let (events, receiver) = tokio::sync::mpsc::unbounded_channel();
        let control = StreamControl::new(self.thread.waker());
        let stream = GenerationStream::new(receiver, control.clone(), self.tokenizer.clone(), &request);
        let submission = Submission { request, events, control, received };
        self.send(Message::Generate(Box::new(submission)))?;
        Ok(stream)
    }

    async fn embed(&self, texts: Vec<Vec<TokenId>>, pooling: Pooling) -> Result<Vec<Vec<f32>>, BackendError> {
        match self.capabilities.embedding_width {
            Some(_) => self.vectors(texts, pooling).await,
            None => Err(self.unsupported("embeddings")),
        }
    }

    async fn rank(&self, pairs: Vec<Vec<TokenId>>) -> Result<Vec<f32>, BackendError> {
        if !self.capabilities.ranks {
            return Err(self.unsupported("reranking"));
        }
        // A score is one state for the whole pair, so that pooling has no say.
        Ok(self.vectors(pairs, Pooling::First).await?.into_iter().flatten().collect())
    }

    async fn run_exclusive(&self, job: RunnerJob) -> Result<(), BackendError> {
        let (done, finished) = oneshot::channel();
        self.send(Message::Exclusive(job, done))?;
        finished.await.map_err(|_| self.gone())
    }

    fn load(&self) -> EngineLoad {
        EngineLoad {
            n_waiting: self.shared.n_waiting.load(Ordering::Acquire),
            n_running: self.shared.n_running.load(Ordering::Acquire),
            n_cells_used: self.shared.n_cells_used.load(Ordering::Acquire),
            n_forward_passes: self.shared.n_forward_passes.load(Ordering::Acquire),
            n_cancelled: self.shared.n_cancelled.load(Ordering::Acquire),
            n_cells: self.capabilities.kv_tokens,
            n_prompt_tokens: self.shared.n_prompt_tokens.load(Ordering::Relaxed),
            n_completion_tokens: self.shared.n_completion_tokens.load(Ordering::Relaxed),
            n_prefix_queried: self.shared.n_prefix_queried.load(Ordering::Relaxed),
            n_prefix_hits: self.shared.n_prefix_hits.load(Ordering::Relaxed),
            n_preempted: self.shared.n_preempted.load(Ordering::Relaxed),
        }
    }

    fn memory(&self) -> MemoryReport {
        self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn health(&self) -> Health {
        match self.shared.state() {
            EngineState::Running => Health::Ready,
            EngineState::Stopped => Health::ShuttingDown,
            EngineState::Crashed => Health::Crashed,
        }
    }

    async fn unload(&self) {
        let (done, finished) = oneshot::channel();
        if self.send(Message::Shutdown(Some(done))).is_ok() {
            let _ = finished.await; // an error means that it is freed already
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.send(Message::Shutdown(None)); // an error means that it is freed already
    }
}
