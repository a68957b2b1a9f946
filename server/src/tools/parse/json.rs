//! JSON text that comes character by character: where a value ends, and objects that say which function to call.

use std::sync::Arc;

use serde_json::Value;

use super::sink::Sink;
use crate::tools::Tools;

/// Longest text that is held back for a call whose name has not come.
pub(crate) const MOST_HELD_BYTES: usize = 256 << 10;

/// Where a character stands in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// In it.
    Inside,
    /// At its end.
    Last,
    /// Behind a number or word, of which it is no part.
    Past,
    /// It cannot stand there.
    Nowhere,
}

/// Follows one value to its end. Only brackets and strings are looked at.
#[derive(Debug, Default)]
pub(crate) struct Span {
    begun: bool,
    depth: usize,
    string: bool,
    escaped: bool,
}

impl Span {
    pub(crate) fn in_string(&self) -> bool {
        self.string
    }

    pub(crate) fn push(&mut self, c: char) -> At {
        if self.string {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => {
                    self.string = false;
                    return if self.depth == 0 { At::Last } else { At::Inside };
                }
                _ => {}
            }
            return At::Inside;
        }
        match c {
            '"' if self.depth > 0 || !self.begun => self.string = true,
            '{' | '[' if self.depth > 0 || !self.begun => self.depth += 1,
            '}' | ']' if self.depth > 0 => {
                self.depth -= 1;
                if self.depth == 0 {
                    return At::Last;
                }
            }
            _ if self.depth > 0 => {}
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.') => {}
            ',' | '}' | ']' if self.begun => return At::Past,
            c if c.is_whitespace() && self.begun => return At::Past,
            _ => return At::Nowhere,
        }
        self.begun = true;
        At::Inside
    }
}

/// Follows an object of arguments and hands it on, with line ends inside of strings written as JSON wants them.
#[derive(Debug, Default)]
pub(crate) struct Arguments(Span);

impl Arguments {
    /// Whether `c` was the last character.
    pub(crate) fn push(&mut self, c: char, out: &mut impl FnMut(&str)) -> bool {
        let raw = self.0.in_string() && c < ' ';
        let at = self.0.push(c);
        match c {
            '\n' if raw => out("\\n"),
            '\r' if raw => out("\\r"),
            '\t' if raw => out("\\t"),
            _ => out(c.encode_utf8(&mut [0; 4])),
        }
        at == At::Last
    }
}

/// What became of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    /// It was the object's last.
    Done,
    /// This is no call.
    Bad,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Arguments,
    Other,
}

#[derive(Debug)]
enum State {
    /// Before the brace.
    Open,
    /// Before a key, or the end.
    Key,
    InKey(String, Span),
    Colon,
    Value,
    InValue(Field, String, Span),
    /// Arguments that go out as they come.
    Streaming(Arguments),
    After,
}

/// `{"name": …, "arguments": {…}}`, in either order, with `parameters` for `arguments`, and with OpenAI's `function`
/// around both. Arguments go out as they come once the name is known.
#[derive(Debug)]
pub(crate) struct Envelope {
    state: State,
    key: String,
    nested: usize,
    name: Option<String>,
    arguments: Option<String>,
    emitted: bool,
    /// If set, other names are no calls.
    known: Option<Arc<Tools>>,
}

impl Envelope {
    pub(crate) fn new(known: Option<Arc<Tools>>) -> Self {
        let (key, name, arguments) = (String::new(), None, None);
        Self { state: State::Open, key, nested: 0, name, arguments, emitted: false, known }
    }

    /// Whether its call has gone out.
    pub(crate) fn emitted(&self) -> bool {
        self.emitted
    }

    pub(crate) fn push(&mut self, c: char, sink: &mut Sink) -> Progress {
        match &mut self.state {
            State::InKey(text, span) => {
                text.push(c);
                match span.push(c) {
                    At::Inside => return Progress::More,
                    At::Last => self.key = decode(text),
                    At::Past | At::Nowhere => return Progress::Bad,
                }
                self.state = State::Colon;
            }
            State::InValue(field, text, span) => match span.push(c) {
                At::Inside => text.push(c),
                At::Last => {
                    text.push(c);
                    let (field, text) = (*field, std::mem::take(text));
                    self.state = State::After;
                    return self.value(field, &text, sink);
                }
                At::Past => {
                    let (field, text) = (*field, std::mem::take(text));
                    self.state = State::After;
                    match self.value(field, &text, sink) {
                        Progress::More => return self.after(c, sink),
                        other => return other,
                    }
                }
                At::Nowhere => return Progress::Bad,
            },
            State::Streaming(arguments) => {
                if arguments.push(c, &mut |text| sink.arguments(text)) {
                    sink.end();
                    self.state = State::After;
                }
            }
            _ if c.is_whitespace() => {}
            State::Open if c == '{' => self.state = State::Key,
            State::Key if c == '"' => {
                let mut span = Span::default();
                span.push(c);
                self.state = State::InKey(c.into(), span);
            }
            State::Key if c == '}' => return self.close(sink),
            State::Colon if c == ':' => self.state = State::Value,
            State::Value => return self.begin_value(c, sink),
            State::After => return self.after(c, sink),
            State::Open | State::Key | State::Colon => return Progress::Bad,
        }
        Progress::More
    }

    fn begin_value(&mut self, c: char, sink: &mut Sink) -> Progress {
        let field = match self.key.as_str() {
            "function" if c == '{' => {
                self.nested += 1;
                self.state = State::Key;
                return Progress::More;
            }
            "name" | "function" if self.name.is_none() => Field::Name,
            "arguments" | "parameters" if !self.emitted && self.arguments.is_none() => Field::Arguments,
            _ => Field::Other,
        };
        if let (Field::Arguments, '{', Some(name)) = (field, c, &self.name) {
            sink.call(name.clone(), None);
            self.emitted = true;
            let mut arguments = Arguments::default();
            arguments.push(c, &mut |text| sink.arguments(text));
            self.state = State::Streaming(arguments);
            return Progress::More;
        }
        let mut span = Span::default();
        if span.push(c) == At::Nowhere {
            return Progress::Bad;
        }
        self.state = State::InValue(field, c.into(), span);
        Progress::More
    }

    /// A value is whole.
    fn value(&mut self, field: Field, text: &str, sink: &mut Sink) -> Progress {
        match field {
            Field::Other => {}
            Field::Name => match serde_json::from_str::<String>(text) {
                Ok(name) if self.may_be(&name) => self.name = Some(name),
                _ => return Progress::Bad,
            },
            Field::Arguments => {
                let Some(arguments) = whole_arguments(text) else { return Progress::Bad };
                match &self.name {
                    Some(name) => {
                        sink.whole(name.clone(), &arguments);
                        self.emitted = true;
                    }
                    None => self.arguments = Some(arguments),
                }
            }
        }
        Progress::More
    }

    fn may_be(&self, name: &str) -> bool {
        !name.is_empty() && self.known.as_ref().is_none_or(|tools| tools.has(name))
    }

    fn after(&mut self, c: char, sink: &mut Sink) -> Progress {
        match c {
            c if c.is_whitespace() => Progress::More,
            ',' => {
                self.state = State::Key;
                Progress::More
            }
            '}' => self.close(sink),
            _ => Progress::Bad,
        }
    }

    fn close(&mut self, sink: &mut Sink) -> Progress {
        if self.nested > 0 {
            self.nested -= 1;
            self.state = State::After;
            return Progress::More;
        }
        match (&self.name, self.emitted) {
            (_, true) => Progress::Done,
            (Some(name), false) => {
                sink.whole(name.clone(), self.arguments.as_deref().unwrap_or("{}"));
                self.emitted = true;
                Progress::Done
            }
            (None, false) => Progress::Bad,
        }
    }
}

fn decode(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_default()
}

/// Arguments that came as a whole value: an object, or what some models write instead of one.
fn whole_arguments(text: &str) -> Option<String> {
    if text.starts_with('{') {
        return Some(text.to_owned());
    }
    match serde_json::from_str(text) {
        Ok(Value::Null) => Some("{}".to_owned()),
        Ok(Value::String(inner)) if inner.trim().is_empty() => Some("{}".to_owned()),
        // JSON inside of a string.
        Ok(Value::String(inner)) => Some(inner),
        _ => None,
    }
}
