//! The ids both arms get: tokenised once, hashed, cut into requests and windows.

use std::path::{Path, PathBuf};

use duet_core::text::{EncodeOptions, TokenId, Tokenizer};

use crate::error::BenchError;
use crate::files::hash_ids;
use crate::options::{BenchOptions, Text};
use crate::prompts::{Prompts, built_in, names, parse};

/// The text that the bench brings along: chapter 24 of Jane Austen's Northanger Abbey (1817), in the
/// public domain.
pub const BUILT_IN_TEXT: &str = include_str!("../../tests/fixtures/prose/austen-northanger-abbey.txt");

impl Text {
    /// The text that the bench brings along, some 3,500 tokens of prose.
    pub fn built_in() -> Self {
        Self::Inline {
            name: "Northanger Abbey, chapter 24 (built in)".to_owned(),
            text: BUILT_IN_TEXT.to_owned(),
        }
    }

    /// Its name and content.
    pub(crate) fn read(&self) -> Result<(String, Prompts), BenchError> {
        let file = |path: &PathBuf| match std::fs::read_to_string(path) {
            Ok(text) => Ok(text),
            Err(source) => Err(BenchError::File { path: path.clone(), source }),
        };
        match self {
            Text::Inline { name, text } => Ok((name.clone(), Prompts::Text(text.clone()))),
            Text::File(path) => Ok((path.display().to_string(), Prompts::Text(file(path)?))),
            Text::Prompts(path) => Ok((path.display().to_string(), parse(path, &file(path)?)?)),
            Text::Set(name) => {
                let lines = built_in(name).ok_or_else(|| BenchError::Option {
                    option: "prompts",
                    message: format!("has no set `{name}`; there are {}", names().join(", ")),
                })?;
                Ok((format!("prompts of the kind {name} (built in)"), parse(Path::new(name), lines)?))
            }
        }
    }
}

impl Prompts {
    /// Token ids of the whole; ids of a user's have to be in the vocabulary.
    pub(crate) fn ids(&self, tokenizer: &dyn Tokenizer) -> Result<Vec<TokenId>, BenchError> {
        match self {
            Self::Text(text) => Ok(tokenizer.encode(text, EncodeOptions::default())?),
            Self::Rendered(text) => {
                Ok(tokenizer.encode(text, EncodeOptions { add_special: false, parse_special: true })?)
            }
            Self::Lines(_) => {
                let message = "have conversations that no template has rendered".to_owned();
                Err(BenchError::Option { option: "prompts", message })
            }
            Self::Ids(ids) => match ids.iter().find(|id| **id >= tokenizer.vocab_size()) {
                None => Ok(ids.clone()),
                Some(id) => {
                    let message = format!(
                        "have the id {id}, and the vocabulary ends at {}",
                        tokenizer.vocab_size().saturating_sub(1)
                    );
                    Err(BenchError::Option { option: "prompts", message })
                }
            },
        }
    }

    /// What there is to compare two tokenizers with.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Rendered(text) => text,
            Self::Ids(_) | Self::Lines(_) => "",
        }
    }
}

/// How much of everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) n_prompt: usize,
    pub(crate) n_decode: usize,
    /// How many times a visit reads its prompt.
    pub(crate) n_reads: usize,
    /// Requests that need a prompt of their own, the warm-up's among them.
    pub(crate) n_requests: usize,
    pub(crate) n_windows: usize,
    pub(crate) window: usize,
    pub(crate) n_wash_out: usize,
}

/// Prompts below so many tokens are read three times in a visit.
const SHORT_PROMPT: u32 = 256;

/// How many times a visit reads a prompt of `n_prompt` tokens. A short one takes milliseconds, which one hiccup of the machine
/// doubles; the median of three is deaf to it, as that of the decode steps is.
fn n_reads(n_prompt: u32) -> usize {
    if n_prompt < SHORT_PROMPT { 3 } else { 1 }
}

/// Logits of a window are kept: at most so many bytes.
const MAX_WINDOW_BYTES: usize = 512 << 20;

impl Sizes {
    /// From options that are valid, for models with this context and logits of this width.
    pub(crate) fn new(options: &BenchOptions, context_length: u32, n_vocab: u32, n_requests: usize) -> Self {
        let fits = MAX_WINDOW_BYTES / (4 * (n_vocab as usize).max(1));
        let window = (options.window as usize).min(context_length as usize).min(fits).max(2);
        Self {
            n_prompt: options.n_prompt as usize,
            n_decode: options.n_decode as usize,
            n_reads: n_reads(options.n_prompt),
            n_requests,
            n_windows: (options.n_agreement as usize).div_ceil(window),
            window,
            n_wash_out: options.wash_out.max_steps,
        }
    }

    /// Most tokens of anything that is evaluated at once.
    pub(crate) fn longest(&self) -> usize {
        let window = if self.n_windows > 0 { self.window } else { 0 };
        (self.n_prompt + self.n_decode).max(window).max(self.n_wash_out + 1)
    }
}

/// The tokenised text and how it is cut.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    ids: Vec<TokenId>,
    bos: Option<TokenId>,
    pub(crate) sizes: Sizes,
    stride: usize,
    pub(crate) ids_sha256: String,
    pub(crate) text_name: String,
}

impl Work {
    /// Tokenises the text. A text that has not enough windows for the agreement gives as many as it has.
    ///
    /// # Errors
    /// `Tokenize`; `TextTooShort` where it is not enough for the requests or for a single window.
    pub(crate) fn new(
        name: String,
        text: &Prompts,
        tokenizer: &dyn Tokenizer,
        mut sizes: Sizes,
    ) -> Result<Self, BenchError> {
        let ids = text.ids(tokenizer)?;
        let bos = if tokenizer.adds_bos() { tokenizer.bos() } else { None };
        let n_bos = usize::from(bos.is_some());
        let request = (sizes.n_prompt + sizes.n_decode).max(sizes.n_wash_out + 1) - n_bos;
        let window = sizes.window - n_bos;
        let n_needed = (request + sizes.n_requests - 1).max(sizes.n_windows.min(1) * window);
        if ids.len() < n_needed {
            return Err(BenchError::TextTooShort { n_tokens: ids.len(), n_needed });
        }
        sizes.n_windows = sizes.n_windows.min(ids.len() / window);
        let stride = (ids.len() - request) / (sizes.n_requests - 1);
        Ok(Self { ids_sha256: hash_ids(&ids), ids, bos, sizes, stride, text_name: name })
    }

    /// All ids, as they were tokenised.
    pub(crate) fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    pub(crate) fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    fn cut(&self, from: usize, n: usize) -> Vec<TokenId> {
        let n_text = n - usize::from(self.bos.is_some());
        self.bos.into_iter().chain(self.ids[from..from + n_text].iter().copied()).collect()
    }

    /// The ids of one request: a prompt that begins elsewhere than every other request's, and its continuation.
    /// `[n_prompt + n_decode]`. Request 0 is the warm-up's.
    pub(crate) fn request(&self, index: usize) -> Vec<TokenId> {
        self.cut(index * self.stride, self.sizes.n_prompt + self.sizes.n_decode)
    }

    /// The ids of a wash-out: one more than it has steps.
    pub(crate) fn wash_out(&self) -> Vec<TokenId> {
        self.cut(0, self.sizes.n_wash_out + 1)
    }

    /// The ids of a window of the agreement, `[window]`; consecutive pieces of the text.
    pub(crate) fn window(&self, index: usize, window: usize) -> Vec<TokenId> {
        let n_text = window - usize::from(self.bos.is_some());
        self.cut(index * n_text, window)
    }
}

#[cfg(test)]
mod tests {
    use duet_core::testing::ByteTokenizer;

    use super::*;

    #[test]
    fn the_built_in_text_is_prose_and_long_enough() {
        assert!(BUILT_IN_TEXT.split_whitespace().count() > 2500);
        assert!(BUILT_IN_TEXT.contains("Catherine"));
    }

    #[test]
    fn requests_and_windows_are_cut_to_size() {
        let sizes = Sizes {
            n_prompt: 6,
            n_decode: 2,
            n_reads: 1,
            n_requests: 5,
            n_windows: 3,
            window: 5,
            n_wash_out: 4,
        };
        let text = "abcdefghijklm";
        let work =
            Work::new("t".into(), &Prompts::Text(text.into()), &ByteTokenizer::default(), sizes).unwrap();
        let starts: Vec<_> = (0..5).map(|index| work.request(index)).collect();
        let bos = ByteTokenizer::BOS;
        for (index, ids) in starts.iter().enumerate() {
            assert_eq!((ids.len(), ids[0], ids[1]), (8, bos, u32::from(b'a') + index as u32));
        }
        assert_eq!(work.window(2, 5), [bos, 105, 106, 107, 108]);
        assert_eq!(work.wash_out(), [bos, 97, 98, 99, 100]);
        let shorter =
            Work::new("t".into(), &Prompts::Text(text[..11].into()), &ByteTokenizer::default(), sizes)
                .unwrap();
        assert_eq!((shorter.sizes.n_windows, shorter.sizes.window), (2, 5), "as many windows as there are");
        let error =
            Work::new("t".into(), &Prompts::Text(text[..10].into()), &ByteTokenizer::default(), sizes)
                .unwrap_err();
        assert_eq!(error.to_string(), "the text has 10 tokens, and this work needs 11; give a longer one");
    }

    #[test]
    fn a_window_is_cut_to_the_context_and_to_memory() {
        let options = BenchOptions::new(crate::Subject::One("x".into()), Text::built_in());
        assert_eq!(Sizes::new(&options, 4096, 49_152, 11).window, 512);
        assert_eq!(Sizes::new(&options, 4096, 262_144, 11).window, 512);
        assert_eq!(Sizes::new(&options, 300, 49_152, 11).window, 300);
        assert_eq!(
            (Sizes::new(&options, 300, 49_152, 11).n_windows, Sizes::new(&options, 300, 9, 11).longest()),
            (11, 544)
        );
        assert_eq!(Sizes::new(&options, 4096, 1 << 20, 11).window, 128);
    }
}
