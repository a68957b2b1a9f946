//! One request on the engine's thread: its tokens, its sampler, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use tokio::sync::mpsc::UnboundedSender;

use crate::constraint::guide::{Ends, Guide, Verdict};
use crate::error::BackendError;
use crate::event::{FinishReason, StopCause, Timings, Usage};
use crate::request::GenerateRequest;
use crate::runner::{Capabilities, DeviceSampling, SequenceSnapshot};
use crate::sampling::{SampleError, Sampler, TokenLogprobs, logprobs};
use crate::stream::RawEvent;
use crate::text::{TokenId, Tokenizer};

/// Unread events at which a stream's sequence leaves the batch.
const PARK_AT: usize = 256;
/// Unread events at which it comes back.
const RESUME_AT: usize = PARK_AT / 2;
/// How long a reader may stand still before its request is given up.
pub(crate) const STALLED_READER_TIMEOUT: Duration = Duration::from_secs(60);
/// Tokens of an answer that a request's list of tokens has room for from the start.
const ROOM_FOR_ANSWER: usize = 1024;

/// Shared by a request's stream and the engine's thread.
#[derive(Debug)]
pub(crate) struct StreamControl {
    n_unread: AtomicUsize,
    parked: AtomicBool,
    stopped: AtomicBool,
    engine: Thread,
}

impl StreamControl {
    pub(crate) fn new(engine: Thread) -> Arc<Self> {
        Arc::new(Self {
            n_unread: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            engine,
        })
    }

    /// The reader took an item.
    pub(crate) fn read_one(&self) {
        let left = self.n_unread.fetch_sub(1, Ordering::AcqRel) - 1;
        if left <= RESUME_AT && self.parked.load(Ordering::Acquire) {
            self.engine.unpark();
        }
    }

    /// The reader found a stop string: no more tokens are wanted, only the end.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.engine.unpark();
    }

    /// The reader is gone.
    pub(crate) fn hang_up(&self) {
        self.engine.unpark();
    }
}

/// What travels to the engine's thread.
pub(crate) struct Submission {
    pub(crate) request: GenerateRequest,
    pub(crate) events: UnboundedSender<RawEvent>,
    pub(crate) control: Arc<StreamControl>,
    pub(crate) received: Instant,
}

impl Submission {
    fn send(&self, item: RawEvent) {
        self.control.n_unread.fetch_add(1, Ordering::AcqRel);
        let _ = self.events.send(item); // a reader that left is noticed by `is_cancelled`
    }

    pub(crate) fn fail(self, error: BackendError) {
        self.send(RawEvent::Failed(error));
    }
}

/// Whether a generation goes on after a token.
pub(crate) enum After {
    Continue,
    Finished(FinishReason),
}

/// What sampling a row gave.
pub(crate) enum Drawn {
    /// A token, with its logprobs if they are wanted.
    Token(TokenId, Option<Box<TokenLogprobs>>),
    /// Nothing can follow what is there.
    End(FinishReason),
    /// The mask is not there yet; the row is kept for [`Generation::sample_late`].
    Late,
}

/// Whether the host tier has the beginning of a waiting request.
#[derive(Debug, Default)]
pub(crate) enum FromHost {
    /// Not looked for.
    #[default]
    Unasked,
    /// Being read, for so many tokens of the request; it is passed over meanwhile.
    OnItsWay(u32),
    /// Read; so many tokens of it begin the request.
    Here(Arc<SequenceSnapshot>, u32),
    /// Nothing there, or it was no use: not asked again.
    Nothing,
}

/// A request, waiting or running.
pub(crate) struct Generation {
    submission: Submission,
    sampler: Sampler,
    tokenizer: Arc<dyn Tokenizer>,
    on_device: Option<DeviceSampling>,
    banned: Vec<TokenId>,
    guide: Option<Guide>,
    /// Logits `[n_vocab]` whose mask was not there in time.
    late: Option<Vec<f32>>,
    /// Of the prompt's tokens from the second on, as far as it was evaluated, if they are wanted.
    scores: Vec<TokenLogprobs>,
    /// Of the token that ended it, if logprobs are wanted.
    end_logprobs: Option<Box<TokenLogprobs>>,
    /// The prompt and everything generated after it.
    tokens: Vec<TokenId>,
    /// Tokens of the prompt; the request's own list lives in `tokens`.
    n_prompt: u32,
    /// Tokens of the prompt that were not evaluated, once that is known.
    n_cached: Option<u32>,
    pub(crate) from_host: FromHost,
    admitted: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Instant,
    batch_width: u32,
    parked_since: Option<Instant>,
}

impl Generation {
    pub(crate) fn new(
        mut submission: Submission,
        tokenizer: &Arc<dyn Tokenizer>,
        capabilities: &Capabilities,
        n_vocab: usize,
    ) -> Self {
        let request = &mut submission.request;
        let mut sampler = Sampler::new(request.sampling.clone(), n_vocab as u32);
        if request.sampling.needs_history() {
            for &id in &request.prompt {
                sampler.accept(id);
            }
        }
        let banned = if request.min_tokens > 0 { stop_ids(request, tokenizer.as_ref()) } else { Vec::new() };
        let guide = guide(request, tokenizer.as_ref(), &submission.control);
        let on_device = device_sampling(request, capabilities);
        let mut tokens = std::mem::take(&mut request.prompt);
        tokens.reserve((request.max_tokens as usize).min(ROOM_FOR_ANSWER));
        Self {
            sampler,
            tokenizer: tokenizer.clone(),
            on_device,
            banned,
            guide,
            late: None,
            scores: Vec::new(),
            end_logprobs: None,
            n_prompt: tokens.len() as u32,
            tokens,
            n_cached: None,
            from_host: FromHost::Unasked,
            admitted: None,
            first_token: None,
            last_token: submission.received,
            batch_width: 0,
            parked_since: None,
            submission,
        }
    }

    /// The prompt and the answer so far, `[n_prompt + n_generated]`.
    pub(crate) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// The newest token, which the next step evaluates.
    pub(crate) fn newest(&self) -> &[TokenId] {
        &self.tokens[self.tokens.len() - 1..]
    }

    fn n_generated(&self) -> u32 {
        self.tokens.len() as u32 - self.n_prompt
    }

    /// Tokens that it may still generate.
    pub(crate) fn n_left(&self) -> u32 {
        self.submission.request.max_tokens - self.n_generated()
    }

    pub(crate) fn request(&self) -> &GenerateRequest {
        &self.submission.request
    }

    /// Whether cached prefixes may be used for it and its own be kept.
    pub(crate) fn may_share(&self) -> bool {
        // What others have evaluated has no scores.
        self.submission.request.use_prefix_cache && self.submission.request.prompt_logprobs.is_none()
    }

    /// Whether the prompt's tokens are to be scored.
    pub(crate) fn is_scored(&self) -> bool {
        self.submission.request.prompt_logprobs.is_some()
    }

    /// Whether logits after positions before `end` are still wanted for the prompt's scores.
    pub(crate) fn wants_scores(&self, end: u32) -> bool {
        self.is_scored() && self.scores.len() + 1 < self.n_prompt as usize && self.scores.len() < end as usize
    }

    /// Takes in the logits `[n, n_vocab]` after the tokens from `position` on. On several cores.
    pub(crate) fn score(&mut self, position: u32, logits: &[f32], n_vocab: usize) {
        let Some(asked) = self.submission.request.prompt_logprobs else { return };
        let next = &self.tokens[position as usize + 1..self.n_prompt as usize];
        // After a preemption the first ones are there already.
        let n_there = self.scores.len().saturating_sub(position as usize);
        let one = |(row, id): (&[f32], &TokenId)| logprobs(row, *id, asked.n_top as usize);
        let rows: Vec<_> = logits.chunks_exact(n_vocab).zip(next).skip(n_there).collect();
        let scores: Vec<TokenLogprobs> = rows.into_par_iter().map(one).collect();
        self.scores.extend(scores);
    }

    /// It has a sequence now.
    pub(crate) fn admitted(&mut self, now: Instant) {
        self.admitted.get_or_insert(now);
    }

    /// So many tokens of it need not be evaluated.
    pub(crate) fn found(&mut self, n_cached: u32) {
        // After a preemption it only finds its own work again.
        self.n_cached.get_or_insert(n_cached.min(self.n_prompt));
    }

    /// Its sequence is gone; it will get another one.
    pub(crate) fn preempted(&mut self) {
        self.n_cached.get_or_insert(0);
        self.from_host = FromHost::Unasked;
        self.late = None; // its last token is evaluated again
    }

    /// Whether its reader stands still.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked_since.is_some()
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

    /// Samples from a row of logits `[n_vocab]` on the host; on any thread.
    pub(crate) fn sample(&mut self, logits: &[f32]) -> Result<Drawn, BackendError> {
        if self.submission.request.max_tokens == 0 {
            return Ok(Drawn::End(FinishReason::Length)); // the prompt's scores are all that is wanted
        }
        let too_early = self.n_generated() < self.submission.request.min_tokens;
        let banned: &[TokenId] = if too_early { &self.banned } else { &[] };
        let (mask, may_end) = match self.guide.as_mut().map(Guide::verdict) {
            None => (None, false),
            Some(Some(Verdict::Allowed { mask, may_end })) => (Some(mask), *may_end),
            Some(Some(Verdict::Finished)) => return Ok(Drawn::End(WHOLE)),
            Some(Some(Verdict::Failed(why))) => return Err(cannot_go_on(why)),
            Some(None) => {
                self.late = Some(logits.to_vec());
                return Ok(Drawn::Late);
            }
        };
        let is_masked = mask.is_some();
        let id = match &self.submission.request.script {
            Some(script) => {
                let at = self.tokens.len() - self.n_prompt as usize;
                match script.get(at).or_else(|| self.tokenizer.end_of_generation().first()) {
                    Some(&id) if mask.is_none_or(|mask| mask.allows(id)) => id,
                    _ if may_end && at >= script.len() => return Ok(Drawn::End(WHOLE)),
                    Some(_) => return Err(cannot_go_on("the script leaves it")),
                    None => return Ok(Drawn::End(WHOLE)),
                }
            }
            None => match self.sampler.sample_without(logits, banned, mask) {
                Ok(id) => id,
                Err(SampleError::NothingAllowed) if may_end => return Ok(Drawn::End(WHOLE)),
                Err(SampleError::NothingAllowed) if is_masked => {
                    return Err(cannot_go_on("no token of the model goes on with it"));
                }
                Err(error) => return Err(BackendError::engine("sampling", error)),
            },
        };
        let asked = self.submission.request.logprobs;
        Ok(Drawn::Token(id, asked.map(|asked| Box::new(logprobs(logits, id, asked.n_top as usize)))))
    }

    /// Samples from the row that was too early, if there is one and its mask has come.
    pub(crate) fn sample_late(&mut self) -> Option<Result<Drawn, BackendError>> {
        self.late.as_ref()?;
        self.guide.as_mut()?.verdict()?;
        let logits = self.late.take()?;
        Some(self.sample(&logits))
    }

    /// Whether its constraint has ended it already.
    pub(crate) fn is_whole(&mut self) -> bool {
        self.guide.as_mut().is_some_and(Guide::is_finished)
    }

    /// Takes in a new token and sends it on.
    pub(crate) fn accept(
        &mut self,
        id: TokenId,
        logprobs: Option<Box<TokenLogprobs>>,
        now: Instant,
    ) -> After {
        self.tokens.push(id);
        self.first_token.get_or_insert(now);
        self.last_token = now;
        self.sampler.accept(id);
        let request = &self.submission.request;
        if !request.ignore_eos && self.tokenizer.end_of_generation().contains(&id) {
            self.end_logprobs = logprobs;
            return After::Finished(FinishReason::Stop(StopCause::EndOfGeneration(id)));
        }
        if request.stop_tokens.contains(&id) {
            self.end_logprobs = logprobs;
            return After::Finished(FinishReason::Stop(StopCause::StopToken(id)));
        }
        if let Some(guide) = &mut self.guide {
            guide.advance(id);
        }
        self.submission.send(RawEvent::Token { id, logprobs });
        if self.n_left() == 0 { After::Finished(FinishReason::Length) } else { After::Continue }
    }

    /// Ends the stream with its terminal event; gives its tokens.
    pub(crate) fn finish(mut self, reason: FinishReason) {
        let usage = Usage {
            n_prompt_tokens: self.n_prompt,
            n_cached_tokens: self.n_cached.unwrap_or(0),
            n_completion_tokens: self.n_generated(),
        };
        let received = self.submission.received;
        let admitted = self.admitted.unwrap_or(received);
        let first = self.first_token.unwrap_or(self.last_token);
        let timings = Timings {
            queue: admitted.duration_since(received),
            prefill: first.saturating_duration_since(admitted),
            decode: self.last_token.saturating_duration_since(first),
            time_to_first_token: first.saturating_duration_since(received),
            batch_width: self.batch_width,
        };
        let prompt_logprobs = std::mem::take(&mut self.scores);
        let end_logprobs = self.end_logprobs.take();
        self.submission.send(RawEvent::Finished { reason, usage, timings, prompt_logprobs, end_logprobs });
    }

    /// Ends the stream with an error.
    pub(crate) fn fail(self, error: BackendError) {
        self.submission.fail(error);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.submission.events.is_closed()
    }

    /// The reader has found a stop string.
    pub(crate) fn is_stopped(&self) -> bool {
        self.submission.control.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let stalled = self.parked_since.map(|since| since + STALLED_READER_TIMEOUT);
        let next = super::thread::earliest(self.submission.request.deadline, stalled);
        super::thread::earliest(next, self.mask_deadline())
    }

    /// When a row of logits has waited too long for its mask.
    fn mask_deadline(&self) -> Option<Instant> {
        self.late.as_ref()?;
        self.guide.as_ref()?.deadline()
    }

    /// The error to end with if a deadline has passed.
    pub(crate) fn overdue(&self, now: Instant) -> Option<BackendError> {
        if self.submission.request.deadline.is_some_and(|deadline| deadline <= now) {
            return Some(BackendError::DeadlineExceeded);
        }
        if self.mask_deadline().is_some_and(|deadline| deadline <= now) {
            return Some(cannot_go_on("it is too complex"));
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

const WHOLE: FinishReason = FinishReason::Stop(StopCause::Constraint);

fn cannot_go_on(why: &str) -> BackendError {
    let message = format!("the output's grammar cannot be followed any further: {why}");
    BackendError::InvalidRequest { param: None, message }
}

fn guide(request: &GenerateRequest, tokenizer: &dyn Tokenizer, control: &StreamControl) -> Option<Guide> {
    let constraint = request.constraint.as_ref()?;
    let forbidden = if request.ignore_eos { tokenizer.end_of_generation().to_vec() } else { Vec::new() };
    let ends = Ends { forbidden, stops: request.stop_tokens.clone() };
    Some(Guide::start(constraint, ends, control.engine.clone()))
}

fn stop_ids(request: &GenerateRequest, tokenizer: &dyn Tokenizer) -> Vec<TokenId> {
    let own = if request.ignore_eos { &[] } else { tokenizer.end_of_generation() };
    own.iter().chain(&request.stop_tokens).copied().collect()
}

/// The draw's parameters if the device can make every draw of this request.
fn device_sampling(request: &GenerateRequest, capabilities: &Capabilities) -> Option<DeviceSampling> {
    let params = &request.sampling;
    if request.constraint.is_some()
        || request.script.is_some()
        || request.logprobs.is_some()
        || request.prompt_logprobs.is_some()
        || request.min_tokens > 0
        || !params.only_device_filters()
    {
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
