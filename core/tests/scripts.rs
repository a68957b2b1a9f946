//! Scripted output over the fake runner: the script decides the tokens, everything else is as ever.

use std::sync::Arc;

use duet_core::testing::conformance::fold;
use duet_core::testing::{FakeBackend, FakeConfig, fake_spec};
use duet_core::{
    BackendError, ConstraintSpec, FinishReason, GenerateRequest, InferenceBackend, LoadedModel,
    LogprobsRequest, StopCause,
};

/// Ends the fake's texts.
const EOS: u32 = 257;

async fn load(config: FakeConfig) -> Arc<dyn LoadedModel> {
    FakeBackend { config }.load(fake_spec(2), Arc::new(|_| true)).await.expect("the fake loads")
}

fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn scripted(text: &str) -> GenerateRequest {
    GenerateRequest { script: Some(ids(text).into()), ..GenerateRequest::new("r", ids("hello"), 50) }
}

#[tokio::test]
async fn the_script_is_the_answer_and_the_models_own_token_its_end() {
    for steps_in_flight in [1, 2] {
        let config = FakeConfig { steps_in_flight, device_sampling: true, ..FakeConfig::default() };
        let model = load(config).await;
        let before = model.load().n_forward_passes;
        let answer = fold(model.generate(scripted("grüße")).expect("idle")).await.expect("answered");
        assert_eq!(answer.text, "grüße");
        assert_eq!(answer.finished.reason, FinishReason::Stop(StopCause::EndOfGeneration(EOS)));
        assert_eq!(answer.finished.usage.n_completion_tokens as usize, "grüße".len() + 1);
        assert_eq!(
            model.load().n_forward_passes - before,
            "grüße".len() as u64 + 1,
            "all of it is evaluated"
        );
    }
}

#[tokio::test]
async fn sampling_and_its_least_length_have_no_say() {
    let model = load(FakeConfig::default()).await;
    let mut request = scripted("ab");
    request.sampling.temperature = 2.0;
    request.sampling.logit_bias = vec![(u32::from(b'a'), -100.0)];
    request.min_tokens = 20;
    request.logprobs = Some(LogprobsRequest { n_top: 1 });
    let answer = fold(model.generate(request).expect("idle")).await.expect("answered");
    assert_eq!((answer.text.as_str(), answer.tokens.len()), ("ab", 2));
}

#[tokio::test]
async fn the_requests_ends_hold() {
    let model = load(FakeConfig::default()).await;
    let short = GenerateRequest { max_tokens: 3, ..scripted("abcdef") };
    let answer = fold(model.generate(short).expect("idle")).await.expect("answered");
    assert_eq!((answer.text.as_str(), answer.finished.reason), ("abc", FinishReason::Length));
    let stopped = GenerateRequest { stop: vec!["cd".to_owned()], ..scripted("abcdef") };
    let answer = fold(model.generate(stopped).expect("idle")).await.expect("answered");
    let wanted = FinishReason::Stop(StopCause::StopString(0));
    assert_eq!((answer.text.as_str(), answer.finished.reason), ("ab", wanted));
    let empty = fold(model.generate(scripted("")).expect("idle")).await.expect("answered");
    assert_eq!((empty.text.as_str(), empty.finished.usage.n_completion_tokens), ("", 1));
}

#[tokio::test]
async fn what_it_wrote_is_found_in_the_cache() {
    let model = load(FakeConfig { n_holders: 4, ..FakeConfig::default() }).await;
    let said = "an answer that is long enough to be kept";
    fold(model.generate(scripted(said)).expect("idle")).await.expect("answered");
    let next = GenerateRequest { prompt: ids(&format!("hello{said} and on")), ..scripted("more") };
    let answer = fold(model.generate(next).expect("idle")).await.expect("answered");
    assert_eq!(answer.finished.usage.n_cached_tokens as usize, 5 + said.len());
}

#[tokio::test]
async fn a_script_keeps_to_the_requests_form_or_fails() {
    let model = load(FakeConfig::default()).await;
    let constraint = model.constraint(ConstraintSpec::Regex("a+".to_owned())).expect("a good one");
    let of = |text: &str| GenerateRequest { constraint: Some(constraint.clone()), ..scripted(text) };
    let good = fold(model.generate(of("aaa")).expect("idle")).await.expect("answered");
    assert_eq!(good.text, "aaa");
    for bad in ["ab", "", "b"] {
        let error = fold(model.generate(of(bad)).expect("idle")).await.expect_err(bad);
        assert!(
            matches!(&error, BackendError::InvalidRequest { message, .. } if message.contains("script")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn ids_beyond_the_vocabulary_are_refused() {
    let model = load(FakeConfig::default()).await;
    let request = GenerateRequest { script: Some([1, 9999].into()), ..scripted("") };
    let error = model.generate(request).map(drop).expect_err("outside");
    assert!(
        matches!(&error, BackendError::InvalidRequest { message, .. } if message.contains("9999")),
        "{error}"
    );
}
