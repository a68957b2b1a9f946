//! What routes over [`duet_core::backend::LoadedModel::embed`] and `rank` have in common: a whole answer to a whole request.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use duet_core::BackendError;
use duet_core::text::TokenId;
use serde::Serialize;

use super::completions::{left_over, tell_ignored};
use super::{body, json};
use crate::app::App;
use crate::error::ApiError;
use crate::models::Resident;
use crate::params::Endpoint;
use crate::record::{Record, Stage};
use crate::wire::fields::Fields;

/// Answers a request of `endpoint`: reads it by `take`, gets the model of its name ready, and gives both to `answer`.
pub(super) async fn answered<A, T, F>(
    app: &App,
    record: &Record,
    request: Request,
    endpoint: Endpoint,
    take: fn(&mut Fields) -> Result<(String, A), ApiError>,
    answer: impl FnOnce(Arc<Resident>, String, A) -> F,
) -> Result<Response, ApiError>
where
    T: Serialize,
    F: Future<Output = Result<T, ApiError>>,
{
    let active = app.drain.admit()?;
    let cut = active.cut();
    let answered = async {
        let body = body::read(request, &app.http).await?;
        record.stage(Stage::Preparing);
        let mut fields = Fields::of(endpoint, &body)?;
        let (model, asked) = take(&mut fields)?;
        let ignored = left_over(app, fields)?;
        let entry = app.models.find(&model)?.clone();
        record.stage(Stage::Loading);
        let resident = app.models.ready(&entry).await?;
        record.stage(Stage::Preparing);
        let mut response = json(answer(resident, model, asked).await?);
        tell_ignored(&mut response, &ignored);
        Ok(response)
    };
    tokio::select! {
        answer = answered => answer,
        () = cut => Err(ApiError::shutting_down()),
    }
}

/// The ids, if the model can take them as a whole text; `at` is where they come from.
pub(super) fn fitting(resident: &Resident, ids: Vec<TokenId>, at: &str) -> Result<Vec<TokenId>, ApiError> {
    let capabilities = resident.model.capabilities();
    let context_length = capabilities.context_length.min(capabilities.kv_tokens) as usize;
    if ids.is_empty() {
        return Err(ApiError::invalid(at, format!("`{at}` has no tokens")));
    }
    let vocab_size = resident.assets.tokenizer.vocab_size();
    if let Some(id) = ids.iter().find(|id| **id >= vocab_size) {
        let message = format!("`{at}` has token id {id}, and the vocabulary ends at {vocab_size}");
        return Err(ApiError::invalid(at, message));
    }
    if ids.len() > context_length {
        let message = format!("`{at}` has {} tokens, but the context length is {context_length}", ids.len());
        let refusal = BackendError::ContextLengthExceeded { n_prompt_tokens: ids.len(), context_length };
        return Err(ApiError { param: Some(at.to_owned()), message, ..ApiError::from(refusal) });
    }
    Ok(ids)
}
