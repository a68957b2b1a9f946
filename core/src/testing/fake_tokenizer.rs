//! A tokenizer whose tokens are bytes.

use crate::text::{EncodeOptions, FillInMiddle, TokenId, Tokenizer, TokenizerError};

/// Ids 0–255 are bytes; then come `<bos>`, `<eos>`, `<|im_start|>`, `<|im_end|>`.
#[derive(Debug)]
pub struct ByteTokenizer {
    bytes: Vec<Vec<u8>>,
    gap: Option<FillInMiddle>,
}

const SPECIAL: [&str; 4] = ["<bos>", "<eos>", "<|im_start|>", "<|im_end|>"];

impl ByteTokenizer {
    /// `<bos>`.
    pub const BOS: TokenId = 256;
    /// `<eos>`.
    pub const EOS: TokenId = 257;
    /// `<|im_end|>`, the second end-of-generation token.
    pub const IM_END: TokenId = 259;
    /// Number of ids.
    pub const VOCAB: u32 = 260;

    /// One of a model that fills in the middle: the bytes 1, 2 and 3 are its marks.
    pub fn with_gaps() -> Self {
        Self { gap: Some(FillInMiddle { prefix: 1, suffix: 2, middle: 3 }), ..Self::default() }
    }
}

impl Default for ByteTokenizer {
    fn default() -> Self {
        let bytes = (0..=255u8).map(|byte| vec![byte]);
        let special = SPECIAL.iter().map(|text| text.as_bytes().to_vec());
        Self { bytes: bytes.chain(special).collect(), gap: None }
    }
}

impl Tokenizer for ByteTokenizer {
    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() + 1);
        if options.add_special {
            ids.push(Self::BOS);
        }
        let mut rest = text;
        'text: while !rest.is_empty() {
            if options.parse_special {
                for (index, special) in SPECIAL.iter().enumerate() {
                    if let Some(after) = rest.strip_prefix(special) {
                        ids.push(256 + index as TokenId);
                        rest = after;
                        continue 'text;
                    }
                }
            }
            let n = rest.chars().next().map_or(1, char::len_utf8);
            ids.extend(rest.as_bytes()[..n].iter().map(|byte| TokenId::from(*byte)));
            rest = &rest[n..];
        }
        Ok(ids)
    }

    fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.bytes.get(id as usize).map(Vec::as_slice)
    }

    fn is_control(&self, id: TokenId) -> bool {
        id >= Self::BOS
    }

    fn vocab_size(&self) -> u32 {
        Self::VOCAB
    }

    fn bos(&self) -> Option<TokenId> {
        Some(Self::BOS)
    }

    fn eos(&self) -> Option<TokenId> {
        Some(Self::EOS)
    }

    fn adds_bos(&self) -> bool {
        true
    }

    fn end_of_generation(&self) -> &[TokenId] {
        &[Self::EOS, Self::IM_END]
    }

    fn fill_in_middle(&self) -> Option<FillInMiddle> {
        self.gap
    }

    fn kind(&self) -> &str {
        "bytes (fake)"
    }

    fn strips_leading_space(&self) -> bool {
        false
    }
}
