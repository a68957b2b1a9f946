//! A model's vocabulary: text to ids, and tables of what each id stands for.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::path::Path;

use duet_core::model::ModelFileError;
use duet_core::model::gguf::GgufFile;
use duet_core::text::FillInMiddle;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_sys_2 as sys;

use super::{Model, ModelError};

/// What can be known of every token, read out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VocabTables {
    /// All pieces, one after the other.
    bytes: Vec<u8>,
    /// Where each token's piece begins; one more entry than tokens.
    starts: Vec<u32>,
    /// Tokens that are not shown: control tokens, and "unknown".
    hidden: Vec<bool>,
    pub(crate) end_of_generation: Vec<u32>,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) adds_bos: bool,
    /// Between the texts of a pair, where each ends with a mark of its own already (RoBERTa and its kin).
    pub(crate) pair_separator: Option<u32>,
    /// The three marks of a gap, by the file's keys, else by their names.
    pub(crate) fill_in_middle: Option<FillInMiddle>,
    /// "bpe", "spm", …
    pub(crate) algorithm: &'static str,
}

impl VocabTables {
    /// Reads the tables of `model`.
    pub(crate) fn read(model: &Model) -> Self {
        let vocab = model.safe().vocab();
        let id = |token: LlamaToken| u32::try_from(token.0).ok();
        let mut tables = Self {
            bytes: Vec::new(),
            starts: vec![0],
            hidden: Vec::new(),
            end_of_generation: Vec::new(),
            bos: id(vocab.bos()),
            eos: id(vocab.eos()),
            adds_bos: vocab.should_add_bos(),
            pair_separator: pair_separator(model),
            fill_in_middle: gap([vocab.fim_pre(), vocab.fim_suf(), vocab.fim_mid()].map(id)),
            algorithm: match model.vocab_type() {
                sys::LLAMA_VOCAB_TYPE_SPM => "spm",
                sys::LLAMA_VOCAB_TYPE_BPE => "bpe",
                sys::LLAMA_VOCAB_TYPE_WPM => "wordpiece",
                sys::LLAMA_VOCAB_TYPE_UGM => "unigram",
                sys::LLAMA_VOCAB_TYPE_RWKV => "rwkv",
                sys::LLAMA_VOCAB_TYPE_PLAMO2 => "plamo2",
                _ => "unknown",
            },
        };
        let mut plain = Vec::new();
        for token in vocab.tokens() {
            let before = tables.bytes.len();
            vocab.token_to_piece_into(token, &mut tables.bytes, true, None);
            plain.clear();
            vocab.token_to_piece_into(token, &mut plain, false, None);
            tables.hidden.push(plain.is_empty() && tables.bytes.len() > before);
            // A vocabulary of 4 GiB of text would have been refused by its header.
            tables.starts.push(u32::try_from(tables.bytes.len()).unwrap_or(u32::MAX));
            if vocab.is_eog(token) {
                tables.end_of_generation.extend(id(token));
            }
        }
        tables.bytes.shrink_to_fit();
        tables
    }

    /// One more than the highest id.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.hidden.len()).unwrap_or(u32::MAX)
    }

    /// The bytes of a token; `None` outside of the vocabulary and for tokens without text.
    pub(crate) fn piece(&self, id: u32) -> Option<&[u8]> {
        let index = id as usize;
        let (start, end) = (*self.starts.get(index)?, *self.starts.get(index + 1)?);
        self.bytes.get(start as usize..end as usize).filter(|bytes| !bytes.is_empty())
    }

    /// Whether a token is left out of shown text.
    pub(crate) fn is_hidden(&self, id: u32) -> bool {
        self.hidden.get(id as usize).copied().unwrap_or(false)
    }
}

fn pair_separator(model: &Model) -> Option<u32> {
    // SAFETY: a live model; its vocabulary lives as long.
    let (between, behind, separator) = unsafe {
        let vocab = sys::llama_model_get_vocab(model.as_ptr());
        (
            sys::llama_vocab_get_add_sep(vocab),
            sys::llama_vocab_get_add_eos(vocab),
            sys::llama_vocab_sep(vocab),
        )
    };
    // BERT's own vocabularies end each text with the separator.
    let ends_with_it = model.vocab_type() == sys::LLAMA_VOCAB_TYPE_WPM;
    u32::try_from(separator).ok().filter(|_| between && behind && !ends_with_it)
}

fn gap([prefix, suffix, middle]: [Option<u32>; 3]) -> Option<FillInMiddle> {
    Some(FillInMiddle { prefix: prefix?, suffix: suffix?, middle: middle? })
}

/// Refuses what llama.cpp would end the process for: two tokens that are written alike.
pub(super) fn check_tokens(path: &Path) -> Result<(), ModelError> {
    let failed = |error: ModelFileError| ModelError::Library(error.to_string());
    let file = GgufFile::open(path).map_err(failed)?;
    let tokens = file.metadata().array("tokenizer.ggml.tokens").map_err(failed)?;
    let mut seen = HashSet::new();
    for (id, token) in tokens.and_then(|tokens| tokens.strings()).into_iter().flatten().enumerate() {
        // The library's name for tokens without text.
        let written = if token.is_empty() { format!("[EMPTY_{id}]").into_bytes() } else { token.to_vec() };
        if !seen.insert(written) {
            let token = token.escape_ascii();
            return Err(ModelError::Library(format!("two tokens of its vocabulary are written \"{token}\"")));
        }
    }
    Ok(())
}

impl Model {
    /// The ids of `text`. Any thread. Some pre-tokenizers recurse once per character, so the caller provides the stack.
    pub(crate) fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, String> {
        // A token takes at least one byte of text, but for the few that are added.
        let mut ids: Vec<u32> = Vec::with_capacity(text.len() + 8);
        let n_bytes = i32::try_from(text.len()).map_err(|_| "the text is longer than 2 GiB".to_owned())?;
        for _attempt in 0..2 {
            let room: &mut [MaybeUninit<u32>] = ids.spare_capacity_mut();
            let n_room = i32::try_from(room.len()).unwrap_or(i32::MAX);
            // SAFETY: a live model and its vocabulary; text and buffer are as long as stated.
            let n = unsafe {
                let vocab = sys::llama_model_get_vocab(self.as_ptr());
                let (text, room) = (text.as_ptr().cast(), room.as_mut_ptr().cast());
                sys::llama_tokenize(vocab, text, n_bytes, room, n_room, add_special, parse_special)
            };
            if let Ok(n) = usize::try_from(n) {
                // SAFETY: the library has written `n` ids; they are never negative, and u32 has i32's layout.
                unsafe { ids.set_len(n) };
                return Ok(ids);
            }
            if n == i32::MIN {
                break;
            }
            ids.reserve(n.unsigned_abs() as usize);
        }
        Err("the text has more tokens than llama.cpp can count".to_owned())
    }
}
