//! What a parser finds, in order.

/// A part of an answer. Calls do not interleave: what follows a `Call` until its `CallEnd` is its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text for the reader.
    Content(String),
    /// The model's thinking.
    Reasoning(String),
    /// A call begins; the id is the model's own, where its format has one.
    Call { name: String, id: Option<String> },
    /// More of the call's arguments: JSON text.
    Arguments(String),
    /// The call is whole.
    CallEnd,
}

/// Collects pieces; neighbours of one kind become one, so that chunks of the model's text do not show.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pieces: Vec<Piece>,
    open: bool,
    n_calls: usize,
}

impl Sink {
    /// Whether a call has begun and not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Calls that have begun.
    pub(crate) fn n_calls(&self) -> usize {
        self.n_calls
    }

    pub(crate) fn content(&mut self, text: &str) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Content(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Content(text.to_owned())),
        }
    }

    pub(crate) fn reasoning(&mut self, text: &str) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Reasoning(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Reasoning(text.to_owned())),
        }
    }

    pub(crate) fn call(&mut self, name: String, id: Option<String>) {
        self.end();
        self.open = true;
        self.n_calls += 1;
        self.pieces.push(Piece::Call { name, id });
    }

    pub(crate) fn arguments(&mut self, text: &str) {
        match self.pieces.last_mut() {
            _ if text.is_empty() || !self.open => {}
            Some(Piece::Arguments(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Arguments(text.to_owned())),
        }
    }

    /// The open call, if there is one, is whole.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            self.pieces.push(Piece::CallEnd);
        }
    }

    /// A call that is known as a whole.
    pub(crate) fn whole(&mut self, name: String, arguments: &str) {
        self.call(name, None);
        self.arguments(arguments);
        self.end();
    }

    /// What has come since the last time.
    pub(crate) fn drain(&mut self) -> std::vec::Drain<'_, Piece> {
        self.pieces.drain(..)
    }
}
