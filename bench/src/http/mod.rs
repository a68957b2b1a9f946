//! An OpenAI-compatible server as something to measure: token-id prompts go out, tokens come back, each with the instant
//! at which its bytes had arrived.
//!
//! One connection per request, so that dropping an [`AnswerStream`] is a client that leaves. Knows nothing of engines,
//! and of servers only what `/v1/completions` streams: duet and llama-server are told apart nowhere.

mod answer;
mod chunk;
mod client;
mod error;
mod remote;
mod request;

pub use answer::{Answer, AnswerStream, Piece};
pub use chunk::Usage;
pub use client::{Client, Whole};
pub use error::HttpError;
pub use remote::RemoteServer;
pub(crate) use remote::{TEXT_PROMPTS, text_of};
pub use request::CompletionRequest;
