//! The tokenizer of a model directory: `tokenizer.json` through the `tokenizers` crate.

mod config;
mod named;
mod pieces;
#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tokenizers::{
    AddedToken, AddedVocabulary, Model as _, ModelWrapper, OffsetType, PreTokenizer as _,
    Tokenizer as Library,
};

use self::config::Config;
use self::pieces::{PieceStyle, Pieces};
use super::{EncodeOptions, FillInMiddle, TokenId, Tokenizer, TokenizerError};

/// More than the largest known `tokenizer.json` (35 MB) and its likes to come.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// Ids above it are taken for damage, since tables are as long as the highest id.
const MAX_VOCAB_SIZE: usize = 1 << 22;

/// A Hugging Face tokenizer.
///
/// Ids agree with Python's `tokenizers`; truncation and padding that the file may ask for are left out, since a prompt
/// is never cut in silence.
pub struct HfTokenizer {
    library: Library,
    /// The added tokens once more, told to leave control tokens in texts alone.
    plain: AddedVocabulary,
    pieces: Pieces,
    config: Config,
    adds_bos: bool,
    fill_in_middle: Option<FillInMiddle>,
    kind: &'static str,
}

impl HfTokenizer {
    /// Loads the tokenizer of a model directory: `tokenizer.json`, which has to be there, and what
    /// `tokenizer_config.json`, `generation_config.json` and `config.json` say about special tokens. Takes up to a
    /// second for large vocabularies.
    ///
    /// # Errors
    /// [`TokenizerError::Io`] if a file cannot be read, [`TokenizerError::Malformed`] if one is not what it should be,
    /// [`TokenizerError::Unsupported`] for decoders whose tokens have no bytes of their own.
    pub fn from_model_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let bytes = config::read(&path, MAX_FILE_BYTES)?;
        // The library is meant for files that it wrote itself, and indexes freely while it builds its tables.
        catch_unwind(AssertUnwindSafe(|| Self::build(dir, &path, &bytes)))
            .unwrap_or_else(|_| Err(malformed(&path, "the tokenizers library failed on it")))
    }

    fn build(dir: &Path, path: &Path, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut library = Library::from_bytes(bytes).map_err(|error| malformed(path, error))?;
        library.with_padding(None);
        library.with_truncation(None).map_err(|error| malformed(path, error))?;
        let style = PieceStyle::of(library.get_decoder())?;
        let vocab = library.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        if vocab_size == 0 {
            return Err(malformed(path, "it has no tokens"));
        }
        if vocab_size > MAX_VOCAB_SIZE {
            return Err(malformed(path, format!("token id {} is out of any range", vocab_size - 1)));
        }
        let added = library.get_added_tokens_decoder();
        let config = Config::read(dir, &library, &vocab)?;
        let control = named::control(&vocab, &config.end_of_generation);
        let pieces = Pieces::new(vocab_size, &vocab, &added, &control, &style);
        let mut plain = library.get_added_vocabulary().clone();
        // What steers the model is control, whatever the file says; adding a token again keeps its id.
        let steering: Vec<AddedToken> = added
            .iter()
            .filter(|(id, token)| !token.special && control.contains(id))
            .map(|(_, token)| (*token).clone().special(true))
            .collect();
        plain.add_special_tokens(&steering, library.get_model(), library.get_normalizer());
        plain.set_encode_special_tokens(true);
        let kind = match library.get_model() {
            ModelWrapper::BPE(_) => "tokenizers BPE",
            ModelWrapper::Unigram(_) => "tokenizers Unigram",
            ModelWrapper::WordPiece(_) => "tokenizers WordPiece",
            ModelWrapper::WordLevel(_) => "tokenizers WordLevel",
        };
        let fill_in_middle = named::fill_in_middle(&vocab);
        let mut tokenizer = Self { library, plain, pieces, config, adds_bos: false, fill_in_middle, kind };
        // Also the proof, while failures are still caught, that it encodes at all.
        let probe = tokenizer.encode("a b", EncodeOptions { add_special: true, parse_special: false });
        let probe = probe.map_err(|error| malformed(path, error))?;
        tokenizer.adds_bos = tokenizer.bos().is_some() && probe.first().copied() == tokenizer.bos();
        Ok(tokenizer)
    }

    /// Encodes with control tokens in the text taken as text: the library's own road with `plain` in front, for
    /// its switch is a field of the tokenizer and cannot be set per call.
    fn encode_plain(&self, text: &str, add_special: bool) -> tokenizers::Result<tokenizers::Encoding> {
        let mut parts = self.plain.extract_and_normalize(self.library.get_normalizer(), text);
        if let Some(splitter) = self.library.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut parts)?;
        }
        parts.tokenize(|part| self.library.get_model().tokenize(part.get()))?;
        self.library.post_process(parts.into_encoding(None, 0, OffsetType::None)?, None, add_special)
    }
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, TokenizerError> {
        let encoding = if options.parse_special {
            self.library.encode_fast(text, options.add_special)
        } else {
            self.encode_plain(text, options.add_special)
        };
        let encoding = encoding.map_err(|error| TokenizerError::Encode { message: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.pieces.get(id)
    }

    fn is_control(&self, id: TokenId) -> bool {
        self.pieces.is_control(id)
    }

    fn vocab_size(&self) -> u32 {
        self.pieces.vocab_size()
    }

    fn bos(&self) -> Option<TokenId> {
        self.config.bos
    }

    fn eos(&self) -> Option<TokenId> {
        self.config.eos
    }

    fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    fn end_of_generation(&self) -> &[TokenId] {
        &self.config.end_of_generation
    }

    fn fill_in_middle(&self) -> Option<FillInMiddle> {
        self.fill_in_middle
    }

    fn kind(&self) -> &str {
        self.kind
    }

    fn strips_leading_space(&self) -> bool {
        self.pieces.strips_leading_space()
    }
}

impl fmt::Debug for HfTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HfTokenizer")
            .field("kind", &self.kind)
            .field("vocab_size", &self.vocab_size())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn malformed(path: &Path, message: impl fmt::Display) -> TokenizerError {
    TokenizerError::Malformed { path: PathBuf::from(path), message: message.to_string() }
}
