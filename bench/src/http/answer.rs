//! A streamed answer and the record of when each part of it came.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sse_stream::{Sse, SseByteStream};

use super::chunk::{Chunk, Usage};
use super::client::Connection;
use super::error::HttpError;
use crate::clock::{Clock, nanos};

/// Text that came in one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// When the bytes that completed the event had arrived, on the client's clock. Pieces of one read share it.
    pub at_ns: u64,
    /// Bytes of text.
    pub n_bytes: u32,
}

/// What came of a request, and when. Times are on the client's clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Just before the connection was opened.
    pub sent_ns: u64,
    /// When the response's head had come.
    pub head_ns: u64,
    /// Every event that had text, in order. A token whose text is an unfinished character has none of its own.
    pub pieces: Vec<Piece>,
    /// When the end mark had come; `None` if it never did.
    pub ended_ns: Option<u64>,
    /// Why the server ended it.
    pub finish_reason: Option<String>,
    /// The server's counts.
    pub usage: Option<Usage>,
    /// The server's own timings, as it sends them.
    pub timings: Option<Value>,
    /// What the server says it is.
    pub system_fingerprint: Option<String>,
}

impl Answer {
    /// From the request's sending to the first text.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        let first = self.pieces.first()?;
        Some(Duration::from_nanos(first.at_ns.saturating_sub(self.sent_ns)))
    }

    /// From the first text to the last, per token after the first; `None` with fewer than two tokens or events.
    pub fn time_per_token(&self) -> Option<Duration> {
        let (first, last) = (self.pieces.first()?, self.pieces.last()?);
        let n = self.n_tokens().checked_sub(1).filter(|n| *n > 0 && self.pieces.len() > 1)?;
        Some(Duration::from_nanos(last.at_ns.saturating_sub(first.at_ns) / n))
    }

    /// Generated tokens: the server's count where there is one, else the events that had text.
    pub fn n_tokens(&self) -> u64 {
        self.usage.map_or(self.pieces.len() as u64, |usage| usage.completion_tokens)
    }

    /// Prompt tokens that the server evaluated; `None` where it does not say.
    pub fn n_evaluated(&self) -> Option<u64> {
        let usage = self.usage?;
        Some(usage.prompt_tokens.saturating_sub(usage.cached_tokens?))
    }

    /// The instants at which text came: pieces of one read count once, since nobody could see them apart.
    pub fn arrivals(&self) -> Vec<Duration> {
        let mut arrivals: Vec<u64> = self.pieces.iter().map(|piece| piece.at_ns).collect();
        arrivals.dedup();
        arrivals.into_iter().map(Duration::from_nanos).collect()
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<Sse, sse_stream::Error>> + Send>>;

/// A completion that is being received. Dropping it closes the connection, which is how a client leaves.
pub struct AnswerStream {
    events: Option<Events>,
    arrived: Arc<AtomicU64>,
    answer: Answer,
    _connection: Connection,
}

impl fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream").field("answer", &self.answer).finish_non_exhaustive()
    }
}

impl AnswerStream {
    pub(super) fn new(
        sent: Duration,
        body: Incoming,
        connection: Connection,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let arrived = Arc::new(AtomicU64::new(0));
        let stamp = {
            let (clock, arrived) = (clock.clone(), arrived.clone());
            // Only the order within one task matters, so any ordering would do.
            move |_: &hyper::body::Bytes| arrived.store(nanos(clock.now()), Ordering::Relaxed)
        };
        // The parser asks for the next read only when it has handed out every event of this one, so the stamp is that of
        // the read which completed the event.
        let events = SseByteStream::new(body.into_data_stream().inspect_ok(stamp));
        let answer = Answer { sent_ns: nanos(sent), head_ns: nanos(clock.now()), ..Answer::default() };
        Self { events: Some(Box::pin(events)), arrived, answer, _connection: connection }
    }

    /// The next piece of text; `None` after the end mark or an error.
    ///
    /// # Errors
    /// `Stream`, `Malformed`, `ErrorEvent`, `EndedEarly`: the last item there is.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Piece, HttpError>> {
        while let Some(events) = &mut self.events {
            let Some(event) = events.next().await else {
                self.events = None;
                return Some(Err(HttpError::EndedEarly { n_tokens: self.answer.n_tokens() }));
            };
            match event.map_err(HttpError::from).and_then(|event| self.read(event)) {
                Ok(None) => {}
                Ok(Some(piece)) => return Some(Ok(piece)),
                Err(error) => {
                    self.events = None;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    fn read(&mut self, event: Sse) -> Result<Option<Piece>, HttpError> {
        let Some(data) = event.data else { return Ok(None) };
        let at_ns = self.arrived.load(Ordering::Relaxed);
        if data == "[DONE]" {
            self.answer.ended_ns = Some(at_ns);
            self.events = None;
            return Ok(None);
        }
        let chunk = Chunk::parse(&data)?;
        let answer = &mut self.answer;
        answer.finish_reason = chunk.finish_reason.or(answer.finish_reason.take());
        answer.usage = chunk.usage.or(answer.usage);
        answer.timings = chunk.timings.or(answer.timings.take());
        answer.system_fingerprint = chunk.system_fingerprint.or(answer.system_fingerprint.take());
        if chunk.text.is_empty() {
            return Ok(None);
        }
        let piece = Piece { at_ns, n_bytes: u32::try_from(chunk.text.len()).unwrap_or(u32::MAX) };
        answer.pieces.push(piece);
        Ok(Some(piece))
    }

    /// What has come so far.
    pub fn so_far(&self) -> &Answer {
        &self.answer
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// As [`AnswerStream::next`].
    pub async fn finish(mut self) -> Result<Answer, HttpError> {
        while let Some(piece) = self.next().await {
            piece?;
        }
        Ok(self.answer)
    }

    /// Leaves before the end.
    pub fn leave(self) -> Answer {
        self.answer
    }
}
