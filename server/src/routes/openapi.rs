//! `GET /openapi.json`.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::api;

/// Nothing in it changes while the process lives.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| api::document().to_string().into());

pub(crate) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}
