//! Calls of the form: head, separator, arguments, closing marker. DeepSeek, Kimi and newer Mistral models write them.

use super::body::{Body, Step, Tail};
use super::json::Arguments;
use super::sink::Sink;

/// Longer heads name no function.
const MOST_HEAD_BYTES: usize = 1024;

/// Name and id of a call, from the text before the separator and the text between it and the arguments.
pub(crate) type NameOf = fn(&str, &str) -> Option<(String, Option<String>)>;

enum State {
    Head,
    Between,
    Arguments(Arguments),
    Tail(Tail),
}

/// One call.
pub(crate) struct Named {
    separator: &'static str,
    name_of: NameOf,
    head: String,
    between: String,
    state: State,
    /// Empty: the call ends with its arguments.
    closer: &'static str,
}

impl Named {
    pub(crate) fn new(separator: &'static str, closer: &'static str, name_of: NameOf) -> Self {
        Self { separator, name_of, head: String::new(), between: String::new(), state: State::Head, closer }
    }
}

impl Body for Named {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step {
        match &mut self.state {
            // Without a separator the arguments' brace is one.
            State::Head if self.separator.is_empty() && c == '{' => {
                self.state = State::Between;
                return self.push(c, sink);
            }
            State::Head => {
                self.head.push(c);
                if !self.separator.is_empty() && self.head.ends_with(self.separator) {
                    self.head.truncate(self.head.len() - self.separator.len());
                    self.state = State::Between;
                } else if self.head.len() > MOST_HEAD_BYTES || c == '\n' {
                    return Step::Bad;
                }
            }
            State::Between if c == '{' => {
                let Some((name, id)) = (self.name_of)(self.head.trim(), self.between.trim()) else {
                    return Step::Bad;
                };
                sink.call(name, id);
                let mut arguments = Arguments::default();
                arguments.push(c, &mut |text| sink.arguments(text));
                self.state = State::Arguments(arguments);
            }
            State::Between => {
                self.between.push(c);
                if self.between.len() > MOST_HEAD_BYTES || c == '<' {
                    return Step::Bad;
                }
            }
            State::Arguments(arguments) => {
                if arguments.push(c, &mut |text| sink.arguments(text)) {
                    sink.end();
                    if self.closer.is_empty() {
                        return Step::Done;
                    }
                    self.state = State::Tail(Tail::new(self.closer, "`"));
                }
            }
            State::Tail(tail) => return tail.push(c),
        }
        Step::More
    }

    fn finish(&mut self, _sink: &mut Sink) -> bool {
        matches!(&self.state, State::Tail(tail) if tail.is_blank())
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
}

/// `function<sep>NAME\n```json\n{…}` (V3, R1) or `NAME<sep>{…}` (V3.1).
pub(crate) fn deepseek(head: &str, between: &str) -> Option<(String, Option<String>)> {
    let name = match between.is_empty() {
        true => head,
        false => between.trim_end_matches("```json").trim_end_matches("```").trim(),
    };
    is_name(name).then(|| (name.to_owned(), None))
}

/// `functions.NAME:INDEX`; the whole is the id that the template wants to see again.
pub(crate) fn kimi(head: &str, between: &str) -> Option<(String, Option<String>)> {
    let (name, index) = head.strip_prefix("functions.").unwrap_or(head).rsplit_once(':')?;
    let fits =
        between.is_empty() && is_name(name) && !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| (name.to_owned(), Some(head.to_owned())))
}

/// `NAME{…}`, `NAME[ARGS]{…}` or `NAME[CALL_ID]ID[ARGS]{…}`.
pub(crate) fn mistral(head: &str, between: &str) -> Option<(String, Option<String>)> {
    let head = head.strip_suffix("[ARGS]").unwrap_or(head).trim_end();
    let (name, id) = match head.split_once("[CALL_ID]") {
        Some((name, id)) => (name.trim(), Some(id.trim().to_owned())),
        None => (head, None),
    };
    (between.is_empty() && is_name(name)).then(|| (name.to_owned(), id.filter(|id| !id.is_empty())))
}
