//! For tests of every crate: a fake engine with nothing to load, and the conformance suite that every engine passes.

pub mod conformance;
mod embeddings;
mod fake_runner;
mod fake_tokenizer;
mod gguf_writer;
mod mlx_writer;
pub mod requests;
mod restart;
mod schemas;
mod storm;

pub use fake_runner::{FakeBackend, FakeConfig, FakeGate, FakeRunner, Reply, fake_model_info, fake_spec};
pub use fake_tokenizer::ByteTokenizer;
pub use gguf_writer::{GgufTensor, GgufValue, GgufWriter};
pub use mlx_writer::{MlxWriter, ZeroTensor};
pub use restart::{Restarted, restart};
pub use schemas::bounded_schemas;
pub use storm::{Weathered, storm};
