//! Streamed responses.

use std::io::Write;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use duet_core::event::GenerationEvent;
use serde_json::{Value, json};

use super::ask::Ask;
use super::items;
use crate::error::ApiError;
use crate::generate::chunks::json as write_json;
use crate::generate::job::Form;
use crate::generate::spoken::{Said, Spoken};
use crate::generate::stream::AnswerWriter;
use crate::wire::openai::response::Tally;

/// Writes the events of one response.
pub(crate) struct ResponseWriter {
    form: Arc<Form>,
    ask: Arc<Ask>,
    spoken: Option<Spoken>,
    begun: bool,
    output: Output,
    tally: Tally,
}

/// Items, written and being written.
struct Output {
    sequence: u64,
    done: Vec<Value>,
    open: Option<Item>,
}

/// The item that is being written.
struct Item {
    id: String,
    text: String,
    kind: Kind,
}

enum Kind {
    Message,
    Reasoning,
    Call { call_id: String, name: String },
}

impl Output {
    fn send(&mut self, kind: &str, mut data: Value, out: &mut BytesMut) {
        data["type"] = kind.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        out.put_slice(format!("event: {kind}\ndata: {data}\n\n").as_bytes());
    }

    fn said(&mut self, said: Said<'_>, out: &mut BytesMut) {
        match said {
            Said::Content(text) => {
                if !matches!(self.open, Some(Item { kind: Kind::Message, .. })) {
                    self.open("msg", Kind::Message, out);
                }
                self.delta("response.output_text.delta", text, out);
            }
            Said::Reasoning(text) => {
                if !matches!(self.open, Some(Item { kind: Kind::Reasoning, .. })) {
                    self.open("rs", Kind::Reasoning, out);
                }
                self.delta("response.reasoning_text.delta", text, out);
            }
            Said::Call { id, name, .. } => {
                self.open("fc", Kind::Call { call_id: id.to_owned(), name: name.to_owned() }, out);
            }
            Said::Arguments { text, .. } => self.delta("response.function_call_arguments.delta", text, out),
            Said::CallEnd { .. } => self.close("completed", out),
        }
    }

    fn open(&mut self, prefix: &str, kind: Kind, out: &mut BytesMut) {
        self.close("completed", out);
        let item = Item { id: items::id(prefix), text: String::new(), kind };
        let index = self.done.len();
        self.send(
            "response.output_item.added",
            json!({"output_index": index, "item": item.shown(None, "in_progress")}),
            out,
        );
        if let Some(part) = item.part() {
            let added = json!({"item_id": item.id, "output_index": index, "content_index": 0, "part": part});
            self.send("response.content_part.added", added, out);
        }
        self.open = Some(item);
    }

    /// Once per token: written as it is, without a value in between.
    fn delta(&mut self, kind: &str, text: &str, out: &mut BytesMut) {
        let index = self.done.len();
        let Some(item) = &mut self.open else { return };
        item.text.push_str(text);
        let further = match item.kind {
            Kind::Message => ",\"content_index\":0,\"logprobs\":[]",
            Kind::Reasoning => ",\"content_index\":0",
            Kind::Call { .. } => "",
        };
        let mut out = out.writer(); // a buffer in memory grows
        let _ = write!(
            out,
            "event: {kind}\ndata: {{\"item_id\":\"{}\",\"output_index\":{index},\"delta\":",
            item.id // of letters and digits
        );
        write_json(&mut out, text);
        let _ = write!(out, "{further},\"type\":\"{kind}\",\"sequence_number\":{}}}\n\n", self.sequence);
        self.sequence += 1;
    }

    fn close(&mut self, status: &str, out: &mut BytesMut) {
        let Some(item) = self.open.take() else { return };
        let index = self.done.len();
        let at = json!({"item_id": item.id, "output_index": index});
        let with = |more: Value| {
            let mut data = at.clone();
            for (name, value) in more.as_object().into_iter().flatten() {
                data[name] = value.clone();
            }
            data
        };
        match &item.kind {
            Kind::Message => {
                let done = with(json!({"content_index": 0, "text": item.text, "logprobs": []}));
                self.send("response.output_text.done", done, out);
            }
            Kind::Reasoning => {
                let done = with(json!({"content_index": 0, "text": item.text}));
                self.send("response.reasoning_text.done", done, out);
            }
            Kind::Call { name, .. } => {
                let done = with(json!({"name": name, "arguments": item.text}));
                self.send("response.function_call_arguments.done", done, out);
            }
        }
        if let Some(part) = item.part() {
            self.send("response.content_part.done", with(json!({"content_index": 0, "part": part})), out);
        }
        let whole = item.shown(Some(&item.text), status);
        self.send("response.output_item.done", json!({"output_index": index, "item": whole}), out);
        self.done.push(whole);
    }
}

impl Item {
    fn shown(&self, text: Option<&str>, status: &str) -> Value {
        match &self.kind {
            Kind::Message => items::message(&self.id, text, status),
            Kind::Reasoning => items::reasoning(&self.id, text, status),
            Kind::Call { call_id, name } => {
                items::call(&self.id, call_id, name, text.unwrap_or_default(), status)
            }
        }
    }

    fn part(&self) -> Option<Value> {
        match self.kind {
            Kind::Message => Some(items::text_part(&self.text)),
            Kind::Reasoning => Some(json!({"type": "reasoning_text", "text": self.text})),
            Kind::Call { .. } => None,
        }
    }
}

impl ResponseWriter {
    pub(crate) fn new(form: Arc<Form>, ask: Arc<Ask>) -> Self {
        let spoken = Some(Spoken::new(&form.parse));
        let output = Output { sequence: 0, done: Vec::new(), open: None };
        Self { form, ask, spoken, begun: false, output, tally: Tally::default() }
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let response = self.ask.response(&self.form, "in_progress", Vec::new());
        self.output.send("response.created", json!({"response": response}), out);
        self.output.send("response.in_progress", json!({"response": response}), out);
    }
}

impl AnswerWriter for ResponseWriter {
    fn event(&mut self, _index: usize, event: &GenerationEvent, out: &mut BytesMut) {
        self.begin(out);
        let Some(mut spoken) = self.spoken.take() else { return };
        let output = &mut self.output;
        match event {
            GenerationEvent::Token(token) => spoken.token(token, |said| output.said(said, out)),
            GenerationEvent::Finished(finished) => {
                spoken.finish(finished, |said| output.said(said, out));
                self.tally.add(finished, 0);
                self.tally.add_reasoning(spoken.n_reasoning_tokens());
                let is_whole = finished.reason != duet_core::event::FinishReason::Length;
                let status = if is_whole { "completed" } else { "incomplete" };
                output.close(status, out);
                let response = self.ask.ended(&self.form, output.done.clone(), &finished.reason, &self.tally);
                output.send(&format!("response.{status}"), json!({"response": response}), out);
            }
        }
        self.spoken = Some(spoken);
    }

    fn end(&mut self, out: &mut BytesMut) {
        // Open Responses asks for it; OpenAI's own packages read no further.
        out.put_slice(b"data: [DONE]\n\n");
    }

    fn fail(&mut self, error: &ApiError, out: &mut BytesMut) {
        self.begin(out);
        self.output.close("incomplete", out);
        let response = self.ask.failed(&self.form, self.output.done.clone(), error);
        self.output.send("response.failed", json!({"response": response}), out);
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// The only event of a stream that failed before the response began.
pub(crate) fn fail(error: &ApiError, out: &mut BytesMut) {
    let data = json!({"type": "error", "code": error.code.as_str(), "message": error.message, "param": error.param,
        "sequence_number": 0});
    out.put_slice(format!("event: error\ndata: {data}\n\n").as_bytes());
}
