//! `GET /metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::{ApiError, ErrorCode};

/// Prometheus' text format; from memory, whatever the engines are doing.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let text = app.metrics.render(&app.models, &app.drain).map_err(|error| {
        let message = "the metrics cannot be written; the server's log says why under this request's id";
        ApiError::new(ErrorCode::EngineError, message).diagnostic(error.to_string())
    })?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}
