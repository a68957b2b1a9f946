//! `POST /v1/rerank`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use duet_core::text::TokenId;

use super::vectors::{answered, fitting};
use crate::app::App;
use crate::error::ApiError;
use crate::models::{Resident, blocking};
use crate::params::Endpoint;
use crate::record::Record;
use crate::wire::rerank::{RerankAnswer, RerankRequest};

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let answer = |resident, model, asked| rank(&record, resident, model, asked);
    answered(&app, &record, request, Endpoint::Rerank, RerankRequest::take, answer).await
}

async fn rank(
    record: &Record,
    resident: Arc<Resident>,
    model: String,
    asked: RerankRequest,
) -> Result<RerankAnswer, ApiError> {
    if !resident.model.capabilities().ranks {
        return Err(resident.cannot("reranking", "it is no cross-encoder in a GGUF file"));
    }
    let for_tokens = resident.clone();
    let (asked, pairs) = blocking(move || pairs(&for_tokens, &asked).map(|pairs| (asked, pairs))).await??;
    let n_tokens = pairs.iter().map(Vec::len).sum();
    record.prompt(&model, n_tokens);
    record.handed_over();
    let scores = resident.model.rank(pairs).await?;
    Ok(RerankAnswer::new(&record.id, model, asked.documents, &scores, asked.shape, n_tokens))
}

/// The query beside each document, as tokens that the model can take.
fn pairs(resident: &Resident, asked: &RerankRequest) -> Result<Vec<Vec<TokenId>>, ApiError> {
    let tokenizer = resident.assets.tokenizer.as_ref();
    let one = |(index, document): (usize, &String)| {
        let at = format!("documents[{index}]");
        let ids = tokenizer.encode_pair(&asked.query, document);
        fitting(resident, ids.map_err(|error| ApiError::invalid(&at, error.to_string()))?, &at)
    };
    asked.documents.iter().enumerate().map(one).collect()
}
