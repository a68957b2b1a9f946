//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use duet_core::text::TokenId;

use super::vectors::{answered, fitting};
use crate::app::App;
use crate::error::ApiError;
use crate::generate::prepare::encode;
use crate::models::{Resident, blocking};
use crate::params::Endpoint;
use crate::record::Record;
use crate::wire::openai::embeddings::{EmbeddingsAnswer, EmbeddingsRequest, Shape};
use crate::wire::openai::prompt::Prompt;

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let answer = |resident, model, asked| embed(&record, resident, model, asked);
    answered(&app, &record, request, Endpoint::Embeddings, EmbeddingsRequest::take, answer).await
}

async fn embed(
    record: &Record,
    resident: Arc<Resident>,
    model: String,
    asked: EmbeddingsRequest,
) -> Result<EmbeddingsAnswer, ApiError> {
    let EmbeddingsRequest { input, shape } = asked;
    let Some(width) = resident.model.capabilities().embedding_width else {
        return Err(resident.cannot("an embedding", "it scores pairs of texts, see `/v1/rerank`"));
    };
    check_dimensions(shape, width as usize)?;
    let for_tokens = resident.clone();
    let texts = blocking(move || tokens(&for_tokens, input)).await??;
    let n_tokens = texts.iter().map(Vec::len).sum();
    record.prompt(&model, n_tokens);
    let pooling = resident.pooling();
    record.handed_over();
    let vectors = resident.model.embed(texts, pooling).await?;
    Ok(EmbeddingsAnswer::new(model, vectors, shape, n_tokens))
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
    let many = input.len() > 1;
    let one = |(index, input): (usize, Prompt)| {
        let at = if many { format!("input[{index}]") } else { "input".to_owned() };
        let ids = match input {
            Prompt::Text(text) if text.is_empty() => Vec::new(),
            Prompt::Text(text) => encode(tokenizer, &text, true, &at)?,
            Prompt::Ids(ids) => ids,
        };
        fitting(resident, ids, &at)
    };
    input.into_iter().enumerate().map(one).collect()
}
