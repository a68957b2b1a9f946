//! The server over a fake engine. One binary: each further one would be linked again.

mod api_page;
mod cache;
mod embeddings;
mod error_families;
mod error_rows;
mod errors;
mod every_parameter;
mod keys;
mod loading;
mod messages;
mod metrics;
mod params;
mod refusals;
mod replay;
mod responses;
mod scoring;
mod shutdown;
mod silence;
mod sockets;
mod streams;
mod strict_client;
mod structure;
mod support;
mod tokens;
mod tools;
mod transcripts;
