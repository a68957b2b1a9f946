//! The body of `POST /v1/rerank`, as Jina's and Cohere's clients send it, and its answer.

use serde::Serialize;
use serde_json::Value;

use crate::error::{ApiError, ErrorCode};
use crate::wire::fields::{Fields, kind};

/// Most documents of one request.
pub(crate) const MOST_DOCUMENTS: usize = 2048;

/// A request, checked as far as it can be without a model.
#[derive(Debug)]
pub(crate) struct RerankRequest {
    pub(crate) query: String,
    pub(crate) documents: Vec<String>,
    pub(crate) shape: Shape,
}

/// What of the documents the answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Only so many, the best.
    pub(crate) top_n: usize,
    /// Their texts too.
    pub(crate) documents: bool,
}

impl RerankRequest {
    /// Reads a body; gives the model's name besides.
    ///
    /// # Errors
    /// As the contract's table.
    pub(crate) fn take(fields: &mut Fields) -> Result<(String, Self), ApiError> {
        let model = fields.need("model")?;
        let query: String = fields.need("query")?;
        if query.is_empty() {
            return Err(ApiError::invalid("query", "`query` must not be empty"));
        }
        let documents = documents(fields.need("documents")?)?;
        let top_n = fields.take::<u32>("top_n")?.map_or(documents.len(), |n| n as usize);
        let shape = Shape { top_n, documents: fields.take::<bool>("return_documents")?.unwrap_or(false) };
        Ok((model, Self { query, documents, shape }))
    }
}

/// Texts, or objects with the field `text`.
fn documents(field: Value) -> Result<Vec<String>, ApiError> {
    let wrong = |at: String, wanted: &str, value: &Value| {
        let message = format!("`{at}` must be {wanted}, not {}", kind(value));
        ApiError::param(ErrorCode::InvalidType, at, message)
    };
    let Value::Array(items) = field else {
        return Err(wrong("documents".into(), "a list of texts", &field));
    };
    if items.is_empty() || items.len() > MOST_DOCUMENTS {
        let message = format!("`documents` must have 1 to {MOST_DOCUMENTS} entries, got {}", items.len());
        return Err(ApiError::invalid("documents", message));
    }
    let text = |(index, item): (usize, Value)| {
        let at = format!("documents[{index}]");
        match item {
            Value::String(text) => Ok(text),
            Value::Object(mut map) => match map.remove("text") {
                Some(Value::String(text)) => Ok(text),
                Some(other) => Err(wrong(format!("{at}.text"), "a string", &other)),
                None => Err(ApiError::missing(format!("{at}.text"))),
            },
            other => Err(wrong(at, "a string or an object with `text`", &other)),
        }
    };
    items.into_iter().enumerate().map(text).collect()
}

/// What comes back.
#[derive(Serialize)]
pub(crate) struct RerankAnswer {
    id: String,
    object: &'static str,
    model: String,
    results: Vec<Ranked>,
    usage: Usage,
}

#[derive(Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

#[derive(Serialize)]
struct Document {
    text: String,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl RerankAnswer {
    /// Of one score for each document, as the model's classifier says it; the best first, equal ones in their order.
    pub(crate) fn new(
        id: &str,
        model: String,
        documents: Vec<String>,
        scores: &[f32],
        shape: Shape,
        n_tokens: usize,
    ) -> Self {
        let one = |(index, (text, score)): (usize, (String, &f32))| Ranked {
            index,
            relevance_score: relevance(*score),
            document: shape.documents.then_some(Document { text }),
        };
        let mut results: Vec<Ranked> = documents.into_iter().zip(scores).enumerate().map(one).collect();
        results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
        results.truncate(shape.top_n);
        let usage = Usage { prompt_tokens: n_tokens, total_tokens: n_tokens };
        Self { id: format!("rerank-{id}"), object: "list", model, results, usage }
    }
}

/// From 0 to 1, as clients compare it with a threshold.
fn relevance(score: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(score)).exp())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(scores: &[f32], top_n: usize, documents: bool) -> Value {
        let texts = ["a", "b", "c"].map(str::to_owned).to_vec();
        let answer = RerankAnswer::new("1", "m".into(), texts, scores, Shape { top_n, documents }, 7);
        serde_json::to_value(answer).expect("JSON")
    }

    #[test]
    fn the_best_come_first_and_equals_keep_their_order() {
        let all = answer(&[-1.0, 2.0, -1.0], 3, false);
        let order: Vec<_> = all["results"].as_array().expect("a list").iter().map(|r| &r["index"]).collect();
        assert_eq!(order, [&json!(1), &json!(0), &json!(2)]);
        assert_eq!(all["results"][0].get("document"), None);
        let best = answer(&[-1.0, 2.0, -1.0], 1, true);
        assert_eq!(best["results"].as_array().map(Vec::len), Some(1));
        assert_eq!(best["results"][0]["document"], json!({"text": "b"}));
    }

    #[test]
    fn scores_become_shares() {
        assert_eq!(relevance(0.0), 0.5);
        assert!((relevance(2.0) - 0.880_797).abs() < 1e-6);
        assert_eq!((relevance(f32::MAX), relevance(-f32::MAX)), (1.0, 0.0));
    }
}
