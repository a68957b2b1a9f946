//! OpenAI's wire format: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.

pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod embeddings;
pub(crate) mod logprobs;
pub(crate) mod message;
pub(crate) mod models;
pub(crate) mod one_or_many;
pub(crate) mod params;
pub(crate) mod prompt;
pub(crate) mod response;
pub(crate) mod sampling;
pub(crate) mod structure;
