//! Settings: read from four layers, checked once, passed on whole.
//!
//! Raw settings ([`RawConfig`]) hold what was written; [`ServerConfig`] is what the server runs on: everything that has a
//! default has it, everything is in range.

mod environment;
mod error;
mod load;
mod raw;
mod security;
mod size;
#[cfg(test)]
mod tests;
mod validate;

use crate::replay::ReplayScript;
use std::path::PathBuf;
use std::time::Duration;

use duet_core::Pooling;
use duet_core::backend::{DiskTierSpec, WeightsMode};
use duet_core::model::memory::KvType;
use duet_core::registry::EngineChoice;

pub use error::ConfigError;
pub use load::DEFAULT_FILE;
pub use raw::{RawCache, RawConfig, RawModel, RawServer};
pub use security::{SecurityConfig, TlsFiles};
pub use size::Size;

/// Checked settings of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// How it speaks HTTP.
    pub http: HttpConfig,
    /// Where prefixes are kept that had to leave an engine's KV cache.
    pub cache: CacheConfig,
    /// What it serves, in order of name.
    pub models: Vec<ModelConfig>,
    /// What the models say instead of what they would, for tests of clients.
    pub replay: Option<ReplayScript>,
}

/// What a request may bring, and from where.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Longest request body.
    pub max_body_bytes: usize,
    /// From the first byte of an accepted request to its end, loading included.
    pub request_timeout: Option<Duration>,
    /// Requests in the server at once, over all models.
    pub max_requests: usize,
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
    /// How long running requests may go on after the server was told to stop.
    pub shutdown_timeout: Duration,
    /// Names besides those of this machine that the `Host` header may have.
    pub allowed_hosts: Vec<String>,
    /// Values that the `Origin` header may have, besides the server's own.
    pub allowed_origins: Vec<String>,
    /// Whether a field that no API documents is a 400; else it is listed in `x-duet-ignored`.
    pub deny_unknown_fields: bool,
    /// Who may connect and call.
    pub security: SecurityConfig,
}

/// What the prefix caches of all models share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheConfig {
    /// Most host memory of all of them; `None`: an eighth of what is free at the start, at most 4 GiB.
    pub ram_bytes: Option<u64>,
    /// Where they outlive the process.
    pub disk: Option<DiskTierSpec>,
}

/// One model and how to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The name that clients ask for.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// A .gguf file or an MLX directory.
    pub path: PathBuf,
    /// Which engine.
    pub engine: EngineChoice,
    /// Longest request; `None`: what fits memory.
    pub context: Option<u32>,
    /// Sequences at once; `None`: what fits memory.
    pub parallel: Option<u32>,
    /// Shared KV cache; `None`: what fits memory.
    pub kv_tokens: Option<u32>,
    /// Type of the KV cache; `None`: the engine's own.
    pub kv_type: Option<KvType>,
    /// CPU threads; `None`: the engine's rule.
    pub threads: Option<u32>,
    /// How MLX holds quantised weights.
    pub weights: WeightsMode,
    /// Whether all sequences share one KV buffer of llama.cpp's; `None`: the engine's rule.
    pub kv_unified: Option<bool>,
    /// Most prompt tokens in one step.
    pub prefill_chunk: u32,
    /// While prompts are read, running streams keep at least one part in so many of their pace.
    pub stream_slowdown: f32,
    /// Whether requests share and reuse prefixes.
    pub prefix_cache: bool,
    /// How it writes tool calls: a family's name, "none", or "auto" for what its chat template says.
    pub tool_parser: &'static str,
    /// How it marks its thinking, in the same way.
    pub reasoning_parser: &'static str,
    /// How states become an embedding; `None`: as the model says, else their mean.
    pub pooling: Option<Pooling>,
    /// Requests that may wait for this model, while it loads and afterwards.
    pub max_queue: usize,
    /// Sampling where the request says nothing.
    pub sampling: SamplingDefaults,
}

/// Sampling parameters that somebody has a say in before the request; `None`: no say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SamplingDefaults {
    /// 0 to 2.
    pub temperature: Option<f32>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// 0 is off.
    pub top_k: Option<u32>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// 0 to 1.
    pub typical_p: Option<f32>,
    /// Above 0.
    pub repetition_penalty: Option<f32>,
    /// -1 is everything.
    pub repeat_last_n: Option<i32>,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Ceiling for generated tokens.
    pub max_tokens: Option<u32>,
}
