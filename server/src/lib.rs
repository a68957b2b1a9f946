//! duet: the HTTP server (OpenAI wire format).
//!
//! Knows no engine: engines come as a [`duet_core::registry::Registry`], and what they can do as data. A request goes
//! `routes` → `wire` (checked) → `models` (loaded, once for all who wait) → `generate` (template, tokens, events) →
//! `wire` again. Status codes are in [`error`] and nowhere else.

mod api;
mod app;
mod auth;
pub mod config;
mod drain;
mod envelope;
pub mod error;
mod generate;
mod guard;
mod listen;
mod metrics;
mod models;
mod near;
pub mod params;
mod reasoning;
mod record;
mod replay;
mod routes;
mod serve;
mod tools;
mod wire;

pub use auth::Keys;
pub use config::{
    CacheConfig, ConfigError, HttpConfig, ModelConfig, RawCache, RawConfig, RawModel, RawServer,
    SecurityConfig, ServerConfig, Size, TlsFiles,
};
pub use error::{ApiError, ErrorCode};
pub use models::{Memory, MemorySource, system_memory};
pub use replay::ReplayScript;
pub use serve::{ModelSummary, Server, serve};
