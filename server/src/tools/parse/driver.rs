//! Text with calls in it: what stands between them is content, and so is what only looks like a call.

use std::sync::Arc;

use super::body::{Body, Step};
use super::buffered::{Gemma, Python};
use super::list::{Hermes, Mistral, Objects};
use super::matcher::Matcher;
use super::named::{self, Named};
use super::sink::Sink;
use super::xml::Glm;
use crate::tools::{Family, Tools};

/// What a marker means.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// A call, or several, follow.
    Opens,
    /// It frames calls and is no text.
    Frames,
}

/// How a family writes calls.
struct Syntax {
    markers: &'static [&'static str],
    roles: &'static [Role],
    /// An answer that begins with this character may be a call without a marker.
    bare: Option<char>,
}

use Role::{Frames, Opens};

fn syntax(family: Family) -> Syntax {
    let (markers, roles, bare): (&[&str], &[Role], _) = match family {
        Family::Hermes | Family::Glm => (&["<tool_call>"], &[Opens], None),
        Family::QwenCoder => (&["<tool_call>", "<function="], &[Opens, Opens], None),
        Family::Llama3 => (&["<|python_tag|>"], &[Opens], Some('{')),
        Family::Mistral => (&["[TOOL_CALLS]"], &[Opens], None),
        Family::DeepSeek => (
            &["<｜tool▁call▁begin｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
            &[Opens, Frames, Frames],
            None,
        ),
        Family::Kimi => (
            &["<|tool_call_begin|>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
            &[Opens, Frames, Frames],
            None,
        ),
        Family::Gemma => (&["<start_function_call>", "<|tool_call>"], &[Opens, Opens], None),
        Family::Pythonic => (&["<|python_start|>", "<|tool_call_start|>"], &[Opens, Opens], Some('[')),
        // Read by a parser of its own.
        Family::Harmony => (&[], &[], None),
    };
    Syntax { markers, roles, bare }
}

fn body(family: Family, marker: Option<usize>, tools: &Arc<Tools>) -> Box<dyn Body> {
    // Without a marker only a name that was offered tells a call from an answer in JSON.
    let known = marker.is_none().then(|| tools.clone());
    match family {
        Family::Hermes | Family::Harmony => Box::new(Hermes::new(tools.clone())),
        Family::QwenCoder if marker == Some(1) => Box::new(super::xml::Function::after_marker(tools.clone())),
        Family::QwenCoder => Box::new(Hermes::new(tools.clone())),
        Family::Llama3 => Box::new(Objects::row(known)),
        Family::Mistral => Box::new(Mistral::Before),
        Family::DeepSeek => Box::new(Named::new("<｜tool▁sep｜>", "<｜tool▁call▁end｜>", named::deepseek)),
        Family::Kimi => {
            Box::new(Named::new("<|tool_call_argument_begin|>", "<|tool_call_end|>", named::kimi))
        }
        Family::Glm => Box::new(Glm::new(tools.clone())),
        Family::Gemma if marker == Some(1) => Box::new(Gemma::new("<|\"|>", "<tool_call|>")),
        Family::Gemma => Box::new(Gemma::new("<escape>", "<end_function_call>")),
        Family::Pythonic => {
            let closer = match marker {
                Some(0) => "<|python_end|>",
                Some(_) => "<|tool_call_end|>",
                None => "",
            };
            Box::new(Python::new(closer, known))
        }
    }
}

/// Reads content and calls.
pub(crate) struct Calls {
    family: Family,
    syntax: Syntax,
    tools: Arc<Tools>,
    matcher: Matcher,
    settled: String,
    /// White space that is content unless a call follows.
    space: String,
    /// White space is what follows a call, and no content.
    behind_call: bool,
    /// Content other than white space has come: no bare call can follow.
    spoken: bool,
    body: Option<Box<dyn Body>>,
    /// What is content if the body turns out to be none: the marker, and what has come since it.
    held: String,
}

impl Calls {
    pub(crate) fn new(family: Family, tools: Arc<Tools>) -> Self {
        let syntax = syntax(family);
        Self {
            family,
            matcher: Matcher::new(syntax.markers),
            syntax,
            tools,
            settled: String::new(),
            space: String::new(),
            behind_call: false,
            spoken: false,
            body: None,
            held: String::new(),
        }
    }

    pub(crate) fn push(&mut self, c: char, sink: &mut Sink) {
        let Some(body) = &mut self.body else { return self.text(c, sink) };
        let n_calls = sink.n_calls();
        let step = body.push(c, sink);
        if sink.is_open() || sink.n_calls() > n_calls {
            self.held.clear();
            self.space.clear();
            self.behind_call = true;
        } else {
            self.held.push(c);
        }
        match step {
            Step::More => {}
            Step::Done => self.leave(),
            Step::Back(text) => {
                self.leave();
                text.chars().for_each(|c| self.push(c, sink));
            }
            Step::Bad => self.not_a_call(sink),
        }
    }

    /// The model has ended.
    pub(crate) fn finish(&mut self, sink: &mut Sink) {
        // What is no call may hold the beginning of another one.
        while let Some(body) = &mut self.body {
            let was_open = sink.is_open();
            if body.finish(sink) || was_open {
                sink.end();
                return self.leave();
            }
            self.not_a_call(sink);
        }
        let rest = self.matcher.flush();
        self.say(&rest, sink);
        if !self.behind_call {
            sink.content(&std::mem::take(&mut self.space));
        }
    }

    fn leave(&mut self) {
        self.body = None;
        self.held.clear();
    }

    /// The held text begins with what opened the body: that is content for certain, the rest is looked at again.
    fn not_a_call(&mut self, sink: &mut Sink) {
        self.body = None;
        let held = std::mem::take(&mut self.held);
        let opened = self.syntax.markers.iter().find(|marker| held.starts_with(**marker));
        let first =
            opened.map_or_else(|| held.chars().next().map_or(0, char::len_utf8), |marker| marker.len());
        self.say(&held[..first], sink);
        held[first..].chars().for_each(|c| self.push(c, sink));
    }

    fn text(&mut self, c: char, sink: &mut Sink) {
        if self.syntax.bare == Some(c) && !self.spoken && self.matcher.is_idle() {
            return self.open(None, c, sink);
        }
        let mut settled = std::mem::take(&mut self.settled);
        let marker = self.matcher.push(c, &mut settled);
        self.say(&settled, sink);
        settled.clear();
        self.settled = settled;
        let Some(index) = marker else { return };
        match self.syntax.roles[index] {
            Role::Frames => {}
            Role::Opens => {
                self.held = self.syntax.markers[index].to_owned();
                self.body = Some(body(self.family, marker, &self.tools));
            }
        }
    }

    fn open(&mut self, marker: Option<usize>, c: char, sink: &mut Sink) {
        self.body = Some(body(self.family, marker, &self.tools));
        self.held.clear();
        self.push(c, sink);
    }

    /// Content; white space at its end waits for what follows.
    fn say(&mut self, text: &str, sink: &mut Sink) {
        for c in text.chars() {
            if c.is_whitespace() {
                self.space.push(c);
                continue;
            }
            // Line ends between calls and behind them are no answer.
            if std::mem::take(&mut self.behind_call) {
                self.space.clear();
            }
            sink.content(&self.space);
            self.space.clear();
            sink.content(c.encode_utf8(&mut [0; 4]));
            self.spoken = true;
        }
    }
}
