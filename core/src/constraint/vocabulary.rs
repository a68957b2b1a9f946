//! A tokenizer's tokens as the trie that masks are computed on.

use std::sync::Arc;

use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use super::ConstraintError;
use crate::text::{TokenId, Tokenizer};

/// The trie, and no way to tokenize: forced tokens are left to the model, whose tokenization is the canonical one.
struct Vocabulary {
    trie: TokTrie,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.greedy_tokenize(bytes)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

/// Takes a second for the largest vocabularies in a debug build, tens of milliseconds otherwise.
pub(super) fn environment(tokenizer: &dyn Tokenizer) -> Result<TokEnv, ConstraintError> {
    let n = tokenizer.vocab_size();
    let ends: Vec<TokenId> = tokenizer.end_of_generation().iter().copied().filter(|id| *id < n).collect();
    let Some(&first_end) = ends.first() else {
        let message = "the model has no end-of-generation token, so that no constraint could end".to_owned();
        return Err(ConstraintError::Unavailable { message });
    };
    let words: Vec<Vec<u8>> = (0..n).map(|id| bytes_for_trie(tokenizer, &ends, id)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(n, first_end), &words).with_eos_tokens(&ends);
    Ok(Arc::new(Vocabulary { trie }))
}

/// Tokens that steer the model get a mark in front that no text has, so that no text can ask for them; grammars name them
/// as `<name>`.
fn bytes_for_trie(tokenizer: &dyn Tokenizer, ends: &[TokenId], id: TokenId) -> Vec<u8> {
    const MARK: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    match tokenizer.token_bytes(id) {
        None => Vec::new(),
        Some(bytes) if tokenizer.is_control(id) || ends.contains(&id) => [&[MARK], bytes].concat(),
        // The mark's own byte is in no UTF-8 text.
        Some(bytes) if bytes.first() == Some(&MARK) => Vec::new(),
        Some(bytes) => bytes.to_vec(),
    }
}
