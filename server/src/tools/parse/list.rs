//! Calls as JSON objects: one behind a marker (Hermes, Qwen), several in a row (Llama 3), or an array of them (Mistral).

use std::sync::Arc;

use super::body::{Body, Step, Tail};
use super::json::{Envelope, Progress};
use super::sink::Sink;
use super::xml::Function;
use crate::tools::Tools;

/// One object and a closing marker. Qwen's coders write their `<function=…>` there instead.
pub(crate) enum Hermes {
    Before(Arc<Tools>),
    Object(Envelope),
    Function(Function),
    Tail(Tail),
}

const HERMES_END: &str = "</tool_call>";

impl Hermes {
    pub(crate) fn new(tools: Arc<Tools>) -> Self {
        Self::Before(tools)
    }

    fn tail(&mut self) {
        *self = Self::Tail(Tail::new(HERMES_END, "}"));
    }
}

impl Body for Hermes {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match self {
            Self::Before(_) if c.is_whitespace() => {}
            Self::Before(_) if c == '{' => {
                *self = Self::Object(Envelope::new(None));
                return self.push(c, sink);
            }
            Self::Before(tools) if c == '<' => {
                *self = Self::Function(Function::new(tools.clone()));
                return self.push(c, sink);
            }
            Self::Before(_) => return Step::Bad,
            Self::Object(envelope) => match envelope.push(c, sink) {
                Progress::More => {}
                Progress::Done => self.tail(),
                // The call is whole, and its object is not: a brace was forgotten.
                Progress::Bad if envelope.emitted() => {
                    self.tail();
                    return self.push(c, sink);
                }
                Progress::Bad => return Step::Bad,
            },
            Self::Function(function) => match function.push(c, sink) {
                Step::Done => self.tail(),
                step => return step,
            },
            Self::Tail(tail) => return tail.push(c),
        }
        Step::More
    }

    fn finish(&mut self, sink: &mut Sink) -> bool {
        match self {
            Self::Before(_) => false,
            Self::Object(envelope) => envelope.emitted(),
            Self::Function(function) => function.finish(sink),
            Self::Tail(tail) => tail.is_blank(),
        }
    }
}

/// Objects with `;` or `,` between them, or an array of objects.
pub(crate) struct Objects {
    array: bool,
    envelope: Option<Envelope>,
    /// What has come since the last object.
    between: String,
    n: usize,
    known: Option<Arc<Tools>>,
}

impl Objects {
    /// In a row. `known`: see [`Envelope::new`].
    pub(crate) fn row(known: Option<Arc<Tools>>) -> Self {
        Self { array: false, envelope: None, between: String::new(), n: 0, known }
    }

    /// `[…, …]`.
    pub(crate) fn array() -> Self {
        Self { array: true, ..Self::row(None) }
    }

    fn gap(&mut self, c: char, sink: &mut Sink) -> Step {
        self.between.push(c);
        match c {
            '{' => {
                self.between.clear();
                let mut envelope = Envelope::new(self.known.clone());
                envelope.push(c, sink);
                self.envelope = Some(envelope);
                Step::More
            }
            ']' if self.array && self.n > 0 => Step::Done,
            '[' if self.array && self.n == 0 && self.between.trim() == "[" => Step::More,
            ',' if self.n > 0 => Step::More,
            ';' if self.n > 0 && !self.array => Step::More,
            c if c.is_whitespace() => Step::More,
            _ if self.n > 0 => Step::Back(std::mem::take(&mut self.between)),
            _ => Step::Bad,
        }
    }
}

impl Body for Objects {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        let Some(envelope) = &mut self.envelope else { return self.gap(c, sink) };
        match envelope.push(c, sink) {
            Progress::More => Step::More,
            Progress::Done => {
                self.n += 1;
                self.envelope = None;
                Step::More
            }
            Progress::Bad if envelope.emitted() => {
                self.n += 1;
                self.envelope = None;
                self.gap(c, sink)
            }
            Progress::Bad => Step::Bad,
        }
    }

    fn finish(&mut self, _sink: &mut Sink) -> bool {
        match &self.envelope {
            Some(envelope) => envelope.emitted(),
            None => self.n > 0 && self.between.trim_matches([';', ',', ' ', '\n', '\r', '\t']).is_empty(),
        }
    }
}

/// Mistral's two forms: an array of objects, or `NAME[ARGS]{…}`.
pub(crate) enum Mistral {
    Before,
    Array(Objects),
    Named(super::named::Named),
}

impl Body for Mistral {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match self {
            Self::Before if c.is_whitespace() => Step::More,
            Self::Before => {
                *self = match c {
                    '[' => Self::Array(Objects::array()),
                    '{' => Self::Array(Objects::row(None)),
                    _ => Self::Named(super::named::Named::new("", "", super::named::mistral)),
                };
                self.push(c, sink)
            }
            Self::Array(objects) => objects.push(c, sink),
            Self::Named(named) => named.push(c, sink),
        }
    }

    fn finish(&mut self, sink: &mut Sink) -> bool {
        match self {
            Self::Before => false,
            Self::Array(objects) => objects.finish(sink),
            Self::Named(named) => named.finish(sink),
        }
    }
}
