//! One request while it runs: its sampler, its text, its stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::error::BackendError;
use crate::event::{FinishReason, Finished, GenerationEvent, StopCause, Timings, TokenEvent, Usage};
use crate::request::GenerateRequest;
use crate::runner::{Capabilities, DeviceSampling};
use crate::sampling::{Sampler, TokenLogprobs, logprobs};
use crate::text::{Detokenizer, StopMatcher, TokenId, Tokenizer};

/// Unread events at which a stream's sequence leaves the batch.
const PARK_AT: usize = 256;
/// Unread events at which it comes back.
const RESUME_AT: usize = PARK_AT / 2;
/// How long a reader may stand still before its request is given up.
pub(crate) const STALLED_READER_TIMEOUT: Duration = Duration::from_secs(60);

/// Shared by a request's stream and the engine's thread.
#[derive(Debug)]
pub(crate) struct StreamControl {
    n_unread: AtomicUsize,
    parked: AtomicBool,
    engine: Thread,
}

impl StreamControl {
    pub(crate) fn new(engine: Thread) -> Arc<Self> {
        Arc::new(Self { n_unread: AtomicUsize::new(0), parked: AtomicBool::new(false), engine })
    }

    /// The reader took an item.
    pub(crate) fn read_one(&self) {
        let left = self.n_unread.fetch_sub(1, Ordering::AcqRel) - 1;
        if left <= RESUME_AT && self.parked.load(Ordering::Acquire) {
            self.engine.unpark();
        }
    }

    /// The reader is gone.
    pub(crate) fn hang_up(&self) {
        self.engine.unpark();
    }
}

/// What travels to the engine's thread.
pub(crate) struct Submission {
    pub(crate) request: GenerateRequest,
    pub(crate) events: UnboundedSender<Result<GenerationEvent, BackendError>>,
    pub(crate) control: Arc<StreamControl>,
    pub(crate) received: Instant,
}

impl Submission {
    pub(crate) fn fail(self, error: BackendError) {
        self.control.n_unread.fetch_add(1, Ordering::AcqRel);
        let _ = self.events.send(Err(error)); // a reader that left wants nothing
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }
}

/// Whether a generation goes on after a token.
pub(crate) enum After {
    Continue,
    Finished(FinishReason),
}

/// A request that holds a sequence.
pub(crate) struct Generation {
    submission: Submission,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    tokenizer: Arc<dyn Tokenizer>,
    on_device: Option<DeviceSampling>,
    banned: Vec<TokenId>,
    newest: TokenId,
    n_generated: u32,
    started: Instant,
    first_token: Option<Instant>,
    last_token: Instant,
    batch_width: u32,
    parked_since: Option<Instant>,
}

impl Generation {
    pub(crate) fn new(
        submission: Submission,
        tokenizer: &Arc<dyn Tokenizer>,
        capabilities: &Capabilities,
        n_vocab: usize,
    ) -> Self {
        let request = &submission.request;
        let mut sampler = Sampler::new(request.sampling.clone(), n_vocab as u32);
        if request.sampling.needs_history() {
            for &id in &request.prompt {
                sampler.accept(id);
            }
        }
        let banned = if request.min_tokens > 0 { stop_ids(request, tokenizer.as_ref()) } else { Vec::new() };
        let on_device = device_sampling(request, capabilities);
        Self {
            sampler,
            detokenizer: match request.continues_prompt {
                true => Detokenizer::continuing(tokenizer.clone()),
                false => Detokenizer::new(tokenizer.clone()),
            },
            stops: StopMatcher::new(request.stop.clone()),
            tokenizer: tokenizer.clone(),
            on_device,
            banned,
            newest: 0,
            n_generated: 0,
            started: Instant::now(),
            first_token: None,
            last_token: submission.received,
            batch_width: 0,
            parked_since: None,
            submission,
        }
    }

    pub(crate) fn prompt(&self) -> &[TokenId] {
        &self.submission.request.prompt
    }

    pub(crate) fn newest(&self) -> &TokenId {
        &self.newest
    }

    /// The next draw as the device makes it, or `None` if the host has to.
    pub(crate) fn next_on_device(&mut self) -> Option<DeviceSampling> {
        let mut sampling = self.on_device?;
        if sampling.temperature > 0.0 {
            sampling.uniform = self.sampler.next_uniform();
        }
        Some(sampling)
    }

    pub(crate) fn saw_batch(&mut self, width: u32) {
        self.batch_width = self.batch_width.max(width);
    }

    /// Samples from a row of logits `[n_vocab]` on the host.
    pub(crate) fn sample(
        &mut self,
        logits: &[f32],
    ) -> Result<(TokenId, Option<TokenLogprobs>), BackendError> {
        let banned: &[TokenId] =
            if self.n_generated < self.submission.request.min_tokens { &self.banned } else { &[] };
        let id = self
            .sampler
            .sample_without(logits, banned)
            .map_err(|error| BackendError::engine("sampling", error))?;
        let logprobs =
            self.submission.request.logprobs.map(|asked| logprobs(logits, id, asked.n_top as usize));
        Ok((id, logprobs))
    }

    /// Takes in a new token: text, stops, stream.
    pub(crate) fn accept(&mut self, id: TokenId, logprobs: Option<TokenLogprobs>, now: Instant) -> After {
        self.newest = id;
        self.n_generated += 1;
        self.first_token.get_or_insert(now);
        self.last_token = now;
        self.sampler.accept(id);
        let request = &self.submission.request;
        if !request.ignore_eos && self.tokenizer.end_of_generation().contains(&id) {
            return After::Finished(FinishReason::Stop(StopCause::EndOfGeneration(id)));
        }
        if request.stop_tokens.contains(&id) {
            return After::Finished(FinishReason::Stop(StopCause::StopToken(id)));
        }
        let max_tokens = request.max_tokens;
        let step = self.stops.push(self.detokenizer.push(id));
        let (text, matched) = (step.emit.to_owned(), step.matched);
        self.send(Ok(GenerationEvent::Token(TokenEvent { id, text, logprobs })));
        match matched {
            Some(index) => After::Finished(FinishReason::Stop(StopCause::StopString(index))),
            None if self.n_generated >= max_tokens => After::Finished(FinishReason::Length),
            None => After::Continue,
        }
    }

    /// Ends the stream with its terminal event.
    pub(crate) fn finish(mut self, reason: FinishReason) {
        let mut text = String::new();
        if !matches!(reason, FinishReason::Stop(StopCause::StopString(_))) {
            text.push_str(self.stops.push(self.detokenizer.flush()).emit);
            text.push_str(self.stops.flush());
        }
        let request = &self.submission.request;
        let usage = Usage {
            n_prompt_tokens: request.prompt.len() as u32,
            n_cached_tokens: 0,
            n_completion_tokens: self.n_generated,
        };
        let received = self.submission.received;
        let first = self.first_token.unwrap_or(self.last_token);
        let timings = Timings {
            queue: self.started.duration_since(received),
            prefill: first.saturating_duration_since(self.started),
            decode: self.last_token.saturating_duration_since(first),
            time_to_first_token: first.saturating_duration_since(received),
            batch_width: self.batch_width,
        };
        self.send(Ok(GenerationEvent::Finished(Finished { reason, text, usage, timings })));
    }

    /// Ends the stream with an error.
    pub(crate) fn fail(self, error: BackendError) {
        self.submission.fail(error);
    }

    fn send(&self, item: Result<GenerationEvent, BackendError>) {
        self.submission.control.n_unread.fetch_add(1, Ordering::AcqRel);
        let _ = self.submission.events.send(item); // a reader that left is noticed by `is_cancelled`
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.submission.is_cancelled()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let stalled = self.parked_since.map(|since| since + STALLED_READER_TIMEOUT);
        super::thread::earliest(self.submission.request.deadline, stalled)
    }

    /// The error to end with if a deadline has passed.
    pub(crate) fn overdue(&self, now: Instant) -> Option<BackendError> {
        if self.submission.request.deadline.is_some_and(|deadline| deadline <= now) {
            return Some(BackendError::DeadlineExceeded);
        }
        let since = self.parked_since?;
        (since + STALLED_READER_TIMEOUT <= now).then_some(BackendError::StalledReader)
    }

    /// Looks at the reader: `Some(true)` if the sequence has to leave the batch now, `Some(false)` if it may come back.
    pub(crate) fn parking_change(&mut self, now: Instant) -> Option<bool> {
        let n_unread = self.submission.control.n_unread.load(Ordering::Acquire);
        match self.parked_since {
            None if n_unread >= PARK_AT => {
                // Flag first, then look again: a reader that drained in between would not wake us.
                self.submission.control.parked.store(true, Ordering::Release);
                self.parked_since = Some(now);
                Some(true)
            }
            Some(_) if n_unread <= RESUME_AT => {
                self.submission.control.parked.store(false, Ordering::Release);
                self.parked_since = None;
                Some(false)
            }
            _ => None,
        }
    }
}

fn stop_ids(request: &GenerateRequest, tokenizer: &dyn Tokenizer) -> Vec<TokenId> {
    let own = if request.ignore_eos { &[] } else { tokenizer.end_of_generation() };
    own.iter().chain(&request.stop_tokens).copied().collect()
}

/// The draw's parameters if the device can make every draw of this request.
fn device_sampling(request: &GenerateRequest, capabilities: &Capabilities) -> Option<DeviceSampling> {
    let params = &request.sampling;
    if request.logprobs.is_some() || request.min_tokens > 0 || !params.only_device_filters() {
        return None;
    }
    let sampling = DeviceSampling {
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p,
        uniform: 0.0,
    };
    capabilities.device_sampling.covers(&sampling).then_some(sampling)
}
