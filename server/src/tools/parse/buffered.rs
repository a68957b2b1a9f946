//! Calls that are read once they are whole: Gemma's and Python's forms have to be rewritten as JSON.

use std::sync::Arc;

use super::body::{Body, Step};
use super::json::MOST_HELD_BYTES;
use super::literal::{Reader, Style};
use super::sink::Sink;
use crate::tools::Tools;

/// `call:NAME{key:value, …}` up to a closing marker.
pub(crate) struct Gemma {
    quote: &'static str,
    closer: &'static str,
    text: String,
}

impl Gemma {
    pub(crate) fn new(quote: &'static str, closer: &'static str) -> Self {
        Self { quote, closer, text: String::new() }
    }

    fn read(&self, text: &str, sink: &mut Sink) -> bool {
        let mut reader = Reader { rest: text, style: Style::Gemma(self.quote) };
        let mut calls = Vec::new();
        while reader.eat("call:") {
            let Some(name) = reader.word() else { return false };
            let Some(arguments) = reader.object(0) else { return false };
            calls.push((name.to_owned(), arguments));
            reader.eat(",");
        }
        let whole = !calls.is_empty() && reader.rest.trim().is_empty();
        if whole {
            for (name, arguments) in calls {
                sink.whole(name, &serde_json::Value::Object(arguments).to_string());
            }
        }
        whole
    }
}

impl Body for Gemma {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        self.text.push(c);
        if let Some(text) = self.text.strip_suffix(self.closer) {
            // Inside of a string it is text.
            if text.matches(self.quote).count().is_multiple_of(2) {
                return if self.read(text, sink) { Step::Done } else { Step::Bad };
            }
        }
        if self.text.len() > MOST_HELD_BYTES { Step::Bad } else { Step::More }
    }

    fn finish(&mut self, sink: &mut Sink) -> bool {
        self.read(&self.text, sink)
    }
}

/// `[f(a=1), g(b='x')]`, up to a closing marker if there is one.
pub(crate) struct Python {
    text: String,
    depth: usize,
    quote: Option<char>,
    escaped: bool,
    whole: bool,
    closer: &'static str,
    known: Option<Arc<Tools>>,
}

impl Python {
    /// `known`: if set, other names are no calls.
    pub(crate) fn new(closer: &'static str, known: Option<Arc<Tools>>) -> Self {
        let text = String::new();
        Self { text, depth: 0, quote: None, escaped: false, whole: false, closer, known }
    }

    fn read(&self, sink: &mut Sink) -> bool {
        let Some(calls) = calls(&self.text) else { return false };
        if let Some(tools) = &self.known
            && !calls.iter().all(|(name, _)| tools.has(name))
        {
            return false;
        }
        for (name, arguments) in calls {
            sink.whole(name, &arguments);
        }
        true
    }

    fn nest(&mut self, c: char) {
        match self.quote {
            Some(_) if self.escaped => self.escaped = false,
            Some(_) if c == '\\' => self.escaped = true,
            Some(quote) if c == quote => self.quote = None,
            Some(_) => {}
            None => match c {
                '\'' | '"' => self.quote = Some(c),
                '[' | '(' | '{' => self.depth += 1,
                ']' | ')' | '}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            },
        }
    }

    /// Lists of something else are told apart early, so that they are not held back.
    fn may_be_calls(&self) -> bool {
        let text = self.text.trim_start();
        let Some(inner) = text.strip_prefix('[') else { return text.is_empty() };
        let inner = inner.trim_start();
        let end =
            inner.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.')).unwrap_or(inner.len());
        let begins = inner.is_empty() || inner.starts_with(|c: char| c.is_alphabetic() || c == '_');
        begins
            && (end == inner.len()
                || inner[end..].trim_start().starts_with('(')
                || inner[end..].trim().is_empty())
    }
}

fn calls(text: &str) -> Option<Vec<(String, String)>> {
    let mut reader = Reader { rest: text, style: Style::Python };
    let mut calls = Vec::new();
    reader.eat("[").then_some(())?;
    loop {
        let name = reader.word()?;
        let mut arguments = serde_json::Map::new();
        reader.eat("(").then_some(())?;
        while !reader.eat(")") {
            let key = reader.word()?;
            reader.eat("=").then_some(())?;
            arguments.insert(key.to_owned(), reader.value(0)?);
            if !reader.eat(",") {
                reader.eat(")").then_some(())?;
                break;
            }
        }
        calls.push((name.to_owned(), serde_json::Value::Object(arguments).to_string()));
        reader.eat(",");
        if reader.eat("]") {
            return reader.rest.trim().is_empty().then_some(calls);
        }
    }
}

impl Body for Python {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        if self.whole {
            // Between the list and its closing marker.
            self.text.push(c);
            let seen = self.text.trim_start();
            return match (seen == self.closer, self.closer.starts_with(seen)) {
                (true, _) => Step::Done,
                (false, true) => Step::More,
                (false, false) => Step::Back(std::mem::take(&mut self.text)),
            };
        }
        self.text.push(c);
        self.nest(c);
        if !self.may_be_calls() || self.text.len() > MOST_HELD_BYTES {
            return Step::Bad;
        }
        if self.depth > 0 || c.is_whitespace() || self.quote.is_some() {
            return Step::More;
        }
        if !self.read(sink) {
            return Step::Bad;
        }
        self.text.clear();
        self.whole = true;
        if self.closer.is_empty() { Step::Done } else { Step::More }
    }

    fn finish(&mut self, _sink: &mut Sink) -> bool {
        self.whole && self.closer.starts_with(self.text.trim_start())
    }
}
