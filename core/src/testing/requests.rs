//! Conformance of requests that ask for more than a text: constrained output, prompts with scores.

use serde_json::{Value, json};

use super::conformance::{Tolerance, assert_close, evaluate, fold};
use crate::backend::LoadedModel;
use crate::constraint::ConstraintSpec;
use crate::event::FinishReason;
use crate::request::{GenerateRequest, LogprobsRequest};
use crate::runner::SeqId;
use crate::sampling::logprobs;
use crate::text::{EncodeOptions, TokenId};

fn prompt(model: &dyn LoadedModel, text: &str) -> Vec<TokenId> {
    let options = EncodeOptions { add_special: true, parse_special: false };
    model.tokenizer().encode(text, options).expect("plain text encodes")
}

/// A seeded request at temperature 1 whose answer has to keep to `spec`.
///
/// # Panics
/// If the constraint is no good.
pub fn constrained(
    model: &dyn LoadedModel,
    spec: ConstraintSpec,
    max_tokens: u32,
    seed: u64,
) -> GenerateRequest {
    let text = "Answer with a short JSON text:";
    let mut request = GenerateRequest::new("constrained", prompt(model, text), max_tokens);
    request.sampling.temperature = 1.0;
    request.sampling.seed = seed;
    request.constraint = Some(model.constraint(spec).expect("a good constraint"));
    request
}

/// How constrained answers ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Whole texts, all of them checked.
    pub n_whole: usize,
    /// Cut off at their length.
    pub n_cut: usize,
}

/// Asks for one answer per schema, up to eight beside each other, and gives whole ones to `check`.
///
/// # Panics
/// If a request fails, or as `check` does.
pub async fn answer_schemas(
    model: &dyn LoadedModel,
    schemas: &[Value],
    max_tokens: u32,
    check: impl Fn(&Value, &str),
) -> Ended {
    let mut ended = Ended::default();
    for (group, schemas) in schemas.chunks(8).enumerate() {
        let mut streams = Vec::new();
        for (index, schema) in schemas.iter().enumerate() {
            let spec = ConstraintSpec::JsonSchema(schema.clone());
            let request = constrained(model, spec, max_tokens, (group * 8 + index) as u64);
            streams.push((schema, model.generate(request).expect("room in the queue")));
        }
        for (schema, stream) in streams {
            let answer = fold(stream).await.expect("answered");
            if answer.finished.reason == FinishReason::Length {
                ended.n_cut += 1;
            } else {
                ended.n_whole += 1;
                check(schema, &answer.text);
            }
        }
    }
    ended
}

pub(super) async fn constrained_output_keeps_to_its_form(m: &dyn LoadedModel) {
    if m.tokenizer().end_of_generation().is_empty() {
        return; // nothing of that vocabulary could end a text
    }
    let schema = json!({
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}, "b": {"type": "boolean"}},
        "required": ["n", "b"],
        "additionalProperties": false
    });
    let check = |_: &Value, text: &str| {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(value["n"].as_u64().is_some_and(|n| (1..=9).contains(&n)), "{text}");
        assert!(value["b"].is_boolean(), "{text}");
    };
    let ended = answer_schemas(m, &vec![schema; 6], 160, check).await;
    assert!(ended.n_whole >= 4, "{ended:?}");
    for seed in 0..3 {
        let spec = ConstraintSpec::Regex("(yes|no|maybe)!".to_owned());
        let mut request = constrained(m, spec, 32, seed);
        request.sampling.temperature = seed as f32 / 2.0;
        request.ignore_eos = true;
        let answer = fold(m.generate(request).expect("idle")).await.expect("answered");
        assert!(["yes!", "no!", "maybe!"].contains(&answer.text.as_str()), "{}", answer.text);
        assert!(matches!(answer.finished.reason, FinishReason::Stop(_)));
    }
}

pub(super) async fn prompts_are_scored(m: &dyn LoadedModel, tolerance: Tolerance) {
    let ids = prompt(m, "The quick brown fox jumps over the lazy dog. Pack my box with jugs!");
    let ids = ids[..ids.len().min(48)].to_vec();
    let n_vocab = m.tokenizer().vocab_size() as usize;
    let (done, result) = tokio::sync::oneshot::channel();
    let own = ids.clone();
    m.run_exclusive(Box::new(move |runner| {
        let _ = done.send(evaluate(runner, SeqId(0), 0, &own)); // a test that gave up wants nothing
    }))
    .await
    .expect("the job runs");
    let logits = result.await.expect("the job answers");
    let width = logits.len() / ids.len();
    assert!(width >= n_vocab);
    let rows = logits.chunks_exact(width).zip(&ids[1..]);
    let expected: Vec<f32> = rows.map(|(row, id)| logprobs(row, *id, 0).logprob).collect();
    for max_tokens in [0, 2] {
        let mut request = GenerateRequest::new("scored", ids.clone(), max_tokens);
        request.prompt_logprobs = Some(LogprobsRequest { n_top: 1 });
        request.ignore_eos = true;
        let answer = fold(m.generate(request).expect("idle")).await.expect("answered");
        let got: Vec<f32> = answer.finished.prompt_logprobs.iter().map(|score| score.logprob).collect();
        assert_close("scores of a prompt", &expected, &got, tolerance);
        assert_eq!(answer.tokens.len(), max_tokens as usize);
    }
}
