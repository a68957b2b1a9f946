//! The body of a streamed answer.
//!
//! Dropping it (the client left, the connection broke) drops the choices and so frees their sequences.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use bytes::BytesMut;
use duet_core::event::GenerationEvent;
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::drain::Active;
use crate::error::ApiError;
use crate::generate::choices::{ChoiceEvent, Choices};
use crate::generate::chunks::ChunkWriter;
use crate::generate::job::Form;
use crate::record::Record;
use crate::wire::anthropic::stream::MessageWriter;
use crate::wire::openai::chat::Voice;
use crate::wire::openai::response::Tally;
use crate::wire::responses::stream::ResponseWriter;
use crate::wire::{anthropic, responses};

/// Silence after which a comment is sent: proxies and clients give up on quiet connections.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: &[u8] = b": keep-alive\n\n";
/// Events are gathered into one frame up to this size while more are there.
const FRAME_BYTES: usize = 16 << 10;
/// Room for the first token's frame; afterwards the room of frames that were sent is used again.
const FIRST_BYTES: usize = 1 << 10;

/// An answer whose first event is there.
pub(crate) struct Started {
    pub(crate) form: Arc<Form>,
    pub(crate) choices: Choices,
    pub(crate) first: ChoiceEvent,
}

/// Everything before the first event: loading, templating, queueing, prefill.
pub(crate) type Starting = Pin<Box<dyn Future<Output = Result<Started, ApiError>> + Send>>;

enum State {
    Starting(Starting),
    Running { choices: Choices, writer: Box<dyn AnswerWriter> },
    Ended,
}

/// Writes the events of one answer, in the words of one API.
pub(crate) trait AnswerWriter: Send {
    /// What an event of this choice says.
    fn event(&mut self, index: usize, event: &GenerationEvent, out: &mut BytesMut);
    /// After the last event.
    fn end(&mut self, out: &mut BytesMut);
    /// Instead of everything that would follow.
    fn fail(&mut self, error: &ApiError, out: &mut BytesMut);
    /// The counts so far.
    fn tally(&self) -> &Tally;
}

impl Voice {
    fn writer(&self, form: Arc<Form>) -> Box<dyn AnswerWriter> {
        match self {
            Self::OpenAi => Box::new(ChunkWriter::new(form)),
            Self::Anthropic => Box::new(MessageWriter::new(form)),
            Self::Responses(ask) => Box::new(ResponseWriter::new(form, ask.clone())),
        }
    }

    /// A failure before anything was written.
    fn fail(&self, error: &ApiError, out: &mut BytesMut) {
        match self {
            Self::OpenAi => ChunkWriter::error(error, out),
            Self::Anthropic => anthropic::stream::fail(error, out),
            Self::Responses(_) => responses::stream::fail(error, out),
        }
    }

    fn keep_alive(&self) -> &'static [u8] {
        match self {
            Self::Anthropic => anthropic::stream::PING,
            Self::OpenAi | Self::Responses(_) => COMMENT,
        }
    }
}

/// Server-sent events of one answer.
pub(crate) struct StreamBody {
    voice: Voice,
    state: State,
    buffer: BytesMut,
    keep_alive: Pin<Box<Sleep>>,
    last_sent: Instant,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whom `cut` will wake.
    cut_wakes: Option<Waker>,
    record: Arc<Record>,
    active: Active,
}

impl StreamBody {
    /// Of an answer that has begun.
    pub(crate) fn begun(started: Started, voice: Voice, record: Arc<Record>, active: Active) -> Self {
        let mut body = Self::new(State::Ended, voice, record, active);
        body.begin(started);
        body
    }

    /// Of an answer that is still being prepared.
    pub(crate) fn waiting(starting: Starting, voice: Voice, record: Arc<Record>, active: Active) -> Self {
        Self::new(State::Starting(starting), voice, record, active)
    }

    fn new(state: State, voice: Voice, record: Arc<Record>, active: Active) -> Self {
        let now = Instant::now();
        record.streaming();
        Self {
            voice,
            state,
            buffer: BytesMut::with_capacity(FIRST_BYTES),
            keep_alive: Box::pin(tokio::time::sleep_until(now + KEEP_ALIVE)),
            last_sent: now,
            cut: Box::pin(active.cut()),
            cut_wakes: None,
            record,
            active,
        }
    }

    fn begin(&mut self, started: Started) {
        let Started { form, choices, first } = started;
        self.record.prompt(&form.model, form.n_prompt_tokens());
        let writer = self.voice.writer(form);
        self.state = State::Running { choices, writer };
        self.event(Some(first));
    }

    fn event(&mut self, event: Option<ChoiceEvent>) {
        let State::Running { writer, .. } = &mut self.state else { return };
        match event {
            Some((index, Ok(event))) => writer.event(index, &event, &mut self.buffer),
            Some((_, Err(error))) => self.fail(&ApiError::from(error)),
            None => {
                writer.end(&mut self.buffer);
                self.record.finished(writer.tally());
                self.state = State::Ended;
            }
        }
    }

    fn fail(&mut self, error: &ApiError) {
        match &mut self.state {
            State::Running { writer, .. } => writer.fail(error, &mut self.buffer),
            State::Starting(_) | State::Ended => self.voice.fail(error, &mut self.buffer),
        }
        self.record.failed(error);
        self.state = State::Ended;
    }

    /// Gathers what is there.
    fn gather(&mut self, cx: &mut Context<'_>) {
        while self.buffer.len() < FRAME_BYTES {
            match &mut self.state {
                State::Starting(starting) => match starting.as_mut().poll(cx) {
                    Poll::Ready(Ok(started)) => self.begin(started),
                    Poll::Ready(Err(error)) => self.fail(&error),
                    Poll::Pending => return,
                },
                State::Running { choices, .. } => match choices.poll_next(cx) {
                    Poll::Ready(event) => self.event(event),
                    Poll::Pending => return,
                },
                State::Ended => return,
            }
        }
    }

    /// Whether the answer has to end. All streams share the lock behind `cut`, so it is taken for a new waker only and not
    /// at every token.
    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        let known = self.cut_wakes.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !known {
            self.cut_wakes = Some(cx.waker().clone());
            return self.cut.as_mut().poll(cx).is_ready();
        }
        self.active.is_cut()
    }

    fn frame(&mut self) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.last_sent = Instant::now();
        Poll::Ready(Some(Ok(Frame::data(self.buffer.split().freeze()))))
    }
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        this.gather(cx);
        if !this.buffer.is_empty() {
            return this.frame();
        }
        if matches!(this.state, State::Ended) {
            return Poll::Ready(None);
        }
        if this.is_cut(cx) {
            this.fail(&ApiError::shutting_down());
            return this.frame();
        }
        // The timer is not moved at every token: when it rings, it looks how long the silence really was.
        while this.keep_alive.as_mut().poll(cx).is_ready() {
            let due = this.last_sent + KEEP_ALIVE;
            if due <= Instant::now() {
                this.buffer.extend_from_slice(this.voice.keep_alive());
                this.keep_alive.as_mut().reset(Instant::now() + KEEP_ALIVE);
                return this.frame();
            }
            this.keep_alive.as_mut().reset(due);
        }
        Poll::Pending
    }
}
