//! Stop strings over a stream of text, whatever its pieces.

/// Finds the first stop string in text that arrives in pieces, and holds back text that may become one.
///
/// The first stop string to be *complete* wins, and of those complete at the same byte the longest, so that the
/// answer does not depend on how the text was cut. Text is held back exactly as long as its end is the beginning of
/// a stop string. An empty stop string never matches (the request that carries one is refused earlier).
///
/// Each stop string keeps its own Knuth-Morris-Pratt state: requests carry a handful, and a joint automaton
/// (aho-corasick) does not tell the depth of its state, which is the number of bytes to hold back.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    patterns: Vec<Pattern>,
    /// Seen and not sent: the longest end of the text that begins a stop string.
    held: String,
    emit: String,
    matched: Option<usize>,
}

/// What a piece of text made safe to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopStep<'a> {
    /// Text that belongs to no stop string, to be sent now.
    pub emit: &'a str,
    /// The stop string (its index in the list given) that ends the text after `emit`.
    pub matched: Option<usize>,
}

impl StopMatcher {
    /// A matcher at the start of a text.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        let patterns = stops.into_iter().map(Pattern::new).collect();
        Self { patterns, held: String::new(), emit: String::new(), matched: None }
    }

    /// Takes the next piece. After a match nothing more is emitted and the same match is reported.
    pub fn push(&mut self, text: &str) -> StopStep<'_> {
        self.emit.clear();
        if self.matched.is_none() {
            self.held.push_str(text);
            let n_before = self.held.len() - text.len();
            let n_safe = match self.advance(text.as_bytes()) {
                Some((index, end)) => {
                    self.matched = Some(index);
                    n_before + end - self.patterns[index].bytes.len()
                }
                None => self.held.len() - self.n_held(),
            };
            self.emit.extend(self.held.drain(..n_safe));
            if self.matched.is_some() {
                self.held.clear();
            }
        }
        StopStep { emit: &self.emit, matched: self.matched }
    }

    /// The end of the text: what was held back and did not become a stop string. Empty after a match.
    pub fn flush(&mut self) -> &str {
        self.emit.clear();
        std::mem::swap(&mut self.emit, &mut self.held);
        for pattern in &mut self.patterns {
            pattern.state = 0;
        }
        &self.emit
    }

    /// The index of the stop string that ended the text.
    #[must_use]
    pub fn matched(&self) -> Option<usize> {
        self.matched
    }

    /// The pattern complete first in `text` and the byte after it.
    fn advance(&mut self, text: &[u8]) -> Option<(usize, usize)> {
        if self.patterns.is_empty() {
            return None;
        }
        for (at, &byte) in text.iter().enumerate() {
            let mut found: Option<usize> = None;
            for index in 0..self.patterns.len() {
                if self.patterns[index].step(byte)
                    && found
                        .is_none_or(|best| self.patterns[best].bytes.len() < self.patterns[index].bytes.len())
                {
                    found = Some(index);
                }
            }
            if let Some(index) = found {
                return Some((index, at + 1));
            }
        }
        None
    }

    fn n_held(&self) -> usize {
        self.patterns.iter().map(|pattern| pattern.state).max().unwrap_or(0)
    }
}

/// One stop string and how much of it the text's end has already matched.
#[derive(Debug, Clone)]
struct Pattern {
    bytes: Vec<u8>,
    /// `fallback[n]`: the longest proper prefix that also ends the first n + 1 bytes.
    fallback: Vec<usize>,
    state: usize,
}

impl Pattern {
    fn new(text: String) -> Self {
        let bytes = text.into_bytes();
        let mut fallback = vec![0; bytes.len()];
        let mut n = 0;
        for at in 1..bytes.len() {
            while n > 0 && bytes[at] != bytes[n] {
                n = fallback[n - 1];
            }
            n += usize::from(bytes[at] == bytes[n]);
            fallback[at] = n;
        }
        Self { bytes, fallback, state: 0 }
    }

    /// Whether `byte` completes the pattern.
    fn step(&mut self, byte: u8) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        if self.state == self.bytes.len() {
            self.state = self.fallback[self.state - 1];
        }
        while self.state > 0 && self.bytes[self.state] != byte {
            self.state = self.fallback[self.state - 1];
        }
        self.state += usize::from(self.bytes[self.state] == byte);
        self.state == self.bytes.len()
    }
}
