//! Constrained output over the fake runner, whose logits are noise: whatever comes keeps to its grammar.

use std::sync::Arc;

use duet_core::testing::conformance::{Answer, fold};
use duet_core::testing::{FakeBackend, FakeConfig, Reply, bounded_schemas, fake_spec};
use duet_core::{
    BackendError, ConstraintSpec, FinishReason, GenerateRequest, InferenceBackend, LoadedModel,
    LogprobsRequest, StopCause,
};
use serde_json::Value;

async fn load(config: FakeConfig, parallel: u32) -> Arc<dyn LoadedModel> {
    let mut spec = fake_spec(parallel);
    spec.context_length = 2048;
    spec.kv_tokens = 2048 * parallel;
    FakeBackend { config }.load(spec, Arc::new(|_| true)).await.expect("the fake loads")
}

fn request(model: &dyn LoadedModel, spec: ConstraintSpec, seed: u64) -> GenerateRequest {
    let constraint = model.constraint(spec).expect("a good constraint");
    let mut request = GenerateRequest::new("r", vec![1, 2, 3, (seed % 200) as u32], 1500);
    request.sampling.temperature = 1.0;
    request.sampling.seed = seed;
    request.constraint = Some(constraint);
    request
}

async fn answer(model: &dyn LoadedModel, spec: ConstraintSpec, seed: u64) -> Answer {
    fold(model.generate(request(model, spec, seed)).expect("idle")).await.expect("answered")
}

fn stopped(answer: &Answer) -> bool {
    matches!(answer.finished.reason, FinishReason::Stop(_))
}

#[tokio::test]
async fn noise_under_a_schema_is_valid_json() {
    let model = load(FakeConfig::default(), 4).await;
    let schemas = bounded_schemas(64);
    let mut streams = Vec::new();
    let mut n_stopped = 0;
    for (index, schema) in schemas.iter().enumerate() {
        let request = request(model.as_ref(), ConstraintSpec::JsonSchema(schema.clone()), index as u64);
        streams.push((schema, model.generate(request).expect("room in the queue")));
        if streams.len() == 8 || index + 1 == schemas.len() {
            for (schema, stream) in streams.drain(..) {
                let answer = fold(stream).await.expect("answered");
                if stopped(&answer) {
                    n_stopped += 1;
                    check_valid(schema, &answer.text);
                }
            }
        }
    }
    assert!(n_stopped >= 61, "only {n_stopped} of 64 came to an end");
}

#[track_caller]
fn check_valid(schema: &Value, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}\n{schema}"));
    let validator = jsonschema::options().should_validate_formats(true).build(schema).expect("a good schema");
    let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}: {text}\n{schema}");
}

#[tokio::test]
async fn an_answer_may_come_after_something_else() {
    let model = load(FakeConfig::default(), 1).await;
    let answers = [
        (ConstraintSpec::JsonObject, "object"),
        (
            ConstraintSpec::JsonSchema(serde_json::json!({"type": "integer", "maximum": 99, "minimum": 0})),
            "integer",
        ),
        (ConstraintSpec::Regex("(ja|nein)!".into()), "word"),
        (ConstraintSpec::Choice(vec!["ja!".into(), "nein!".into()]), "word"),
        (ConstraintSpec::grammar("root ::= (\"ja\" | \"nein\") \"!\"".into()), "word"),
        (ConstraintSpec::grammar("start: (\"ja\" | \"nein\") \"!\"".into()), "word"),
    ];
    for (seed, (answer_spec, kind)) in answers.into_iter().enumerate() {
        let rules = "lead: /[a-c]{1,9}/ \"</think>\" /\\s{0,2}/\n".to_owned();
        let spec = ConstraintSpec::Led { rules, answer: Box::new(answer_spec) };
        let answer = answer(model.as_ref(), spec, seed as u64).await;
        let (lead, rest) =
            answer.text.split_once("</think>").unwrap_or_else(|| panic!("{kind}: {}", answer.text));
        assert!((1..=9).contains(&lead.len()) && lead.bytes().all(|byte| b"abc".contains(&byte)), "{lead}");
        if !stopped(&answer) {
            continue; // any object may become long
        }
        match kind {
            "word" => assert!(["ja!", "nein!"].contains(&rest.trim_start()), "{rest}"),
            _ => assert!(serde_json::from_str::<Value>(rest).is_ok(), "{kind}: {rest}"),
        }
    }
}

#[tokio::test]
async fn the_place_of_an_error_is_that_of_the_answer_s_schema() {
    let model = load(FakeConfig::default(), 1).await;
    let schema = serde_json::json!({"type": "object", "properties": {"a": {"type": "colour"}}});
    let led = |answer| ConstraintSpec::Led { rules: "lead: /a/\n".into(), answer: Box::new(answer) };
    let error = model.constraint(led(ConstraintSpec::JsonSchema(schema))).unwrap_err();
    assert!(error.path().starts_with(".properties.a"), "{error:?}");
    assert!(model.constraint(led(led(ConstraintSpec::JsonObject))).is_err(), "one lead");
    let broken =
        ConstraintSpec::Led { rules: "lead: (".into(), answer: Box::new(ConstraintSpec::JsonObject) };
    assert!(model.constraint(broken).is_err());
}

#[tokio::test]
async fn a_whole_text_ends_the_generation_whatever_the_request_says_of_its_length() {
    for steps_in_flight in [1, 2] {
        let config = FakeConfig { steps_in_flight, device_sampling: true, ..FakeConfig::default() };
        let model = load(config, 1).await;
        let spec = ConstraintSpec::Choice(vec!["ja".into(), "\"nein\"\n".into()]);
        for (ignore_eos, min_tokens) in [(false, 0), (true, 0), (false, 100), (true, 100)] {
            let mut request = request(model.as_ref(), spec.clone(), 5);
            (request.ignore_eos, request.min_tokens) = (ignore_eos, min_tokens);
            let answer = fold(model.generate(request).expect("idle")).await.expect("answered");
            assert!(["ja", "\"nein\"\n"].contains(&answer.text.as_str()), "{}", answer.text);
            assert_eq!(answer.finished.reason, FinishReason::Stop(StopCause::Constraint));
            assert_eq!(answer.finished.usage.n_completion_tokens as usize, answer.text.len());
        }
    }
}

#[tokio::test]
async fn seeds_repeat_and_choose() {
    let model = load(FakeConfig::default(), 2).await;
    let spec = ConstraintSpec::Regex("^[a-z]{5,20}\\$$".to_owned());
    let first = answer(model.as_ref(), spec.clone(), 7).await;
    assert_eq!(first.text, answer(model.as_ref(), spec.clone(), 7).await.text);
    assert!(first.text.ends_with('$') && (6..=21).contains(&first.text.len()), "{}", first.text);
    let mut other = request(model.as_ref(), spec, 8);
    other.prompt = vec![1, 2, 3, 7];
    let other = fold(model.generate(other).expect("idle")).await.expect("answered");
    assert_ne!(first.text, other.text);
}

#[tokio::test]
async fn logprobs_are_the_models_own() {
    let model = load(FakeConfig::default(), 1).await;
    let mut free = GenerateRequest::new("r", vec![9], 1);
    free.logprobs = Some(LogprobsRequest { n_top: 2 });
    let best = fold(model.generate(free.clone()).expect("idle")).await.expect("answered").tokens.remove(0);
    let mut bound = free;
    bound.constraint = Some(model.constraint(ConstraintSpec::Regex("[ab]".into())).expect("good"));
    let chosen = fold(model.generate(bound).expect("idle")).await.expect("answered").tokens.remove(0);
    assert!(["a", "b"].contains(&chosen.text.as_str()));
    let (best, chosen) = (best.logprobs.expect("asked for"), chosen.logprobs.expect("asked for"));
    assert_eq!(best.top, chosen.top);
    assert!(chosen.logprob < best.logprob);
}

#[tokio::test]
async fn stop_strings_end_constrained_text_too() {
    let model = load(FakeConfig::default(), 1).await;
    let mut request = request(model.as_ref(), ConstraintSpec::Regex("ab*STOPb*".into()), 1);
    request.stop = vec!["STOP".into()];
    let answer = fold(model.generate(request).expect("idle")).await.expect("answered");
    assert_eq!(answer.finished.reason, FinishReason::Stop(StopCause::StopString(0)));
    assert!(answer.text.starts_with('a') && !answer.text.contains('S'), "{}", answer.text);
}

#[tokio::test]
async fn the_end_is_only_allowed_where_the_text_is_whole() {
    // The fake would rather end at once.
    let config = FakeConfig { reply: Reply::Tokens(Vec::new()), ..FakeConfig::default() };
    let model = load(config, 1).await;
    let mut request = request(model.as_ref(), ConstraintSpec::Regex("[a-z]{3}[0-9]*".into()), 1);
    request.sampling.temperature = 0.0;
    let answer = fold(model.generate(request).expect("idle")).await.expect("answered");
    assert_eq!(answer.text.len(), 3, "{}", answer.text);
    assert_eq!(answer.finished.reason, FinishReason::Stop(StopCause::EndOfGeneration(257)));
}

#[tokio::test]
async fn a_bias_against_all_that_is_allowed_is_the_clients_error() {
    let model = load(FakeConfig::default(), 1).await;
    let mut request = request(model.as_ref(), ConstraintSpec::Regex("[ab]".into()), 1);
    request.sampling.logit_bias = vec![(97, f32::NEG_INFINITY), (98, f32::NEG_INFINITY)];
    let error = fold(model.generate(request).expect("idle")).await.expect_err("nothing is left");
    assert!(matches!(error, BackendError::InvalidRequest { .. }), "{error}");
}
