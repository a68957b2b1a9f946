//! The body of `POST /v1/embeddings`, and its answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::error::ApiError;
use crate::wire::fields::Fields;
use crate::wire::openai::prompt::{Prompt, PromptField};

/// How vectors are to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// So many of their first numbers, brought back to unit length.
    pub(crate) dimensions: Option<usize>,
    /// Little-endian single floats in base64, instead of JSON numbers.
    pub(crate) base64: bool,
}

/// A request, checked as far as it can be without a model.
#[derive(Debug)]
pub(crate) struct EmbeddingsRequest {
    pub(crate) input: Vec<Prompt>,
    pub(crate) shape: Shape,
}

impl EmbeddingsRequest {
    /// Reads a body; gives the model's name besides.
    ///
    /// # Errors
    /// As the contract's table.
    pub(crate) fn take(fields: &mut Fields) -> Result<(String, Self), ApiError> {
        let model = fields.need("model")?;
        let input = fields.need::<PromptField>("input")?.named("input")?;
        let base64 = fields.take::<String>("encoding_format")?.is_some_and(|format| format == "base64");
        let dimensions = fields.take::<u32>("dimensions")?.map(|n| n as usize);
        Ok((model, Self { input, shape: Shape { dimensions, base64 } }))
    }
}

/// What comes back.
#[derive(Serialize)]
pub(crate) struct EmbeddingsAnswer {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl EmbeddingsAnswer {
    /// Of pooled states, one vector for each input.
    pub(crate) fn new(model: String, vectors: Vec<Vec<f32>>, shape: Shape, n_tokens: usize) -> Self {
        let one = |(index, vector): (usize, Vec<f32>)| {
            let vector = unit(vector, shape.dimensions);
            let embedding = if shape.base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                Vector::Base64(STANDARD.encode(bytes))
            } else {
                Vector::Numbers(vector)
            };
            Embedding { object: "embedding", index, embedding }
        };
        let data = vectors.into_iter().enumerate().map(one).collect();
        let usage = Usage { prompt_tokens: n_tokens, total_tokens: n_tokens };
        Self { object: "list", data, model, usage }
    }
}

/// The first `n` numbers at unit length; zeroes stay zeroes.
fn unit(mut vector: Vec<f32>, n: Option<usize>) -> Vec<f32> {
    vector.truncate(n.unwrap_or(usize::MAX));
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_at_unit_length_whole_or_cut() {
        assert_eq!(unit(vec![3.0, 4.0], None), [0.6, 0.8]);
        assert_eq!(unit(vec![3.0, 4.0, 12.0], Some(2)), [0.6, 0.8]);
        assert_eq!(unit(vec![-2.0, 4.0], Some(1)), [-1.0]);
        assert_eq!(unit(vec![0.0; 2], None), [0.0; 2]);
        assert_eq!(unit(vec![f32::MAX, 0.0], None), [1.0, 0.0], "squares do not overflow");
    }

    #[test]
    fn base64_is_of_little_endian_floats() {
        let shape = Shape { dimensions: None, base64: true };
        let answer = EmbeddingsAnswer::new("m".into(), vec![vec![1.0, 0.0]], shape, 1);
        let json = serde_json::to_value(answer).expect("JSON");
        assert_eq!(json["data"][0]["embedding"], "AACAPwAAAAA=");
    }
}
