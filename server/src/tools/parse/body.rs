//! What follows the marker that opens a call.

use super::sink::Sink;

/// What became of a character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    More,
    /// It was the last; text follows.
    Done,
    /// These characters, the last one included, are not part of it any more.
    Back(String),
    /// What has come since the marker, or since the last whole call, is none. Never said while a call is open.
    Bad,
}

/// Reads calls behind a marker.
pub(crate) trait Body: Send {
    fn push(&mut self, c: char, sink: &mut Sink) -> Step;

    /// The model has ended. `false`: as [`Step::Bad`]. An open call is ended by whoever asks.
    fn finish(&mut self, _sink: &mut Sink) -> bool {
        false
    }
}

/// What may stand between a whole call and the marker that closes it.
#[derive(Debug)]
pub(crate) struct Tail {
    closer: &'static str,
    /// Passed over beside white space.
    over: &'static str,
    seen: String,
    matched: usize,
}

impl Tail {
    pub(crate) fn new(closer: &'static str, over: &'static str) -> Self {
        Self { closer, over, seen: String::new(), matched: 0 }
    }

    pub(crate) fn push(&mut self, c: char) -> Step {
        self.seen.push(c);
        if self.closer[self.matched..].starts_with(c) {
            self.matched += c.len_utf8();
            return if self.matched == self.closer.len() { Step::Done } else { Step::More };
        }
        match self.matched == 0 && (c.is_whitespace() || self.over.contains(c)) {
            true => Step::More,
            false => Step::Back(std::mem::take(&mut self.seen)),
        }
    }

    /// Whether nothing but white space and the like has come.
    pub(crate) fn is_blank(&self) -> bool {
        self.matched > 0 || self.seen.chars().all(|c| c.is_whitespace() || self.over.contains(c))
    }
}
