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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect())
    }

    /// Pushes the pieces: all that was emitted, the match, and what the end gave.
    fn run<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, Option<usize>, String) {
        let mut matcher = matcher(stops);
        let mut emitted = String::new();
        for piece in pieces {
            emitted += matcher.push(piece).emit;
        }
        let end = matcher.flush().to_owned();
        (emitted, matcher.matched(), end)
    }

    /// The definition: of all occurrences the one that ends first, of those the longest.
    fn naive(stops: &[&str], text: &str) -> (String, Option<usize>) {
        for end in 1..=text.len() {
            let ending = |stop: &&str| !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes());
            let found = (0..stops.len()).filter(|&index| ending(&stops[index]));
            if let Some(index) = found.rev().max_by_key(|&index| stops[index].len()) {
                return (text[..end - stops[index].len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    #[track_caller]
    fn check(stops: &[&str], pieces: &[&str], emitted: &[&str], matched: Option<usize>, end: &str) {
        let mut matcher = matcher(stops);
        for (piece, expected) in pieces.iter().zip(emitted) {
            assert_eq!(matcher.push(piece).emit, *expected, "after {piece:?}");
        }
        assert_eq!((matcher.matched(), matcher.flush()), (matched, end));
    }

    #[test]
    fn without_stops_everything_passes() {
        check(&[], &["a", "", "b"], &["a", "", "b"], None, "");
        check(&[""], &["a", ""], &["a", ""], None, "");
    }

    #[test]
    fn a_stop_across_pieces_is_never_sent() {
        check(&["END"], &["text E", "N", "D more"], &["text ", "", ""], Some(0), "");
        check(&["END"], &["text E", "N", " more"], &["text ", "", "EN more"], None, "");
        check(&["END"], &["xENEND"], &["xEN"], Some(0), "");
        check(&["\n\n"], &["a\n", "b\n", "\n"], &["a", "\nb", ""], Some(0), "");
        check(&["aab"], &["aa", "a", "a", "b"], &["", "a", "a", ""], Some(0), "");
        check(&["ü!"], &["fü", "ü", "!"], &["f", "ü", ""], Some(0), "");
    }

    #[test]
    fn a_held_tail_comes_at_the_end() {
        check(&["END"], &["the EN"], &["the "], None, "EN");
        check(&["END"], &["E"], &[""], None, "E");
    }

    #[test]
    fn the_first_to_be_complete_wins_then_the_longest() {
        check(&["bc", "b"], &["abc"], &["a"], Some(1), "");
        check(&["c", "abc", "bc"], &["xab", "c"], &["x", ""], Some(1), "");
        check(&["x", "x"], &["x"], &[""], Some(0), "");
        check(&["abcd", "bc"], &["ab", "cd"], &["", "a"], Some(1), "");
    }

    #[test]
    fn after_a_match_nothing_more_comes() {
        let mut matcher = matcher(&["."]);
        assert_eq!(matcher.push("a.b"), StopStep { emit: "a", matched: Some(0) });
        assert_eq!(matcher.push("c"), StopStep { emit: "", matched: Some(0) });
        assert_eq!(matcher.flush(), "");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Few letters, so that stops overlap with themselves and each other; any cut gives what one piece gives.
        #[test]
        fn any_cut_agrees_with_the_definition(
            stops in prop::collection::vec("[abü]{0,5}", 0..4),
            text in "[abü]{0,30}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let boundaries: Vec<usize> = (0..=text.len()).filter(|&at| text.is_char_boundary(at)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.get(&boundaries)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]);
            let (emitted, matched, end) = run(&stops, pieces);
            prop_assert_eq!((emitted.clone() + &end, matched), naive(&stops, &text));
            // Held is only what may still become a stop.
            prop_assert!(end.is_empty() || stops.iter().any(|stop| stop.starts_with(&end)));
            prop_assert!(matched.is_none() || end.is_empty());
        }
    }
}
