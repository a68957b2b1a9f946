//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use duet_core::BackendError;
use duet_core::text::TokenId;

use super::completions::{left_over, tell_ignored};
use super::{body, json};
use crate::app::App;
use crate::error::ApiError;
use crate::generate::prepare::encode;
use crate::models::{Resident, blocking};
use crate::params::Endpoint;
use crate::record::{Record, Stage};
use crate::wire::fields::Fields;
use crate::wire::openai::embeddings::{EmbeddingsAnswer, EmbeddingsRequest, Shape};
use crate::wire::openai::prompt::Prompt;

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let active = app.drain.admit()?;
    let cut = active.cut();
    let answered = async {
        let body = body::read(request, &app.http).await?;
        record.stage(Stage::Preparing);
        let mut fields = Fields::of(Endpoint::Embeddings, &body)?;
        let asked = EmbeddingsRequest::take(&mut fields)?;
        let ignored = left_over(&app, fields)?;
        let entry = app.models.find(&asked.model)?.clone();
        record.stage(Stage::Loading);
        let resident = app.models.ready(&entry).await?;
        record.stage(Stage::Preparing);
        let answer = embed(&record, &resident, asked).await?;
        let mut response = json(answer);
        tell_ignored(&mut response, &ignored);
        Ok(response)
    };
    tokio::select! {
        answer = answered => answer,
        () = cut => Err(ApiError::shutting_down()),
    }
}

async fn embed(
    record: &Record,
    resident: &Arc<Resident>,
    asked: EmbeddingsRequest,
) -> Result<EmbeddingsAnswer, ApiError> {
    let EmbeddingsRequest { model, input, shape } = asked;
    let width = width(resident)?;
    check_dimensions(shape, width)?;
    let for_tokens = resident.clone();
    let texts = blocking(move || tokens(&for_tokens, input)).await??;
    let n_tokens = texts.iter().map(Vec::len).sum();
    record.prompt(&model, n_tokens);
    let pooling = resident.pooling();
    record.handed_over();
    let vectors = resident.model.embed(texts, pooling).await?;
    Ok(EmbeddingsAnswer::new(model, vectors, shape, n_tokens))
}

fn width(resident: &Resident) -> Result<usize, ApiError> {
    let width = resident.model.capabilities().embedding_width;
    width.map(|width| width as usize).ok_or_else(|| {
        let (name, engine) = (&resident.config.name, resident.model.info().backend);
        let message = format!("embeddings are not supported by model `{name}` on the engine `{engine}`");
        ApiError::unsupported("model", message)
    })
}

fn check_dimensions(shape: Shape, width: usize) -> Result<(), ApiError> {
    match shape.dimensions {
        Some(n) if n > width => {
            let message = format!("`dimensions` must be at most {width}, the width of that model; got {n}");
            Err(ApiError::invalid("dimensions", message))
        }
        _ => Ok(()),
    }
}

/// Every input as tokens that the model can take, with what its format puts around a text.
fn tokens(resident: &Resident, input: Vec<Prompt>) -> Result<Vec<Vec<TokenId>>, ApiError> {
    let tokenizer = resident.assets.tokenizer.as_ref();
    let capabilities = resident.model.capabilities();
    let context_length = capabilities.context_length.min(capabilities.kv_tokens) as usize;
    let many = input.len() > 1;
    let one = |(index, input): (usize, Prompt)| {
        let at = if many { format!("input[{index}]") } else { "input".to_owned() };
        let ids = match input {
            Prompt::Text(text) if text.is_empty() => Vec::new(),
            Prompt::Text(text) => encode(tokenizer, &text, true, &at)?,
            Prompt::Ids(ids) => ids,
        };
        if ids.is_empty() {
            return Err(ApiError::invalid(at.clone(), format!("`{at}` has no tokens")));
        }
        let vocab_size = tokenizer.vocab_size();
        if let Some(id) = ids.iter().find(|id| **id >= vocab_size) {
            let message = format!("`{at}` has token id {id}, and the vocabulary ends at {vocab_size}");
            return Err(ApiError::invalid(at, message));
        }
        if ids.len() > context_length {
            let message =
                format!("`{at}` has {} tokens, but the context length is {context_length}", ids.len());
            let refusal = BackendError::ContextLengthExceeded { n_prompt_tokens: ids.len(), context_length };
            return Err(ApiError { param: Some(at), message, ..ApiError::from(refusal) });
        }
        Ok(ids)
    };
    input.into_iter().enumerate().map(one).collect()
}
