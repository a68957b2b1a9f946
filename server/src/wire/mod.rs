//! Wire formats: what clients send and read, field by field. Nothing here knows an engine.

pub(crate) mod anthropic;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod openai;
pub(crate) mod rename;
pub(crate) mod rerank;
pub(crate) mod responses;
