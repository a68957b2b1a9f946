//! The routes, by noun.

mod body;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod health;
pub(crate) mod messages;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod rerank;
pub(crate) mod responses;
pub(crate) mod tokens;
mod vectors;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A body of our own making.
fn json<T: Serialize>(value: T) -> Response {
    Json(value).into_response()
}
