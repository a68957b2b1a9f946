//! Events → the text of server-sent events.
//!
//! What all chunks of an answer share is rendered once; a token costs a copy of that, its escaped text and a few digits,
//! into one buffer that is used again and again.

use std::io::Write;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use duet_core::event::{Finished, GenerationEvent, TokenEvent};
use duet_core::text::TokenId;
use serde::Serialize;

use crate::error::ApiError;
use crate::generate::job::{Form, Kind};
use crate::generate::spoken::{Said, Spoken};
use crate::generate::stream::AnswerWriter;
use crate::wire::openai::logprobs::{ChatLogprobs, ChatToken, TextLogprobs};
use crate::wire::openai::response::{StopReason, Tally};

/// Writes the chunks of one answer.
pub(crate) struct ChunkWriter {
    form: Arc<Form>,
    /// `data: {` … `"choices":[`
    head: Vec<u8>,
    /// What ends a chunk.
    tail: &'static [u8],
    choices: Vec<Written>,
    n_ended: usize,
    tally: Tally,
}

/// What has been written of a choice.
struct Written {
    begun: bool,
    n_chars: usize,
    spoken: Spoken,
}

impl ChunkWriter {
    pub(crate) fn new(form: Arc<Form>) -> Self {
        let object = match form.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Text => "text_completion",
        };
        let mut head = b"data: {\"id\":".to_vec();
        json(&mut head, &form.id);
        let _ = write!(head, ",\"object\":\"{object}\",\"created\":{},\"model\":", form.created);
        json(&mut head, &form.model);
        head.extend_from_slice(b",\"system_fingerprint\":");
        json(&mut head, &form.resident.fingerprint);
        head.extend_from_slice(b",\"choices\":[");
        let tail: &[u8] = if form.include_usage { b",\"usage\":null}\n\n" } else { b"}\n\n" };
        let new = |_| Written { begun: false, n_chars: 0, spoken: Spoken::new(&form.parse) };
        let choices = (0..form.n_choices()).map(new).collect();
        Self { form, head, tail, choices, n_ended: 0, tally: Tally::default() }
    }

    /// The last event of a stream that failed; no end mark follows.
    pub(crate) fn error(error: &ApiError, out: &mut BytesMut) {
        out.put_slice(b"data: ");
        out.put_slice(&error.openai_body());
        out.put_slice(b"\n\n");
    }

    fn open(&self, index: usize, out: &mut BytesMut) {
        out.put_slice(&self.head);
        let _ = write!(out.writer(), "{{\"index\":{index},"); // a buffer in memory grows
    }

    fn begin(&self, index: usize, out: &mut BytesMut) {
        let prompt = self.form.prompt_of(index);
        match self.form.kind {
            Kind::Chat => {
                self.open(index, out);
                out.put_slice(b"\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]");
                prompt_ids(prompt.ids.as_deref(), out);
                out.put_slice(self.tail);
            }
            Kind::Text if prompt.echo.is_some() || prompt.ids.is_some() => {
                self.open(index, out);
                out.put_slice(b"\"text\":");
                json(&mut out.writer(), prompt.echo.as_deref().unwrap_or_default());
                out.put_slice(b",\"logprobs\":null,\"finish_reason\":null");
                prompt_ids(prompt.ids.as_deref(), out);
                out.put_slice(b"}]");
                out.put_slice(self.tail);
            }
            Kind::Text => {}
        }
    }

    fn token(&mut self, index: usize, token: &TokenEvent, out: &mut BytesMut) {
        if !self.choices[index].spoken.is_plain() {
            return self.parsed_token(index, token, out);
        }
        let shown = !token.text.is_empty() || token.logprobs.is_some() || self.form.return_token_ids;
        if !shown {
            return; // an unfinished character, or the beginning of a possible stop string
        }
        self.open_text(index, &token.text, out);
        out.put_slice(b",\"logprobs\":");
        self.logprobs(index, token, out);
        out.put_slice(b",\"finish_reason\":null");
        if self.form.return_token_ids {
            let _ = write!(out.writer(), ",\"token_ids\":[{}]", token.id);
        }
        out.put_slice(b"}]");
        out.put_slice(self.tail);
    }

    /// A token of an answer that is more than content. What belongs to the token stands in its first chunk.
    fn parsed_token(&mut self, index: usize, token: &TokenEvent, out: &mut BytesMut) {
        let mut deltas = Vec::new();
        self.choices[index].spoken.token(token, |said| deltas.extend(delta(said)));
        let owns = token.logprobs.is_some() || self.form.return_token_ids;
        if deltas.is_empty() && owns {
            deltas.push(b"{}".to_vec());
        }
        for (nth, delta) in deltas.iter().enumerate() {
            self.open(index, out);
            out.put_slice(b"\"delta\":");
            out.put_slice(delta);
            out.put_slice(b",\"logprobs\":");
            match nth {
                0 => self.logprobs(index, token, out),
                _ => out.put_slice(b"null"),
            }
            out.put_slice(b",\"finish_reason\":null");
            if self.form.return_token_ids && nth == 0 {
                let _ = write!(out.writer(), ",\"token_ids\":[{}]", token.id);
            }
            out.put_slice(b"}]");
            out.put_slice(self.tail);
        }
    }

    /// What was held back until the end.
    fn rest(&mut self, index: usize, finished: &Finished, out: &mut BytesMut) {
        let mut deltas = Vec::new();
        self.choices[index].spoken.finish(finished, |said| deltas.extend(delta(said)));
        for delta in deltas {
            self.open(index, out);
            out.put_slice(b"\"delta\":");
            out.put_slice(&delta);
            out.put_slice(b",\"logprobs\":null,\"finish_reason\":null}]");
            out.put_slice(self.tail);
        }
    }

    /// Up to and with the text of a chunk.
    fn open_text(&self, index: usize, text: &str, out: &mut BytesMut) {
        self.open(index, out);
        match self.form.kind {
            Kind::Chat => {
                out.put_slice(b"\"delta\":{\"content\":");
                json(&mut out.writer(), text);
                out.put_slice(b"}");
            }
            Kind::Text => {
                out.put_slice(b"\"text\":");
                json(&mut out.writer(), text);
            }
        }
    }

    fn logprobs(&mut self, index: usize, token: &TokenEvent, out: &mut BytesMut) {
        let Some(logprobs) = &token.logprobs else {
            out.put_slice(b"null");
            return;
        };
        let tokenizer = self.form.tokenizer();
        match self.form.kind {
            Kind::Chat => {
                let content = vec![ChatToken::new(tokenizer, token.id, logprobs)];
                json(&mut out.writer(), &ChatLogprobs { content, refusal: None });
            }
            Kind::Text => {
                let mut one = TextLogprobs::new();
                one.push(tokenizer, token.id, logprobs, self.choices[index].n_chars);
                json(&mut out.writer(), &one);
            }
        }
        self.choices[index].n_chars += token.text.chars().count();
    }

    fn finished(&mut self, index: usize, finished: &Finished, out: &mut BytesMut) {
        self.tally.add(finished, self.form.prompt_index(index));
        self.n_ended += 1;
        match self.form.kind {
            Kind::Chat => {
                self.rest(index, finished, out);
                self.tally.add_reasoning(self.choices[index].spoken.n_reasoning_tokens());
                self.open(index, out);
                out.put_slice(b"\"delta\":{}");
            }
            Kind::Text => self.open_text(index, &finished.text, out),
        }
        let reason = self.choices[index].spoken.finish_reason(&finished.reason);
        let _ = write!(out.writer(), ",\"logprobs\":null,\"finish_reason\":\"{reason}\",\"stop_reason\":");
        json(&mut out.writer(), &StopReason::new(&finished.reason, &self.form.stop));
        out.put_slice(b"}]");
        if self.n_ended == self.choices.len() && !self.form.include_usage {
            self.timings(out);
        }
        out.put_slice(self.tail);
    }

    fn timings(&self, out: &mut BytesMut) {
        out.put_slice(b",\"timings\":");
        json(&mut out.writer(), &self.tally.timings(&self.form.resident));
    }
}

impl AnswerWriter for ChunkWriter {
    /// The counts so far.
    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn event(&mut self, index: usize, event: &GenerationEvent, out: &mut BytesMut) {
        // Together with the first token and not before: load generators take the first frame for the first token.
        if !self.choices[index].begun {
            self.choices[index].begun = true;
            self.begin(index, out);
        }
        match event {
            GenerationEvent::Token(token) => self.token(index, token, out),
            GenerationEvent::Finished(finished) => self.finished(index, finished, out),
        }
    }

    /// The usage chunk, if wanted, and the end mark.
    fn end(&mut self, out: &mut BytesMut) {
        if self.form.include_usage {
            out.put_slice(&self.head);
            out.put_slice(b"],\"usage\":");
            json(&mut out.writer(), &self.tally.usage());
            self.timings(out);
            out.put_slice(b"}\n\n");
        }
        out.put_slice(b"data: [DONE]\n\n");
    }

    fn fail(&mut self, error: &ApiError, out: &mut BytesMut) {
        Self::error(error, out);
    }
}

/// The `delta` that tells what was said; `None` for what clients see by what follows.
fn delta(said: Said<'_>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    match said {
        Said::Content(content) => {
            text.extend_from_slice(b"{\"content\":");
            json(&mut text, content);
        }
        Said::Reasoning(reasoning) => {
            text.extend_from_slice(b"{\"reasoning_content\":");
            json(&mut text, reasoning);
        }
        Said::Call { index, id, name } => {
            let _ = write!(text, "{{\"tool_calls\":[{{\"index\":{index},\"id\":");
            json(&mut text, id);
            text.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
            json(&mut text, name);
            text.extend_from_slice(b",\"arguments\":\"\"}}]");
        }
        Said::Arguments { index, text: arguments } => {
            let _ = write!(text, "{{\"tool_calls\":[{{\"index\":{index},\"function\":{{\"arguments\":");
            json(&mut text, arguments);
            text.extend_from_slice(b"}}]");
        }
        Said::CallEnd { .. } => return None,
    }
    text.push(b'}');
    Some(text)
}

fn prompt_ids(ids: Option<&[TokenId]>, out: &mut BytesMut) {
    if let Some(ids) = ids {
        out.put_slice(b",\"prompt_token_ids\":");
        json(&mut out.writer(), ids);
    }
}

/// Values here are strings, integers and finite floats, and the writers grow in memory: nothing can fail.
/// `value` as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(out: &mut impl Write, value: &T) {
    let _ = serde_json::to_writer(out, value);
}
