//! `GET /health`, `/livez`, `/readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::json;
use crate::app::App;
use crate::error::{ApiError, ErrorCode};
use crate::models::Phase;

#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    n_active_requests: usize,
    models: BTreeMap<&'a str, ModelHealth>,
}

#[derive(Serialize)]
struct ModelHealth {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_running: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_waiting: Option<usize>,
}

/// 200 at once; how each model does is in the body.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let models = app.models.entries().iter().map(|entry| {
        let phase = entry.phase();
        let load = match &phase {
            Phase::Ready(resident) => Some(resident.model.load()),
            _ => None,
        };
        let (n_running, n_waiting) = (load.map(|load| load.n_running), load.map(|load| load.n_waiting));
        (entry.config.name.as_str(), ModelHealth { state: phase.name(), n_running, n_waiting })
    });
    let status = if app.drain.is_stopping() { "stopping" } else { "ok" };
    json(Health { status, n_active_requests: app.drain.n_active(), models: models.collect() })
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

/// The process answers.
pub(crate) async fn live() -> Response {
    json(Status { status: "ok" })
}

/// The server takes requests, and no loaded model's engine is gone.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    if app.drain.is_stopping() {
        return Err(ApiError::shutting_down());
    }
    for entry in app.models.entries() {
        match entry.phase() {
            Phase::Unknown => {
                return Err(ApiError::new(ErrorCode::ModelLoading, "the models' headers are being read")
                    .retry_after(Duration::from_secs(1)));
            }
            Phase::Ready(resident) if resident.is_crashed() => {
                let message = format!("the engine of model `{}` stopped", entry.config.name);
                return Err(ApiError::new(ErrorCode::EngineCrashed, message));
            }
            _ => {}
        }
    }
    Ok(json(Status { status: "ok" }))
}
