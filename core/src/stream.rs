//! The reader's side of a request: ids as they leave the engine's thread become text here, on the reader's own thread.
//!
//! Detokenizing, stop strings and everything after them overlap the engine's next step that way, and take nothing from it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;

use crate::engine::StreamControl;
use crate::error::BackendError;
use crate::event::{FinishReason, Finished, GenerationEvent, StopCause, Timings, TokenEvent, Usage};
use crate::request::GenerateRequest;
use crate::sampling::TokenLogprobs;
use crate::text::{Detokenizer, StopMatcher, TokenId, Tokenizer};

/// What the engine's thread sends.
#[derive(Debug)]
pub(crate) enum RawEvent {
    /// A token that is part of the output.
    Token {
        id: TokenId,
        /// Boxed: hardly any request asks for them, and every token travels.
        logprobs: Option<Box<TokenLogprobs>>,
    },
    /// The end as the engine saw it, which knows nothing of stop strings.
    Finished {
        reason: FinishReason,
        usage: Usage,
        timings: Timings,
        prompt_logprobs: Vec<TokenLogprobs>,
        end_logprobs: Option<Box<TokenLogprobs>>,
    },
    /// The end of a request that failed.
    Failed(BackendError),
}

/// The events of one request. Ends after its terminal item; dropping it cancels the request.
pub struct GenerationStream {
    receiver: mpsc::UnboundedReceiver<RawEvent>,
    control: Arc<StreamControl>,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// The stop string that came, and the tokens up to it.
    stopped: Option<(usize, u32)>,
    n_prompt_tokens: u32,
    n_tokens: u32,
    ended: bool,
}

impl fmt::Debug for GenerationStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationStream")
            .field("n_tokens", &self.n_tokens)
            .field("stopped", &self.stopped)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl GenerationStream {
    pub(crate) fn new(
        receiver: mpsc::UnboundedReceiver<RawEvent>,
        control: Arc<StreamControl>,
        tokenizer: Arc<dyn Tokenizer>,
        request: &GenerateRequest,
    ) -> Self {
        // What keeps to a form is shown as it is.
        let detokenizer = match request.continues_prompt || request.constraint.is_some() {
            true => Detokenizer::continuing(tokenizer),
            false => Detokenizer::new(tokenizer),
        }
        .showing(request.shown_control.clone());
        let stops = StopMatcher::new(request.stop.clone());
        let n_prompt_tokens = request.prompt.len() as u32;
        Self {
            receiver,
            control,
            detokenizer,
            stops,
            stopped: None,
            n_prompt_tokens,
            n_tokens: 0,
            ended: false,
        }
    }

    /// The next item, or `None` after the terminal one. A sender that vanished without one is an `EngineCrashed`.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<GenerationEvent, BackendError>> {
        std::future::poll_fn(|cx| self.poll_item(cx)).await
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<GenerationEvent, BackendError>>> {
        while !self.ended {
            let item = match std::task::ready!(self.receiver.poll_recv(cx)) {
                Some(raw) => {
                    self.control.read_one();
                    self.understand(raw)
                }
                None => Some(Err(BackendError::EngineCrashed { detail: "its thread ended".into() })),
            };
            if let Some(item) = item {
                self.ended = !matches!(item, Ok(GenerationEvent::Token(_)));
                return Poll::Ready(Some(item));
            }
        }
        Poll::Ready(None)
    }

    /// The event for the reader, or `None` for a token that came after a stop string.
    fn understand(&mut self, raw: RawEvent) -> Option<Result<GenerationEvent, BackendError>> {
        match raw {
            RawEvent::Token { .. } if self.stopped.is_some() => None,
            RawEvent::Token { id, logprobs } => {
                Some(Ok(GenerationEvent::Token(self.token(id, logprobs.map(|boxed| *boxed)))))
            }
            RawEvent::Finished { reason, usage, timings, prompt_logprobs, end_logprobs } => {
                // What came after a stop string is nobody's.
                let end_logprobs = end_logprobs.filter(|_| self.stopped.is_none()).map(|boxed| *boxed);
                let end = Finished { prompt_logprobs, end_logprobs, ..self.finished(reason, usage, timings) };
                Some(Ok(GenerationEvent::Finished(end)))
            }
            // Its text was whole before the failure came.
            RawEvent::Failed(_) if self.stopped.is_some() => {
                let usage = Usage { n_prompt_tokens: self.n_prompt_tokens, ..Usage::default() };
                let end = self.finished(FinishReason::Length, usage, Timings::default());
                Some(Ok(GenerationEvent::Finished(end)))
            }
            RawEvent::Failed(error) => Some(Err(error)),
        }
    }

    fn token(&mut self, id: TokenId, logprobs: Option<TokenLogprobs>) -> TokenEvent {
        self.n_tokens += 1;
        let step = self.stops.push(self.detokenizer.push(id));
        let (text, matched) = (step.emit.to_owned(), step.matched);
        if let Some(index) = matched {
            self.stopped = Some((index, self.n_tokens));
            self.control.stop();
        }
        TokenEvent { id, text, logprobs }
    }

    fn finished(&mut self, reason: FinishReason, mut usage: Usage, timings: Timings) -> Finished {
        if let Some((index, n_tokens)) = self.stopped {
            // What the engine generated before it heard of the stop string is nobody's.
            usage.n_completion_tokens = n_tokens;
            let reason = FinishReason::Stop(StopCause::StopString(index));
            let (text, prompt_logprobs) = (String::new(), Vec::new());
            return Finished { reason, text, usage, timings, prompt_logprobs, end_logprobs: None };
        }
        // A character that the length cut is not there yet; one that the model ended in is broken.
        let rest = if reason == FinishReason::Length { "" } else { self.detokenizer.flush() };
        let mut text = self.stops.push(rest).emit.to_owned();
        text.push_str(self.stops.flush());
        Finished { reason, text, usage, timings, prompt_logprobs: Vec::new(), end_logprobs: None }
    }
}

impl Stream for GenerationStream {
    type Item = Result<GenerationEvent, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(cx)
    }
}

impl Drop for GenerationStream {
    fn drop(&mut self) {
        self.receiver.close();
        if !self.ended {
            self.control.hang_up(); // the engine frees the sequence without waiting for its next send
        }
    }
}
