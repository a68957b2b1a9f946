//! The server over a fake engine. One binary: each further one would be linked again.

mod cache;
mod errors;
mod loading;
mod metrics;
mod params;
mod refusals;
mod shutdown;
mod streams;
mod strict_client;
mod support;
mod transcripts;
