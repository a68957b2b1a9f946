//! The model's text, in whatever pieces it comes → content, reasoning and tool calls.
//!
//! Everything here works character by character, so that how the text was cut cannot matter; nothing is lost: what looks
//! like a call and is none comes out as content, and once a call's name has gone out, the rest of it is its arguments,
//! well-formed or not.

mod body;
mod buffered;
mod driver;
mod harmony;
mod json;
mod list;
mod literal;
mod matcher;
mod named;
mod sink;
#[cfg(test)]
mod tests;
mod xml;

use std::sync::Arc;

use self::driver::Calls;
use self::harmony::Harmony;
use self::sink::Sink;
use super::{Family, Tools};
use crate::reasoning::{Split, Start, Tags};

pub(crate) use matcher::Matcher;
pub(crate) use sink::Piece;

/// What is looked for in an answer.
#[derive(Debug, Clone)]
pub(crate) struct ParseOptions {
    /// Calls of these tools, written as this family does.
    pub(crate) calls: Option<(Family, Arc<Tools>)>,
    /// Thinking between these tags, and whether the prompt has opened it.
    pub(crate) reasoning: Option<(Tags, Start)>,
    /// Everything in gpt-oss's format.
    pub(crate) harmony: bool,
    /// What follows the first call is nobody's.
    pub(crate) only_one_call: bool,
}

impl ParseOptions {
    /// All text is content.
    pub(crate) const PLAIN: Self =
        Self { calls: None, reasoning: None, harmony: false, only_one_call: false };

    /// The thinking that the prompt has opened.
    pub(crate) fn opened_thinking(&self) -> Option<Tags> {
        self.reasoning.and_then(|(tags, start)| (start == Start::Inside).then_some(tags))
    }

    /// Whether text is content and nothing else.
    pub(crate) fn is_plain(&self) -> bool {
        self.calls.is_none() && self.reasoning.is_none() && !self.harmony
    }
}

/// Reads one answer.
pub(crate) struct OutputParser {
    split: Option<Split>,
    reader: Reader,
    sink: Sink,
    only_one_call: bool,
    settled: String,
}

enum Reader {
    Plain,
    Calls(Box<Calls>),
    Harmony(Box<Harmony>),
}

impl OutputParser {
    pub(crate) fn new(options: &ParseOptions) -> Self {
        let reader = match &options.calls {
            calls if options.harmony => Reader::Harmony(Box::new(Harmony::new(calls.is_some()))),
            Some((family, tools)) => Reader::Calls(Box::new(Calls::new(*family, tools.clone()))),
            None => Reader::Plain,
        };
        let split = options.reasoning.map(|(tags, start)| Split::new(tags, start));
        let split = split.filter(|_| !options.harmony);
        let only_one_call = options.only_one_call;
        Self { split, reader, sink: Sink::default(), only_one_call, settled: String::new() }
    }

    /// What this text makes certain.
    pub(crate) fn push(&mut self, text: &str) -> std::vec::Drain<'_, Piece> {
        for c in text.chars() {
            match &mut self.split {
                Some(split) => split.push(c, &mut self.settled, &mut |text| self.sink.reasoning(text)),
                None => self.settled.push(c),
            }
            self.read_settled();
        }
        self.sink.drain()
    }

    /// What was held back; an open call ends.
    pub(crate) fn finish(&mut self) -> std::vec::Drain<'_, Piece> {
        if let Some(split) = &mut self.split {
            split.finish(&mut self.settled, &mut |text| self.sink.reasoning(text));
        }
        self.read_settled();
        let is_enough = self.is_enough();
        match &mut self.reader {
            _ if is_enough => {}
            Reader::Plain => {}
            Reader::Calls(calls) => calls.finish(&mut self.sink),
            Reader::Harmony(harmony) => harmony.finish(&mut self.sink),
        }
        self.sink.end();
        self.sink.drain()
    }

    /// Whether the model is thinking.
    pub(crate) fn is_thinking(&self) -> bool {
        match &self.reader {
            Reader::Harmony(harmony) => harmony.is_thinking(),
            _ => self.split.as_ref().is_some_and(Split::is_inside),
        }
    }

    fn is_enough(&self) -> bool {
        self.only_one_call && self.sink.n_calls() > 0 && !self.sink.is_open()
    }

    fn read_settled(&mut self) {
        if self.settled.is_empty() {
            return;
        }
        let settled = std::mem::take(&mut self.settled);
        match &mut self.reader {
            Reader::Plain => self.sink.content(&settled),
            _ => settled.chars().for_each(|c| self.read(c)),
        }
        self.settled = settled;
        self.settled.clear();
    }

    fn read(&mut self, c: char) {
        if self.is_enough() {
            return;
        }
        match &mut self.reader {
            Reader::Plain => {}
            Reader::Calls(calls) => calls.push(c, &mut self.sink),
            Reader::Harmony(harmony) => harmony.push(c, &mut self.sink),
        }
    }
}
