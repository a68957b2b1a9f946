//! What is noted of a request while it runs, and its line in the log when it is over.
//!
//! The line is written when the last holder lets go: the handler, or the body of a streamed answer. A request that was
//! let go before it had an outcome is one whose client left: 499 in the log, nothing sent. Texts of prompts and answers
//! are never noted.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};

use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::wire::openai::response::Tally;

/// Client gone: nginx's number for it.
const CLIENT_GONE: u16 = 499;

/// What a request is doing, as far as the server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its body comes in.
    Receiving,
    /// It is parsed, templated, tokenized.
    Preparing,
    /// It waits for its model.
    Loading,
    /// The engine has it, and there is no token yet.
    Waiting,
    /// Tokens have come.
    Generating,
}

impl Stage {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 5] =
        [Self::Receiving, Self::Preparing, Self::Loading, Self::Waiting, Self::Generating];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Preparing => "preparing",
            Self::Loading => "loading",
            Self::Waiting => "waiting",
            Self::Generating => "generating",
        }
    }
}

/// One request.
pub(crate) struct Record {
    /// Given by the client or made here; in the answer's `x-request-id`.
    pub(crate) id: String,
    pub(crate) started: Instant,
    metrics: Arc<Metrics>,
    span: tracing::Span,
    stage: AtomicU8,
    /// Microseconds that the server waited for others: the client's body, the model's load.
    waited_us: AtomicU64,
    /// Microseconds of its own until the engine had the request; 0: it has not got it yet.
    overhead_us: AtomicU64,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    model: Option<String>,
    status: Option<StatusCode>,
    code: Option<&'static str>,
    diagnostic: Option<String>,
    /// A body that goes on after the handler has returned.
    streaming: bool,
    ended: bool,
    n_prompt_tokens: usize,
    n_completion_tokens: u32,
    queue_ms: f64,
    ttft_ms: f64,
}

impl Record {
    pub(crate) fn new(id: String, method: &Method, path: &str, metrics: Arc<Metrics>) -> Self {
        Self {
            started: Instant::now(),
            metrics,
            span: tracing::info_span!("request", id, %method, path),
            id,
            stage: AtomicU8::new(Stage::Receiving as u8),
            waited_us: AtomicU64::new(0),
            overhead_us: AtomicU64::new(0),
            noted: Mutex::default(),
        }
    }

    pub(crate) fn span(&self) -> &tracing::Span {
        &self.span
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it does from now on.
    pub(crate) fn stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// The server has waited for somebody else.
    pub(crate) fn waited(&self, time: Duration) {
        self.waited_us.fetch_add(micros(time), Ordering::Relaxed);
    }

    /// The engine has the request; gives the time that the server itself took until now.
    pub(crate) fn handed_over(&self) -> Duration {
        self.stage(Stage::Waiting);
        let waited = self.waited_us.load(Ordering::Relaxed);
        let own = micros(self.started.elapsed()).saturating_sub(waited).max(1);
        self.overhead_us.store(own, Ordering::Relaxed);
        Duration::from_micros(own)
    }

    /// What [`Record::handed_over`] gave, in microseconds.
    pub(crate) fn overhead_us(&self) -> Option<u64> {
        Some(self.overhead_us.load(Ordering::Relaxed)).filter(|us| *us > 0)
    }

    /// The prompt is known.
    pub(crate) fn prompt(&self, model: &str, n_prompt_tokens: usize) {
        let mut noted = self.noted();
        noted.model = Some(model.to_owned());
        noted.n_prompt_tokens = n_prompt_tokens;
    }

    /// The answer is streamed.
    pub(crate) fn streaming(&self) {
        self.noted().streaming = true;
    }

    /// All choices have ended.
    pub(crate) fn finished(&self, tally: &Tally) {
        let mut noted = self.noted();
        noted.ended = true;
        noted.n_completion_tokens = tally.usage().completion_tokens;
        noted.queue_ms = tally.queue_ms();
        noted.ttft_ms = tally.ttft_ms();
    }

    /// The answer is, or ends in, an error.
    pub(crate) fn failed(&self, error: &ApiError) {
        self.metrics.error(error.code);
        let mut noted = self.noted();
        noted.ended = true;
        noted.code = Some(error.code.as_str());
        noted.diagnostic = error.diagnostic.as_deref().map(str::to_owned);
    }

    /// The handler has an answer with this status.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.noted().status = Some(status);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Record {
    fn drop(&mut self) {
        let _in_span = self.span.enter();
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        let noted = self.noted.get_mut().unwrap_or_else(PoisonError::into_inner);
        let gone = noted.status.is_none() || (noted.streaming && !noted.ended);
        if gone && let Some(stage) = Stage::ALL.get(usize::from(*self.stage.get_mut())) {
            self.metrics.cancelled(*stage);
        }
        let status =
            if gone { CLIENT_GONE } else { noted.status.map_or(CLIENT_GONE, |status| status.as_u16()) };
        let Noted {
            model, code, diagnostic, n_prompt_tokens, n_completion_tokens, queue_ms, ttft_ms, ..
        } = noted;
        match (&model, &code) {
            (_, None) if gone => tracing::info!(status, model, n_prompt_tokens, ms, "client gone"),
            (Some(model), None) => tracing::info!(
                status,
                model,
                n_prompt_tokens,
                n_completion_tokens,
                queue_ms,
                ttft_ms,
                ms,
                "answered"
            ),
            (_, Some(code)) if diagnostic.is_some() => {
                tracing::error!(status, code, diagnostic, ms, "failed");
            }
            (_, Some(code)) => tracing::info!(status, code, ms, "refused"),
            (None, None) => tracing::debug!(status, ms, "answered"),
        }
    }
}
