//! Calls whose arguments stand between tags: GLM 4.5 and later, Qwen's coders.
//!
//! The tags say nothing of types, so the tool's schema does: what is declared as something else than a string is read as
//! JSON if it is JSON.

use std::sync::Arc;

use super::body::{Body, Step};
use super::sink::Sink;
use crate::tools::Tools;

/// Arguments that go out one by one.
struct Writer {
    tools: Arc<Tools>,
    name: String,
    n: usize,
}

impl Writer {
    fn begin(tools: Arc<Tools>, name: &str, sink: &mut Sink) -> Self {
        sink.call(name.to_owned(), None);
        Self { tools, name: name.to_owned(), n: 0 }
    }

    fn argument(&mut self, key: &str, text: &str, sink: &mut Sink) {
        let value = self.tools.value(&self.name, key, text);
        let lead = if self.n == 0 { "{" } else { ", " };
        self.n += 1;
        sink.arguments(&format!("{lead}{}: {value}", serde_json::Value::from(key)));
    }

    fn end(&mut self, sink: &mut Sink) {
        sink.arguments(if self.n == 0 { "{}" } else { "}" });
        sink.end();
    }
}

/// `NAME\n<arg_key>K</arg_key>\n<arg_value>V</arg_value>…</tool_call>`.
pub(crate) struct Glm {
    tools: Arc<Tools>,
    writer: Option<Writer>,
    key: Option<String>,
    text: String,
}

const GLM_END: &str = "</tool_call>";

impl Glm {
    pub(crate) fn new(tools: Arc<Tools>) -> Self {
        Self { tools, writer: None, key: None, text: String::new() }
    }

    fn name(&mut self, end: &str, sink: &mut Sink) -> bool {
        let name = self.text.strip_suffix(end).unwrap_or_default().trim();
        let fits = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '<');
        if fits {
            self.writer = Some(Writer::begin(self.tools.clone(), name, sink));
        }
        self.text.clear();
        fits
    }
}

impl Body for Glm {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        self.text.push(c);
        let Some(writer) = &mut self.writer else {
            if self.text.ends_with(GLM_END) {
                if !self.name(GLM_END, sink) {
                    return Step::Bad;
                }
                if let Some(writer) = &mut self.writer {
                    writer.end(sink);
                }
                return Step::Done;
            }
            let named = !self.text.ends_with("<arg_key>") || {
                let fits = self.name("<arg_key>", sink);
                self.text.push_str("<arg_key>");
                fits
            };
            return if named && self.text.len() < 1024 { Step::More } else { Step::Bad };
        };
        if let Some(key) = &self.key {
            if let Some(text) = self.text.strip_suffix("</arg_value>") {
                let text = text.trim_start().strip_prefix("<arg_value>").unwrap_or(text);
                writer.argument(key, text, sink);
                self.key = None;
                self.text.clear();
            }
        } else if let Some(key) = self.text.strip_suffix("</arg_key>") {
            self.key = Some(key.trim_start().trim_start_matches("<arg_key>").trim().to_owned());
            self.text.clear();
        } else if self.text.ends_with(GLM_END) {
            writer.end(sink);
            return Step::Done;
        }
        Step::More
    }

    fn finish(&mut self, sink: &mut Sink) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        unfinished(writer, self.key.as_deref(), &self.text, sink);
        true
    }
}

/// The rest of a call that broke off stands in its arguments, where it can be seen that they are not whole.
fn unfinished(writer: &Writer, key: Option<&str>, text: &str, sink: &mut Sink) {
    if let Some(key) = key {
        let lead = if writer.n == 0 { "{" } else { ", " };
        sink.arguments(&format!("{lead}{}: ", serde_json::Value::from(key)));
    }
    sink.arguments(text);
}

/// `<function=NAME>\n<parameter=K>\nV\n</parameter>…</function>`.
pub(crate) struct Function {
    tools: Arc<Tools>,
    writer: Option<Writer>,
    key: Option<String>,
    text: String,
}

const FUNCTION: &str = "<function=";
const PARAMETER: &str = "<parameter=";

impl Function {
    pub(crate) fn new(tools: Arc<Tools>) -> Self {
        Self { tools, writer: None, key: None, text: String::new() }
    }

    /// `<function=` has been seen.
    pub(crate) fn after_marker(tools: Arc<Tools>) -> Self {
        Self { text: FUNCTION.to_owned(), ..Self::new(tools) }
    }
}

impl Body for Function {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        self.text.push(c);
        let Some(writer) = &mut self.writer else {
            let Some(name) = self.text.strip_prefix(FUNCTION) else {
                return if FUNCTION.starts_with(&self.text) { Step::More } else { Step::Bad };
            };
            if let Some(name) = name.strip_suffix('>') {
                if name.trim().is_empty() {
                    return Step::Bad;
                }
                self.writer = Some(Writer::begin(self.tools.clone(), name.trim(), sink));
                self.text.clear();
            }
            return if c == '\n' || self.text.len() > 1024 { Step::Bad } else { Step::More };
        };
        if let Some(key) = &self.key {
            if let Some(text) = self.text.strip_suffix("</parameter>") {
                // The template puts each value on lines of its own.
                let text = text.strip_prefix('\n').unwrap_or(text);
                writer.argument(key, text.strip_suffix('\n').unwrap_or(text), sink);
                self.key = None;
                self.text.clear();
            }
            return Step::More;
        }
        let text = self.text.trim_start();
        if text == "</function>" {
            writer.end(sink);
            return Step::Done;
        }
        if let Some(key) = text.strip_prefix(PARAMETER).and_then(|text| text.strip_suffix('>')) {
            self.key = Some(key.trim().to_owned());
            self.text.clear();
        }
        Step::More
    }

    fn finish(&mut self, sink: &mut Sink) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        unfinished(writer, self.key.as_deref(), &self.text, sink);
        true
    }
}
