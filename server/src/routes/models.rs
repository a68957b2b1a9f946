//! `GET /v1/models` and `GET /v1/models/{id}`: from memory, whatever the engines are doing.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;

use super::json;
use crate::app::App;
use crate::error::{ApiError, ErrorCode};
use crate::wire::openai::models::ModelObject;

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<ModelObject>,
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    let created = app.models.started_unix;
    let data = app.models.entries().iter().map(|entry| ModelObject::new(entry, created)).collect();
    json(List { object: "list", data })
}

pub(crate) async fn one(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(name) =
        name.map_err(|_| ApiError::new(ErrorCode::ModelNotFound, "the model's name is not UTF-8"))?;
    let entry = app.models.find(&name)?;
    Ok(json(ModelObject::new(entry, app.models.started_unix)))
}
