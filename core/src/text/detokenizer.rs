//! Token ids to text, a piece at a time, never splitting a character.

use std::fmt;
use std::sync::Arc;

use super::{TokenId, Tokenizer};

/// Turns the ids of one generation into text as they arrive.
///
/// A token may end inside a UTF-8 character; those bytes wait until the character is whole. Bytes that can never
/// become valid give U+FFFD, one for each maximal invalid part, so that all pieces joined equal
/// [`String::from_utf8_lossy`] of all bytes joined, however the bytes were cut. No allocation per token once the
/// buffers have grown to the longest piece.
pub struct Detokenizer {
    tokenizer: Arc<dyn Tokenizer>,
    show_control: bool,
    /// Control tokens that are shown all the same.
    shown: Arc<[TokenId]>,
    strip_space: bool,
    /// The start of a character whose rest has not come yet: at most three bytes between calls.
    pending: Vec<u8>,
    piece: String,
}

impl Detokenizer {
    /// For text that begins with the first pushed token: a SentencePiece vocabulary's leading space is dropped.
    #[must_use]
    pub fn new(tokenizer: Arc<dyn Tokenizer>) -> Self {
        let strip_space = tokenizer.strips_leading_space();
        let (pending, piece) = (Vec::new(), String::new());
        Self { tokenizer, show_control: false, shown: Arc::default(), strip_space, pending, piece }
    }

    /// For text that goes on after a prompt: nothing is dropped, since the leading space of the first token
    /// separates it from the prompt's last word.
    #[must_use]
    pub fn continuing(tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self { strip_space: false, ..Self::new(tokenizer) }
    }

    /// Whether control tokens appear in their written form; they are left out by default.
    #[must_use]
    pub fn show_control(mut self, show: bool) -> Self {
        self.show_control = show;
        self
    }

    /// These control tokens appear in their written form.
    #[must_use]
    pub fn showing(mut self, ids: Arc<[TokenId]>) -> Self {
        self.shown = ids;
        self
    }

    /// The text that `id` completes; empty while a character is unfinished, for hidden control tokens and for ids
    /// without a token (a padded logits row can name one).
    pub fn push(&mut self, id: TokenId) -> &str {
        self.piece.clear();
        if let Some(mut bytes) = self.tokenizer.token_bytes(id)
            && (self.show_control || !self.tokenizer.is_control(id) || self.shown.contains(&id))
        {
            if self.strip_space && !bytes.is_empty() {
                self.strip_space = false;
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
            self.pending.extend_from_slice(bytes);
            decode_whole(&mut self.pending, &mut self.piece);
        }
        &self.piece
    }

    /// The end: an unfinished character becomes one U+FFFD. The detokenizer then starts afresh, as if continuing.
    pub fn flush(&mut self) -> &str {
        self.piece.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.piece.push(char::REPLACEMENT_CHARACTER);
        }
        &self.piece
    }
}

impl fmt::Debug for Detokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detokenizer")
            .field("tokenizer", &self.tokenizer.kind())
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

/// Moves all text that is settled from `bytes` to `text`; leaves only the start of a character that may still end well.
fn decode_whole(bytes: &mut Vec<u8>, text: &mut String) {
    let mut start = 0;
    while start < bytes.len() {
        match std::str::from_utf8(&bytes[start..]) {
            Ok(whole) => {
                text.push_str(whole);
                start = bytes.len();
            }
            Err(error) => {
                let valid_to = start + error.valid_up_to();
                // Checked a line above; the second look costs less than the unsafe block would.
                text.push_str(std::str::from_utf8(&bytes[start..valid_to]).unwrap_or_default());
                start = valid_to;
                let Some(n_invalid) = error.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                start += n_invalid;
            }
        }
    }
    bytes.drain(..start);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::PieceTokenizer;

    /// What each push gives, and the end.
    fn run(mut detokenizer: Detokenizer, n: u32) -> (Vec<String>, String) {
        let pushed = (0..n).map(|id| detokenizer.push(id).to_owned()).collect();
        (pushed, detokenizer.flush().to_owned())
    }

    #[track_caller]
    fn check(given: &[&[u8]], expected: &[&str], end: &str) {
        let (pushed, flushed) =
            run(Detokenizer::new(Arc::new(PieceTokenizer::new(given))), given.len() as u32);
        assert_eq!(
            (pushed.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), flushed.as_str()),
            (expected, end)
        );
    }

    #[test]
    fn characters_wait_until_they_are_whole() {
        check(&[b"a", b"b"], &["a", "b"], "");
        check(&[b"\xc3", b"\xbc"], &["", "ü"], "");
        check(&[b"x\xf0\x9f", b"\x98", b"\x80y"], &["x", "", "😀y"], "");
        check(&[b"\xf0\x9f\x98"], &[""], "\u{fffd}");
        check(&[b""], &[""], "");
    }

    #[test]
    fn bytes_that_cannot_become_valid_are_replaced_at_once() {
        check(&[b"\xff"], &["\u{fffd}"], "");
        check(&[b"\x80\x80"], &["\u{fffd}\u{fffd}"], "");
        check(&[b"\xc3", b"a"], &["", "\u{fffd}a"], "");
        check(&[b"\xe4\xb8", b"\xff", b"b"], &["", "\u{fffd}\u{fffd}", "b"], "");
        // Overlong forms and surrogates are invalid from their second byte on.
        check(&[b"\xc0", b"\xaf"], &["\u{fffd}", "\u{fffd}"], "");
        check(&[b"\xed", b"\xa0", b"\x80"], &["", "\u{fffd}\u{fffd}", "\u{fffd}"], "");
    }

    #[test]
    fn one_leading_space_is_dropped_where_the_vocabulary_adds_it() {
        let given: [&[u8]; 3] = [b"  a", b" b", b" "];
        let strips = || Arc::new(PieceTokenizer { strips: true, ..PieceTokenizer::new(&given) });
        assert_eq!(run(Detokenizer::new(strips()), 3).0, [" a", " b", " "]);
        assert_eq!(run(Detokenizer::continuing(strips()), 3).0, ["  a", " b", " "]);
        assert_eq!(run(Detokenizer::new(Arc::new(PieceTokenizer::new(&given))), 3).0, ["  a", " b", " "]);
        let control = PieceTokenizer { strips: true, ..PieceTokenizer::new(&[b" <s>", b" x"]) };
        assert_eq!(run(Detokenizer::new(Arc::new(control)), 2).0, ["<s>", " x"]);
    }

    #[test]
    fn control_tokens_and_strangers_are_not_shown() {
        let given = || {
            Arc::new(PieceTokenizer {
                n_control: 1,
                strips: true,
                ..PieceTokenizer::new(&[b"a", b"\xc3", b" <s>"])
            })
        };
        let mut detokenizer = Detokenizer::new(given());
        assert_eq!(detokenizer.push(2), "");
        assert_eq!(detokenizer.push(77), "");
        assert_eq!(detokenizer.push(TokenId::MAX), "");
        assert_eq!(detokenizer.push(1), "");
        // A hidden token does not break a character apart either.
        assert_eq!(detokenizer.push(2), "");
        assert_eq!(detokenizer.flush(), "\u{fffd}");
        assert_eq!(detokenizer.flush(), "");
        assert_eq!(run(Detokenizer::new(given()).show_control(true), 3).0, ["a", "", "\u{fffd} <s>"]);
        assert_eq!(run(Detokenizer::new(given()).showing([2].into()), 3).0, ["a", "", "\u{fffd} <s>"]);
        assert_eq!(run(Detokenizer::new(given()).showing([77].into()), 3).0, ["a", "", ""]);
    }

    proptest! {
        /// Bytes of text and noise, cut anywhere: the pieces joined are the whole decoded, and none is held too long.
        #[test]
        fn any_cut_gives_the_same_text(
            parts in prop::collection::vec(prop_oneof![
                "[a-zà-ü😀世\u{fffd}]{0,4}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..4),
            ], 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let whole = parts.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let cut: Vec<&[u8]> = cuts.windows(2).map(|ends| &whole[ends[0]..ends[1]]).collect();
            let n = cut.len() as u32;
            let mut detokenizer = Detokenizer::new(Arc::new(PieceTokenizer::new(&cut)));
            let mut text = String::new();
            for id in 0..n {
                text += detokenizer.push(id);
                prop_assert!(detokenizer.pending.len() < 4);
                if let Err(error) = std::str::from_utf8(&detokenizer.pending) {
                    prop_assert_eq!((error.valid_up_to(), error.error_len()), (0, None));
                }
            }
            text += detokenizer.flush();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
