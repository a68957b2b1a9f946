//! What comes back from a request: a stream of events with exactly one terminal item.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::mpsc;

use crate::engine::StreamControl;
use crate::error::BackendError;
use crate::sampling::TokenLogprobs;
use crate::text::TokenId;

/// Why a generation ended without a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-generation token, a stop token or a stop string.
    Stop(StopCause),
    /// `max_tokens` or the context length was reached.
    Length,
}

/// What exactly stopped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopCause {
    /// The model's own end-of-generation token, with its id.
    EndOfGeneration(TokenId),
    /// A stop token of the request.
    StopToken(TokenId),
    /// A stop string of the request, with its index.
    StopString(usize),
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// Its id.
    pub id: TokenId,
    /// Text that became certain with it: may be empty (a partial character, a possible stop string) or hold text that
    /// was kept back before. Always whole UTF-8.
    pub text: String,
    /// If asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// Counts of a finished request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub n_prompt_tokens: u32,
    /// Of these, not evaluated because the KV cache had them.
    pub n_cached_tokens: u32,
    /// Generated tokens, including a stop or end-of-generation token that is not shown.
    pub n_completion_tokens: u32,
}

/// Where a request's time went. All from the engine's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Admitted → first step.
    pub queue: Duration,
    /// First step → first token.
    pub prefill: Duration,
    /// First token → last token.
    pub decode: Duration,
    /// Admitted → first token.
    pub time_to_first_token: Duration,
    /// Most sequences that shared a step with it.
    pub batch_width: u32,
}

/// The end of a request that did not fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// Text that was kept back for a stop string that did not come.
    pub text: String,
    /// Counts.
    pub usage: Usage,
    /// Durations.
    pub timings: Timings,
}

/// One item of a generation.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationEvent {
    /// A token that is part of the output.
    Token(TokenEvent),
    /// The end; nothing follows.
    Finished(Finished),
}

/// The events of one request. Ends after its terminal item; dropping it cancels the request.
#[derive(Debug)]
pub struct GenerationStream {
    receiver: mpsc::UnboundedReceiver<Result<GenerationEvent, BackendError>>,
    control: Arc<StreamControl>,
    ended: bool,
}

impl GenerationStream {
    pub(crate) fn new(
        receiver: mpsc::UnboundedReceiver<Result<GenerationEvent, BackendError>>,
        control: Arc<StreamControl>,
    ) -> Self {
        Self { receiver, control, ended: false }
    }

    /// The next item, or `None` after the terminal one. A sender that vanished without one is an `EngineCrashed`.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<GenerationEvent, BackendError>> {
        std::future::poll_fn(|cx| self.poll_item(cx)).await
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<GenerationEvent, BackendError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = match std::task::ready!(self.receiver.poll_recv(cx)) {
            Some(item) => {
                self.control.read_one();
                item
            }
            None => Err(BackendError::EngineCrashed { detail: "its thread ended".into() }),
        };
        self.ended = !matches!(item, Ok(GenerationEvent::Token(_)));
        Poll::Ready(Some(item))
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
