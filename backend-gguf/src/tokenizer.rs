//! The vocabulary inside a GGUF file as core's tokenizer: a load of its own, so that it keeps no weights alive.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use duet_core::BackendError;
use duet_core::text::{EncodeOptions, FillInMiddle, TokenId, Tokenizer, TokenizerError};

use crate::raw::{Model, ModelError, ModelSettings, VocabTables};

/// A text longer than this is encoded on a thread with a stack of its own; a shorter one fits any thread's.
const LONG_TEXT_BYTES: usize = 1 << 10;
/// Stack for each byte of a long text. Measured: 320 bytes per character (libstdc++ 12, the patterns of gpt-4o and tekken;
/// 10,000 times "a" overflow 2 MiB). The rest is margin for other standard libraries.
const STACK_PER_BYTE: usize = 1 << 10;
const BASE_STACK_BYTES: usize = 2 << 20;

/// llama.cpp's tokenizer for one GGUF file.
pub struct GgufTokenizer {
    model: Model,
    tables: VocabTables,
    kind: String,
    strips_leading_space: bool,
}

/// The vocabulary of `path` as the object that both engines share.
///
/// # Errors
/// As [`GgufTokenizer::load`].
pub fn load_tokenizer(path: &Path) -> Result<Arc<dyn Tokenizer>, BackendError> {
    Ok(Arc::new(GgufTokenizer::load(path)?))
}

impl GgufTokenizer {
    /// Reads the vocabulary of `path` (the first shard of several). Tens of milliseconds; reads no weights.
    ///
    /// # Errors
    /// [`BackendError::LoadFailed`] with llama.cpp's reason.
    pub fn load(path: &Path) -> Result<Self, BackendError> {
        let settings = ModelSettings { vocab_only: true, mmap: true, repack: false };
        let model = Model::load(path, settings, &mut |_| true)
            .map_err(|error: ModelError| BackendError::load_failed(path, error))?;
        let tables = VocabTables::read(&model);
        let family = model.metadata("tokenizer.ggml.model").unwrap_or_default();
        let pre = model.metadata("tokenizer.ggml.pre").map(|pre| format!(", {pre}")).unwrap_or_default();
        let kind = format!("{family} {}{pre} (gguf)", tables.algorithm);
        // Asked instead of read from metadata: the default differs by vocabulary type.
        let first = model.tokenize("a", false, false).ok().and_then(|ids| ids.first().copied());
        let strips_leading_space =
            first.and_then(|id| tables.piece(id)).is_some_and(|piece| piece.first() == Some(&b' '));
        Ok(Self { model, tables, kind, strips_leading_space })
    }

    fn encode_here(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, TokenizerError> {
        self.model
            .tokenize(text, options.add_special, options.parse_special)
            .map_err(|message| TokenizerError::Encode { message })
    }
}

impl Tokenizer for GgufTokenizer {
    /// As [`Tokenizer::encode`]. Some of llama.cpp's pre-tokenizers run on `std::regex`, which recurses for every
    /// character of a match, so that a long word would overflow a worker thread's stack and end the process: long texts
    /// get a thread whose stack grows with them.
    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, TokenizerError> {
        if text.len() <= LONG_TEXT_BYTES {
            return self.encode_here(text, options);
        }
        let failed = |message: String| TokenizerError::Encode { message };
        let stack = text
            .len()
            .checked_mul(STACK_PER_BYTE)
            .and_then(|bytes| bytes.checked_add(BASE_STACK_BYTES))
            .ok_or_else(|| failed("the text is too long".into()))?;
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("duet-tokenize".into())
                .stack_size(stack)
                .spawn_scoped(scope, || self.encode_here(text, options))
                .map_err(|error| failed(format!("no thread for a text of {} bytes: {error}", text.len())))?
                .join()
                .unwrap_or_else(|_| Err(failed("the tokenizer panicked".into())))
        })
    }

    fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.tables.piece(id)
    }

    fn is_control(&self, id: TokenId) -> bool {
        self.tables.is_hidden(id)
    }

    fn vocab_size(&self) -> u32 {
        self.tables.len()
    }

    fn bos(&self) -> Option<TokenId> {
        self.tables.bos
    }

    fn eos(&self) -> Option<TokenId> {
        self.tables.eos
    }

    fn adds_bos(&self) -> bool {
        self.tables.adds_bos
    }

    fn end_of_generation(&self) -> &[TokenId] {
        &self.tables.end_of_generation
    }

    fn fill_in_middle(&self) -> Option<FillInMiddle> {
        self.tables.fill_in_middle
    }

    fn pair_separator(&self) -> Option<TokenId> {
        self.tables.pair_separator
    }

    fn kind(&self) -> &str {
        &self.kind
    }

    fn strips_leading_space(&self) -> bool {
        self.strips_leading_space
    }
}

impl fmt::Debug for GgufTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufTokenizer")
            .field("kind", &self.kind)
            .field("n_tokens", &self.tables.len())
            .finish_non_exhaustive()
    }
}
