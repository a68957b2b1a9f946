//! Streamed messages.

use std::io::Write;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use duet_core::event::{Finished, GenerationEvent};
use serde_json::{Value, json};

use super::response;
use crate::error::ApiError;
use crate::generate::chunks::json as write_json;
use crate::generate::job::Form;
use crate::generate::spoken::{Said, Spoken};
use crate::generate::stream::AnswerWriter;
use crate::wire::openai::response::Tally;

/// What is sent into silence.
pub(crate) const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    Thinking,
    Call,
}

/// Writes the events of one message.
pub(crate) struct MessageWriter {
    form: Arc<Form>,
    spoken: Option<Spoken>,
    blocks: Blocks,
    begun: bool,
    tally: Tally,
}

/// The content blocks.
struct Blocks {
    open: Open,
    next: usize,
    n_calls: usize,
}

fn send(kind: &str, data: &Value, out: &mut BytesMut) {
    out.put_slice(format!("event: {kind}\ndata: {data}\n\n").as_bytes());
}

impl MessageWriter {
    pub(crate) fn new(form: Arc<Form>) -> Self {
        let spoken = Some(Spoken::new(&form.parse));
        let blocks = Blocks { open: Open::Nothing, next: 0, n_calls: 0 };
        Self { form, spoken, blocks, begun: false, tally: Tally::default() }
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        // What of it was cached is known at the end; `message_delta` says it.
        let usage = json!({"input_tokens": self.form.n_prompt_tokens(), "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": 0});
        let message = json!({"id": self.form.id, "type": "message", "role": "assistant", "model": self.form.model,
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage});
        send("message_start", &json!({"type": "message_start", "message": message}), out);
    }

    fn finished(&mut self, finished: &Finished, out: &mut BytesMut) {
        self.tally.add(finished, 0);
        self.blocks.close(out);
        let (stop_reason, stop_sequence) =
            response::stop(&self.form, self.blocks.n_calls > 0, &finished.reason);
        let mut delta = json!({"type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": stop_sequence}});
        delta["usage"] = response::usage(&self.tally);
        if let Ok(timings) = serde_json::to_value(self.tally.timings(&self.form.resident)) {
            delta["timings"] = timings;
        }
        send("message_delta", &delta, out);
    }
}

impl Blocks {
    fn said(&mut self, said: Said<'_>, out: &mut BytesMut) {
        match said {
            Said::Content(text) => {
                self.open(Open::Text, || json!({"type": "text", "text": ""}), out);
                self.delta("text_delta", "text", text, out);
            }
            Said::Reasoning(text) => {
                self.open(
                    Open::Thinking,
                    || json!({"type": "thinking", "thinking": "", "signature": ""}),
                    out,
                );
                self.delta("thinking_delta", "thinking", text, out);
            }
            Said::Call { id, name, .. } => {
                self.close(out);
                self.n_calls += 1;
                self.open(
                    Open::Call,
                    || json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                    out,
                );
            }
            Said::Arguments { text, .. } => self.delta("input_json_delta", "partial_json", text, out),
            Said::CallEnd { .. } => self.close(out),
        }
    }

    fn open(&mut self, kind: Open, block: impl Fn() -> Value, out: &mut BytesMut) {
        if self.open == kind {
            return;
        }
        self.close(out);
        self.open = kind;
        let start = json!({"type": "content_block_start", "index": self.next, "content_block": block()});
        send("content_block_start", &start, out);
    }

    /// Once per token: written as it is, without a value in between.
    fn delta(&self, kind: &str, field: &str, text: &str, out: &mut BytesMut) {
        let mut out = out.writer(); // a buffer in memory grows
        let _ = write!(
            out,
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{},\
             \"delta\":{{\"type\":\"{kind}\",\"{field}\":",
            self.next
        );
        write_json(&mut out, text);
        let _ = out.write_all(b"}}\n\n");
    }

    fn close(&mut self, out: &mut BytesMut) {
        if self.open == Open::Thinking {
            self.delta("signature_delta", "signature", response::SIGNATURE, out);
        }
        if std::mem::replace(&mut self.open, Open::Nothing) != Open::Nothing {
            send("content_block_stop", &json!({"type": "content_block_stop", "index": self.next}), out);
            self.next += 1;
        }
    }
}

impl AnswerWriter for MessageWriter {
    fn event(&mut self, _index: usize, event: &GenerationEvent, out: &mut BytesMut) {
        self.begin(out);
        let Some(mut spoken) = self.spoken.take() else { return };
        let blocks = &mut self.blocks;
        match event {
            GenerationEvent::Token(token) => spoken.token(token, |said| blocks.said(said, out)),
            GenerationEvent::Finished(finished) => {
                spoken.finish(finished, |said| blocks.said(said, out));
                self.tally.add_reasoning(spoken.n_reasoning_tokens());
                self.finished(finished, out);
            }
        }
        self.spoken = Some(spoken);
    }

    fn end(&mut self, out: &mut BytesMut) {
        send("message_stop", &json!({"type": "message_stop"}), out);
    }

    fn fail(&mut self, error: &ApiError, out: &mut BytesMut) {
        fail(error, out);
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// The last event of a stream that failed.
pub(crate) fn fail(error: &ApiError, out: &mut BytesMut) {
    out.put_slice(b"event: error\ndata: ");
    out.put_slice(&error.anthropic_body(None));
    out.put_slice(b"\n\n");
}
