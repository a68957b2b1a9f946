//! `POST /v1/messages` and `/v1/messages/count_tokens`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;

use super::completions::{answer, left_over, tell_ignored};
use super::{body, json};
use crate::app::App;
use crate::error::ApiError;
use crate::generate::conversation::conversation;
use crate::generate::prepare::Work;
use crate::models::blocking;
use crate::params::Endpoint;
use crate::record::{Record, Stage};
use crate::wire::anthropic::request::take;
use crate::wire::fields::Fields;
use crate::wire::rename::in_words_of;

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(app, record, request, Endpoint::Messages, |fields| take(fields, false).map(Work::Chat)).await
}

/// How many tokens the prompt has, tools included.
pub(crate) async fn count(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let active = app.drain.admit()?;
    let body = tokio::select! {
        body = body::read(request, &app.http) => body?,
        () = active.cut() => return Err(ApiError::shutting_down()),
    };
    let mut fields = Fields::of(Endpoint::CountTokens, &body)?;
    let chat = take(&mut fields, true)?;
    let ignored = left_over(&app, fields)?;
    record.stage(Stage::Loading);
    let entry = app.models.find(&chat.params.model)?.clone();
    let resident = app.models.ready(&entry).await?;
    record.stage(Stage::Preparing);
    let count = move || {
        let tools = chat.tools.as_ref();
        conversation(&resident, chat.messages, &chat.template, tools).map(|talk| talk.ids.len())
    };
    let n_tokens = blocking(count).await?.map_err(|error| in_words_of(Endpoint::CountTokens, error))?;
    drop(active);
    let mut response = json(json!({"input_tokens": n_tokens}));
    tell_ignored(&mut response, &ignored);
    Ok(response)
}
