//! `/v1/responses`.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::completions::answer;
use super::json;
use crate::app::App;
use crate::auth::Owner;
use crate::error::{ApiError, ErrorCode};
use crate::generate::prepare::Work;
use crate::params::Endpoint;
use crate::record::Record;
use crate::wire::responses::request::take;
use crate::wire::responses::store::{Cancelled, Responses, Stored};

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(owner): Extension<Owner>,
    request: Request,
) -> Result<Response, ApiError> {
    let responses = of(&app, owner);
    answer(app, record, request, Endpoint::Responses, |fields| take(fields, &responses).map(Work::Chat)).await
}

fn of(app: &App, owner: Owner) -> Responses {
    Responses { store: app.responses.clone(), owner }
}

fn find(app: &App, owner: Owner, id: &str) -> Result<Arc<Stored>, ApiError> {
    of(app, owner).get(id, Instant::now()).ok_or_else(|| gone(id))
}

fn gone(id: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no response {id:?} (any more)"))
}

pub(crate) async fn fetch(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    Ok(json(find(&app, owner, &id)?.body.clone()))
}

/// What it was asked.
pub(crate) async fn input_items(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let stored = find(&app, owner, &id)?;
    let items = stored.input.as_array().cloned().unwrap_or_default();
    let id_of = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let (first, last) = (id_of(items.first()), id_of(items.last()));
    Ok(json(json!({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": false})))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    match of(&app, owner).delete(&id, Instant::now()) {
        true => Ok(json(json!({"id": id, "object": "response", "deleted": true}))),
        false => Err(gone(&id)),
    }
}

/// Only responses in the background can be cancelled: whoever leaves another one cancels it so.
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    match of(&app, owner).cancel(&id, Instant::now()) {
        Cancelled::Ended(stored) => Ok(json(stored.body.clone())),
        Cancelled::Gone => Err(gone(&id)),
        Cancelled::Foreground => {
            let message = "only responses in the background can be cancelled; closing the connection cancels all others";
            Err(ApiError::invalid("id", message))
        }
    }
}
