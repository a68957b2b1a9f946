//! Settings as they are written down: everything may be missing, nothing is checked beyond its type.
//!
//! The same structs read a file, the environment and the flags of the command line (where `None` is "not given").

use std::collections::BTreeMap;

use figment::value::magic::RelativePathBuf;
use serde::{Deserialize, Serialize};

use super::Size;

/// All settings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawConfig {
    /// The `[server]` table.
    #[serde(default)]
    pub server: RawServer,
    /// The `[cache]` table.
    #[serde(default)]
    pub cache: RawCache,
    /// The `[models.<name>]` tables.
    #[serde(default)]
    pub models: BTreeMap<String, RawModel>,
}

/// The `[server]` table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawServer {
    /// Address to listen on.
    pub host: Option<String>,
    /// Port to listen on; 0 lets the system choose.
    pub port: Option<u16>,
    /// Longest request body, in bytes.
    pub max_body_bytes: Option<u64>,
    /// Requests that may wait for one model before a 429.
    pub max_queue: Option<u64>,
    /// Requests in the server at once, over all models, before a 429.
    pub max_requests: Option<u64>,
    /// Seconds a request may take, loading included; none by default.
    pub request_timeout_s: Option<f64>,
    /// Seconds a client may take to send its request.
    pub body_timeout_s: Option<f64>,
    /// Seconds that running requests get to end at a shutdown.
    pub shutdown_timeout_s: Option<f64>,
    /// Further names under which the server may be addressed (`Host` header).
    pub allowed_hosts: Option<Vec<String>>,
    /// Origins whose pages may call the server (`Origin` header).
    pub allowed_origins: Option<Vec<String>>,
    /// "accept" or "deny" fields of a request that no API documents.
    pub unknown_fields: Option<String>,
    /// A file of API keys, one per line, in a file relative to that file.
    pub api_keys_file: Option<RelativePathBuf>,
    /// A PEM file with the certificate chain, for HTTPS.
    pub tls_cert: Option<RelativePathBuf>,
    /// A PEM file with the certificate's private key.
    pub tls_key: Option<RelativePathBuf>,
    /// Seconds a client may take for a request's head, waiting for the next request included.
    pub header_timeout_s: Option<f64>,
    /// Seconds a client may take no byte of an answer.
    pub write_timeout_s: Option<f64>,
    /// Connections at once; more wait.
    pub max_connections: Option<u64>,
    /// A file of what models say instead of what they would, for tests of clients.
    pub replay: Option<RelativePathBuf>,
}

/// The `[cache]` table: prefixes that had to leave an engine's KV cache.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawCache {
    /// Most host memory for them, over all models; 0 keeps none there.
    pub ram_bytes: Option<Size>,
    /// A folder for them, in a file relative to that file; they are there again after a restart.
    pub disk_dir: Option<RelativePathBuf>,
    /// Most bytes of the folder's files.
    pub disk_bytes: Option<Size>,
}

/// A `[models.<name>]` table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawModel {
    /// A .gguf file or an MLX directory; in a file relative to that file.
    pub path: Option<RelativePathBuf>,
    /// An engine's id, or "auto".
    pub engine: Option<String>,
    /// Longest request, prompt and completion, in tokens.
    pub context: Option<u32>,
    /// Sequences at once.
    pub parallel: Option<u32>,
    /// KV cache shared by all sequences, in tokens.
    pub kv_tokens: Option<u32>,
    /// Type of the KV cache's elements.
    pub kv_type: Option<String>,
    /// CPU threads.
    pub threads: Option<u32>,
    /// How MLX holds quantised weights: "auto", "packed" or "dense".
    pub weights: Option<String>,
    /// Whether all sequences share one KV buffer of llama.cpp's, instead of one each.
    pub kv_unified: Option<bool>,
    /// Most prompt tokens evaluated in one step.
    pub prefill_chunk: Option<u32>,
    /// While prompts are read, running streams keep at least one part in so many of their pace.
    pub stream_slowdown: Option<f32>,
    /// Whether requests share and reuse prefixes.
    pub prefix_cache: Option<bool>,
    /// How it writes tool calls: "auto", "none" or a family's name.
    pub tool_parser: Option<String>,
    /// How it marks its thinking: "auto", "none" or a family's name.
    pub reasoning_parser: Option<String>,
    /// How states become an embedding: "mean", "last" or "cls".
    pub pooling: Option<String>,
    /// Further names of the model.
    pub aliases: Option<Vec<String>>,
    /// Requests that may wait for this model, instead of `server.max_queue`.
    pub max_queue: Option<u64>,
    /// Default of the request's parameter of that name.
    pub temperature: Option<f32>,
    /// Default of the request's parameter of that name.
    pub top_p: Option<f32>,
    /// Default of the request's parameter of that name.
    pub top_k: Option<u32>,
    /// Default of the request's parameter of that name.
    pub min_p: Option<f32>,
    /// Default of the request's parameter of that name.
    pub typical_p: Option<f32>,
    /// Default of the request's parameter of that name.
    pub repetition_penalty: Option<f32>,
    /// Default of the request's parameter of that name.
    pub repeat_last_n: Option<i32>,
    /// Default of the request's parameter of that name.
    pub presence_penalty: Option<f32>,
    /// Default of the request's parameter of that name.
    pub frequency_penalty: Option<f32>,
    /// Default of the request's parameter of that name.
    pub max_tokens: Option<u32>,
}
