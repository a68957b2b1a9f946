//! The choices of one answer, run beside each other on one model.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use duet_core::BackendError;
use duet_core::GenerationStream;
use duet_core::event::GenerationEvent;
use duet_core::request::GenerateRequest;
use futures_core::Stream;

use crate::metrics::Measure;
use crate::models::Resident;
use crate::record::{Record, Stage};

/// The events of several requests, each with the index of its choice. At most as many are with the engine as it runs at
/// once, so that one answer with many prompts does not fill the queue. Dropping it cancels what has not ended.
pub(crate) struct Choices {
    resident: Arc<Resident>,
    record: Arc<Record>,
    waiting: VecDeque<(usize, GenerateRequest)>,
    running: Vec<Running>,
    /// Where the next poll begins, so that no stream is always last.
    turn: usize,
}

/// A choice that the engine has.
struct Running {
    index: usize,
    stream: GenerationStream,
    last_token: Option<Instant>,
}

/// An event of the choice with this index.
pub(crate) type ChoiceEvent = (usize, Result<GenerationEvent, BackendError>);

impl Choices {
    /// Hands the first requests to the engine.
    ///
    /// # Errors
    /// The engine's refusal of any of them; none of the others goes on then.
    pub(crate) fn start(
        resident: Arc<Resident>,
        requests: Vec<GenerateRequest>,
        record: Arc<Record>,
    ) -> Result<Self, BackendError> {
        let width = resident.model.capabilities().max_sequences.max(1) as usize;
        let waiting: VecDeque<_> = requests.into_iter().enumerate().collect();
        let running = Vec::with_capacity(width.min(waiting.len()));
        let mut choices = Self { resident, record, waiting, running, turn: 0 };
        while choices.running.len() < width && choices.start_next()? {}
        Ok(choices)
    }

    /// `false`: nothing to start, or the queue is full and others of this answer still run.
    fn start_next(&mut self) -> Result<bool, BackendError> {
        let Some((index, request)) = self.waiting.front() else { return Ok(false) };
        match self.resident.model.generate(request.clone()) {
            Ok(stream) => {
                self.running.push(Running { index: *index, stream, last_token: None });
                self.waiting.pop_front();
                Ok(true)
            }
            Err(BackendError::Overloaded { .. }) if !self.running.is_empty() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next event of any choice, or `None` after the last. Nothing is to be expected after an error.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<ChoiceEvent>> {
        let n = self.running.len();
        for step in 0..n {
            let at = (self.turn + step) % n;
            let choice = &mut self.running[at];
            let index = choice.index;
            match Pin::new(&mut choice.stream).poll_next(cx) {
                Poll::Pending => continue,
                Poll::Ready(Some(Ok(event @ GenerationEvent::Token(_)))) => {
                    self.turn = at + 1;
                    self.note_token(at);
                    return Poll::Ready(Some((index, Ok(event))));
                }
                Poll::Ready(Some(last)) => {
                    self.running.swap_remove(at);
                    if let Ok(GenerationEvent::Finished(finished)) = &last {
                        self.resident.metrics.finished(finished, self.record.started.elapsed());
                    }
                    let last = match self.start_next() {
                        Err(error) if last.is_ok() => Err(error),
                        _ => last,
                    };
                    return Poll::Ready(Some((index, last)));
                }
                // After its terminal item; taken out above, so never seen.
                Poll::Ready(None) => {
                    self.running.swap_remove(at);
                    return self.poll_next(cx);
                }
            }
        }
        if n == 0 { Poll::Ready(None) } else { Poll::Pending }
    }

    fn note_token(&mut self, at: usize) {
        let now = Instant::now();
        let metrics = &self.resident.metrics;
        match self.running[at].last_token.replace(now) {
            Some(before) => metrics.observe(Measure::InterTokenLatency, now - before),
            None => {
                metrics.observe(Measure::TimeToFirstToken, now - self.record.started);
                self.record.stage(Stage::Generating);
            }
        }
    }

    /// As [`Choices::poll_next`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<ChoiceEvent> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

impl Drop for Choices {
    fn drop(&mut self) {
        self.resident.metrics.aborted(self.running.len());
    }
}
