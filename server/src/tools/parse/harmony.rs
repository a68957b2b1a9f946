//! gpt-oss's format: every part of an answer is a message with a channel, and a call is one with a recipient.

use super::matcher::Matcher;
use super::sink::Sink;

const MARKS: &[&str] =
    &["<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|call|>", "<|return|>", "<|constrain|>"];
const CHANNEL: usize = 0;
const MESSAGE: usize = 1;
const START: usize = 3;
const CONSTRAIN: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between messages; the text there is a header if a message mark follows.
    Header,
    Thinking,
    Call,
    Text,
}

/// Reads messages.
pub(crate) struct Harmony {
    matcher: Matcher,
    state: State,
    header: String,
    /// A mark has come: text between messages is a header.
    marked: bool,
    tools: bool,
    settled: String,
}

impl Harmony {
    /// `tools`: whether recipients are called.
    pub(crate) fn new(tools: bool) -> Self {
        let (header, settled) = (String::new(), String::new());
        Self { matcher: Matcher::new(MARKS), state: State::Header, header, marked: false, tools, settled }
    }

    pub(crate) fn is_thinking(&self) -> bool {
        self.state == State::Thinking
    }

    pub(crate) fn push(&mut self, c: char, sink: &mut Sink) {
        let mark = self.matcher.push(c, &mut self.settled);
        let text = std::mem::take(&mut self.settled);
        self.text(&text, sink);
        match mark {
            None => {}
            Some(MESSAGE) if self.state == State::Header => self.begin(sink),
            // Marks of the header; they part its words.
            Some(CHANNEL | CONSTRAIN) if self.state == State::Header => {
                self.marked = true;
                self.header.push(' ');
            }
            Some(mark) => {
                sink.end();
                self.state = State::Header;
                self.marked = matches!(mark, CHANNEL | START);
                self.header.clear();
            }
        }
    }

    fn text(&mut self, text: &str, sink: &mut Sink) {
        match self.state {
            // A model that does not keep to its format answers all the same.
            State::Header if !(self.marked || (self.header.is_empty() && text.trim().is_empty())) => {
                sink.content(text);
                self.state = State::Text;
            }
            State::Header => self.header.push_str(text),
            State::Thinking => sink.reasoning(text),
            State::Call => sink.arguments(text),
            State::Text => sink.content(text),
        }
    }

    /// Of `assistant commentary to=functions.NAME json` the channel and the recipient are read.
    fn begin(&mut self, sink: &mut Sink) {
        let mut words = self.header.split_whitespace();
        let recipient = words.clone().find_map(|word| word.strip_prefix("to="));
        let name = recipient.map(|to| to.strip_prefix("functions.").unwrap_or(to));
        self.state = match name.filter(|name| self.tools && !name.is_empty()) {
            Some(name) => {
                sink.call(name.to_owned(), None);
                State::Call
            }
            None if words.any(|word| word.starts_with("analysis")) => State::Thinking,
            None => State::Text,
        };
        self.header.clear();
        self.marked = false;
    }

    pub(crate) fn finish(&mut self, sink: &mut Sink) {
        let rest = self.matcher.flush();
        self.text(&rest, sink);
        sink.end();
        if self.state == State::Header {
            let header = std::mem::take(&mut self.header);
            sink.content(header.trim());
        }
    }
}
