//! Text on both sides of an engine: tokenizer, detokenizer, stop strings, chat template.
//!
//! Engines see token ids only; everything here turns text into ids before an engine and ids into text after it,
//! once for all engines. Nothing here knows an engine, a request format or a sampler.

mod detokenizer;
mod hf;
mod stop;
mod template;
#[cfg(test)]
pub(crate) mod testing;
mod tokenizer;

pub use detokenizer::Detokenizer;
pub use hf::HfTokenizer;
pub use stop::{StopMatcher, StopStep};
pub use template::{ChatTemplate, TemplateError, TemplateInput, TemplateSources};
#[cfg(test)]
pub(crate) use testing::PieceTokenizer;
pub use tokenizer::{EncodeOptions, FillInMiddle, Tokenizer, TokenizerError};

/// A token's number in its model's vocabulary.
pub type TokenId = u32;
