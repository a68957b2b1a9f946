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
        Self { tokenizer, show_control: false, strip_space, pending: Vec::new(), piece: String::new() }
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

    /// The text that `id` completes; empty while a character is unfinished, for hidden control tokens and for ids
    /// without a token (a padded logits row can name one).
    pub fn push(&mut self, id: TokenId) -> &str {
        self.piece.clear();
        if let Some(mut bytes) = self.tokenizer.token_bytes(id)
            && (self.show_control || !self.tokenizer.is_control(id))
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
