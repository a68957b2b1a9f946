//! Arguments that are no JSON: Gemma's `{key:value}` and Python's literals, read into JSON.

use serde_json::{Map, Value};

/// Deeper values are no arguments.
const MOST_DEPTH: usize = 64;

/// How strings and words are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `'a'`, `"a"`, `True`, `None`, keys of dicts are values.
    Python,
    /// Strings stand between two of these marks; keys are bare.
    Gemma(&'static str),
}

/// Reads from the front of a text.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a str,
    pub(crate) style: Style,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Passes over a word, if it is next.
    pub(crate) fn eat(&mut self, word: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Letters, digits, underscores, dots and dashes.
    pub(crate) fn word(&mut self) -> Option<&'a str> {
        self.space();
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// `None`: it is no value.
    pub(crate) fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MOST_DEPTH {
            return None;
        }
        self.space();
        match self.rest.chars().next()? {
            '[' => self.items("[", "]", depth).map(Value::Array),
            '(' if self.style == Style::Python => self.items("(", ")", depth).map(Value::Array),
            '{' => self.object(depth).map(Value::Object),
            quote @ ('\'' | '"') if self.style == Style::Python => {
                self.python_string(quote).map(Value::String)
            }
            _ => {
                if let Style::Gemma(mark) = self.style
                    && self.eat(mark)
                {
                    let (text, rest) = self.rest.split_once(mark)?;
                    self.rest = rest;
                    return Some(Value::from(text));
                }
                self.word().and_then(scalar)
            }
        }
    }

    fn items(&mut self, open: &str, close: &str, depth: usize) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        self.eat(open).then_some(())?;
        while !self.eat(close) {
            items.push(self.value(depth + 1)?);
            if !self.eat(",") {
                return self.eat(close).then_some(items);
            }
        }
        Some(items)
    }

    /// `{key: value, …}`.
    pub(crate) fn object(&mut self, depth: usize) -> Option<Map<String, Value>> {
        let mut map = Map::new();
        self.eat("{").then_some(())?;
        while !self.eat("}") {
            let key = match self.style {
                Style::Python => match self.value(depth + 1)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                },
                Style::Gemma(mark) if self.rest.trim_start().starts_with(mark) => {
                    self.value(depth + 1)?.as_str()?.to_owned()
                }
                Style::Gemma(_) => self.word()?.to_owned(),
            };
            self.eat(":").then_some(())?;
            map.insert(key, self.value(depth + 1)?);
            if !self.eat(",") {
                return self.eat("}").then_some(map);
            }
        }
        Some(map)
    }

    fn python_string(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((index, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[index + c.len_utf8()..];
                    return Some(text);
                }
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    '0' => text.push('\0'),
                    c @ ('\\' | '\'' | '"') => text.push(c),
                    '\n' => {}
                    'x' => text.push(code(&mut chars, 2)?),
                    'u' => text.push(code(&mut chars, 4)?),
                    'U' => text.push(code(&mut chars, 8)?),
                    other => text.extend(['\\', other]),
                },
                c => text.push(c),
            }
        }
        None
    }
}

fn code(chars: &mut impl Iterator<Item = (usize, char)>, n: usize) -> Option<char> {
    let mut code = 0;
    for _ in 0..n {
        code = code * 16 + chars.next()?.1.to_digit(16)?;
    }
    char::from_u32(code)
}

fn scalar(word: &str) -> Option<Value> {
    match word {
        "True" | "true" => Some(Value::Bool(true)),
        "False" | "false" => Some(Value::Bool(false)),
        "None" | "null" => Some(Value::Null),
        number => {
            let plain = number.strip_prefix('+').unwrap_or(number);
            plain.parse::<i64>().map(Value::from).ok().or_else(|| {
                let fits = plain.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.'));
                plain.parse::<f64>().ok().filter(|number| fits && number.is_finite()).map(Value::from)
            })
        }
    }
}
