//! A tokenizer whose tokens are what a test says.

use super::{EncodeOptions, TokenId, Tokenizer, TokenizerError};

/// Token n is the n-th piece; it cannot encode.
#[derive(Debug)]
pub(crate) struct PieceTokenizer {
    pub(crate) pieces: Vec<Vec<u8>>,
    /// So many tokens at the end are control tokens.
    pub(crate) n_control: usize,
    pub(crate) strips: bool,
}

impl PieceTokenizer {
    pub(crate) fn new(pieces: &[&[u8]]) -> Self {
        Self { pieces: pieces.iter().map(|piece| piece.to_vec()).collect(), n_control: 0, strips: false }
    }
}

impl Tokenizer for PieceTokenizer {
    fn encode(&self, _: &str, _: EncodeOptions) -> Result<Vec<TokenId>, TokenizerError> {
        Err(TokenizerError::Unsupported { what: "encoding".to_owned() })
    }

    fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.pieces.get(id as usize).map(Vec::as_slice)
    }

    fn is_control(&self, id: TokenId) -> bool {
        let id = id as usize;
        id < self.pieces.len() && id >= self.pieces.len() - self.n_control
    }

    fn vocab_size(&self) -> u32 {
        self.pieces.len() as u32
    }

    fn bos(&self) -> Option<TokenId> {
        None
    }

    fn eos(&self) -> Option<TokenId> {
        None
    }

    fn adds_bos(&self) -> bool {
        false
    }

    fn end_of_generation(&self) -> &[TokenId] {
        &[]
    }

    fn kind(&self) -> &str {
        "pieces"
    }

    fn strips_leading_space(&self) -> bool {
        self.strips
    }
}
