//! The contract of a tokenizer: one object per model file, shared by whichever engine runs the model.

use std::fmt::Debug;
use std::path::PathBuf;

use super::TokenId;

/// How a text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodeOptions {
    /// Add what the model's format puts around a text (a beginning-of-sequence token, for most that have one).
    /// Off for text that a chat template has rendered: it writes those tokens itself.
    pub add_special: bool,
    /// Read control tokens written out in the text (`<|im_end|>`) as those tokens instead of as plain text.
    pub parse_special: bool,
}

/// Tokens around what stands before and after a gap; what fills the gap follows the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FillInMiddle {
    /// In front of what is before the gap.
    pub prefix: TokenId,
    /// In front of what is behind it.
    pub suffix: TokenId,
    /// In front of what fills it.
    pub middle: TokenId,
}

impl FillInMiddle {
    /// The prompt that asks for the gap between two runs of tokens.
    pub fn prompt(&self, bos: Option<TokenId>, before: &[TokenId], after: &[TokenId]) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(before.len() + after.len() + 4);
        ids.extend(bos);
        ids.push(self.prefix);
        ids.extend_from_slice(before);
        ids.push(self.suffix);
        ids.extend_from_slice(after);
        ids.push(self.middle);
        ids
    }
}

/// Text to token ids, and each id's bytes.
///
/// Implementations are immutable once built; every method may be called from any thread at any time. Only `encode`
/// does real work, everything else is a lookup in tables made at load.
pub trait Tokenizer: Send + Sync + Debug {
    /// The ids of `text`, in order. An empty text gives an empty list, or only the special tokens if asked for.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the underlying library refuses the text.
    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, TokenizerError>;

    /// The ids of two texts for a model that judges one beside the other: each with what the format puts around a text, the
    /// second without its beginning. What looks like a control token is text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    fn encode_pair(&self, first: &str, second: &str) -> Result<Vec<TokenId>, TokenizerError> {
        let options = EncodeOptions { add_special: true, parse_special: false };
        let mut ids = self.encode(first, options)?;
        ids.extend(self.pair_separator());
        let second = self.encode(second, options)?;
        let begins = self.bos().is_some_and(|bos| second.first() == Some(&bos));
        ids.extend_from_slice(&second[usize::from(begins)..]);
        Ok(ids)
    }

    /// What stands between the two texts of a pair besides what ends the first one. `None`, unless overridden.
    fn pair_separator(&self) -> Option<TokenId> {
        None
    }

    /// The bytes that `id` stands for in decoded text; they need not be whole UTF-8 characters. Control tokens give
    /// their written form here ([`Tokenizer::is_control`] tells them apart). `None` for ids without a token: outside
    /// of the vocabulary, or in one of its holes.
    fn token_bytes(&self, id: TokenId) -> Option<&[u8]>;

    /// Whether `id` steers the model instead of being text, and is therefore not shown unless asked for.
    fn is_control(&self, id: TokenId) -> bool;

    /// One more than the highest id that has a token. A model's logits row may be wider (padding).
    fn vocab_size(&self) -> u32;

    /// The beginning-of-sequence token, whether or not `encode` adds it.
    fn bos(&self) -> Option<TokenId>;

    /// The end-of-sequence token that the model names first; [`Tokenizer::end_of_generation`] has the whole set.
    fn eos(&self) -> Option<TokenId>;

    /// Whether `encode` with `add_special` puts [`Tokenizer::bos`] in front.
    fn adds_bos(&self) -> bool;

    /// Every token that ends a generation, in rising order, without duplicates.
    fn end_of_generation(&self) -> &[TokenId];

    /// The marks of filling in the middle, where the model was trained for it. `None`, unless overridden.
    fn fill_in_middle(&self) -> Option<FillInMiddle> {
        None
    }

    /// What this is, for people: `gpt2 bpe (gguf)`, `tokenizers BPE`.
    fn kind(&self) -> &str;

    /// Whether the first piece of a decoded text drops one leading space (SentencePiece style vocabularies, whose
    /// `encode` adds that space).
    fn strips_leading_space(&self) -> bool;
}

/// Why a tokenizer could not be loaded or could not encode.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file of the tokenizer could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file was read and is not what it should be.
    #[error("{} is malformed: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The tokenizer is well-formed, and of a kind that duet cannot use.
    #[error("unsupported tokenizer: {what}")]
    Unsupported {
        /// The part that is not supported.
        what: String,
    },
    /// The library refused to encode a text.
    #[error("cannot encode the text: {message}")]
    Encode {
        /// What the library said.
        message: String,
    },
}
