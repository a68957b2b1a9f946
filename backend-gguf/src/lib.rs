//! duet: GGUF models through llama.cpp.
//!
//! The only crate that names llama-cpp-2 and llama-cpp-sys-2. Everything `unsafe` is in `raw`; the rest sees owned,
//! checked types. Without the feature `llama` the same names answer "not compiled in".

mod settings;

#[cfg(feature = "llama")]
mod backend;
#[cfg(feature = "llama")]
mod cells;
#[cfg(feature = "llama")]
mod cpu;
#[cfg(feature = "llama")]
mod load;
#[cfg(feature = "llama")]
pub mod measure;
#[cfg(feature = "llama")]
mod passes;
#[cfg(feature = "llama")]
mod raw;
#[cfg(feature = "llama")]
mod runner;
#[cfg(feature = "llama")]
mod snapshot;
#[cfg(not(feature = "llama"))]
mod stub;
#[cfg(feature = "llama")]
mod tokenizer;

#[cfg(feature = "llama")]
pub use backend::GgufBackend;
#[cfg(feature = "llama")]
pub use runner::GgufRunner;
pub use settings::GgufSettings;
#[cfg(not(feature = "llama"))]
pub use stub::{GgufBackend, load_tokenizer};
#[cfg(feature = "llama")]
pub use tokenizer::{GgufTokenizer, load_tokenizer};

/// The engine's id in config, answers and metrics.
pub const ID: &str = "gguf";

/// The bindings, pinned in Cargo.toml.
#[cfg(feature = "llama")]
const VERSIONS: &str = "llama-cpp-2 0.1.160, llama-cpp-sys-2 0.1.161";
