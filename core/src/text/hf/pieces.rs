//! The bytes of every token, worked out once from the way the tokenizer's decoder treats it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use tokenizers::{AddedToken, DecoderWrapper};

use crate::text::{TokenId, TokenizerError};

/// What the decoder does to one token. Decoders that look at neighbours are not among these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PieceStyle {
    /// GPT-2's alphabet: each character stands for a byte.
    byte_level: bool,
    /// SentencePiece's: strings that stand for others (`▁` for a space), in order.
    replacements: Vec<(String, String)>,
    /// `<0x0A>` stands for a byte.
    byte_fallback: bool,
    strips_leading_space: bool,
}

impl PieceStyle {
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Result<Self, TokenizerError> {
        let Some(decoder) = decoder else {
            return Err(unsupported("it has no decoder, so its tokens have no text of their own"));
        };
        let decoder = serde_json::to_value(decoder).map_err(|error| unsupported(error.to_string()))?;
        let mut style = Self::default();
        style.take(&decoder)?;
        Ok(style)
    }

    fn take(&mut self, decoder: &Value) -> Result<(), TokenizerError> {
        let text = |name: &str| decoder[name].as_str().unwrap_or_default();
        match text("type") {
            "Sequence" => {
                decoder["decoders"].as_array().into_iter().flatten().try_for_each(|part| self.take(part))?
            }
            "ByteLevel" => self.byte_level = true,
            "ByteFallback" => self.byte_fallback = true,
            "Fuse" => {}
            "Metaspace" => {
                self.replacements.push((text("replacement").to_owned(), " ".to_owned()));
                self.strips_leading_space |= text("prepend_scheme") != "never";
            }
            "Replace" => match decoder["pattern"]["String"].as_str() {
                Some(pattern) => self.replacements.push((pattern.to_owned(), text("content").to_owned())),
                None => return Err(unsupported("decoder Replace with a regular expression")),
            },
            // Behind Fuse it cuts the text's start and not each token's: the only form that models have.
            "Strip" if text("content") == " " && decoder["start"] == 1 && decoder["stop"] == 0 => {
                self.strips_leading_space = true;
            }
            other => return Err(unsupported(format!("decoder {other}: {decoder}"))),
        }
        Ok(())
    }

    /// Appends the bytes of the token written `token`.
    fn write(&self, token: &str, alphabet: &HashMap<char, u8>, bytes: &mut Vec<u8>) {
        if self.byte_fallback
            && let Some(byte) = fallback_byte(token)
        {
            bytes.push(byte);
        } else if self.byte_level {
            let start = bytes.len();
            for character in token.chars() {
                match alphabet.get(&character) {
                    Some(&byte) => bytes.push(byte),
                    // A token out of other letters stands for itself.
                    None => {
                        bytes.truncate(start);
                        bytes.extend_from_slice(token.as_bytes());
                        break;
                    }
                }
            }
        } else {
            let mut text = token.to_owned();
            for (from, to) in &self.replacements {
                text = text.replace(from.as_str(), to);
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
}

fn unsupported(what: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported { what: what.into() }
}

/// The byte that `<0xE2>` stands for.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// GPT-2's byte alphabet: printable Latin-1 stands for itself, the 68 other bytes for U+0100 and on.
fn byte_alphabet() -> HashMap<char, u8> {
    let mut next = 0x100..;
    let letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => next.next().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER),
    };
    (0..=u8::MAX).map(letter).zip(0..=u8::MAX).collect()
}

/// Every token's bytes, one after the other.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// By id; empty places of the vocabulary have `None`.
    spans: Vec<Option<Span>>,
    strips_leading_space: bool,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    length: u32,
    is_control: bool,
}

impl Pieces {
    pub(super) fn new<'a>(
        vocab_size: usize,
        vocab: &HashMap<String, TokenId>,
        added: impl IntoIterator<Item = (&'a TokenId, &'a AddedToken)>,
        control: &BTreeSet<TokenId>,
        style: &PieceStyle,
    ) -> Self {
        let added: BTreeMap<TokenId, &AddedToken> =
            added.into_iter().map(|(&id, token)| (id, token)).collect();
        let alphabet = byte_alphabet();
        let mut pieces = Self {
            bytes: Vec::new(),
            spans: vec![None; vocab_size],
            strips_leading_space: style.strips_leading_space,
        };
        for (text, &id) in vocab {
            let start = pieces.bytes.len();
            let token = added.get(&id);
            match token {
                // Written by people, not in the byte alphabet.
                Some(token) if token.special || style.byte_level => {
                    pieces.bytes.extend_from_slice(token.content.as_bytes());
                }
                _ => style.write(text, &alphabet, &mut pieces.bytes),
            }
            pieces.spans[id as usize] = Some(Span {
                start,
                length: (pieces.bytes.len() - start) as u32,
                is_control: control.contains(&id) || token.is_some_and(|token| token.special),
            });
        }
        pieces
    }

    pub(super) fn get(&self, id: TokenId) -> Option<&[u8]> {
        let span = self.span(id)?;
        Some(&self.bytes[span.start..span.start + span.length as usize])
    }

    pub(super) fn is_control(&self, id: TokenId) -> bool {
        self.span(id).is_some_and(|span| span.is_control)
    }

    pub(super) fn vocab_size(&self) -> u32 {
        self.spans.len() as u32
    }

    pub(super) fn strips_leading_space(&self) -> bool {
        self.strips_leading_space
    }

    fn span(&self, id: TokenId) -> Option<Span> {
        self.spans.get(id as usize).copied().flatten()
    }
}
