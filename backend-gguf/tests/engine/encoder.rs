//! Models of the BERT kind against transformers: states, scores, and what they refuse.

use std::sync::Arc;

use duet_backend_gguf::{GgufSettings, load_tokenizer};
use duet_core::text::EncodeOptions;
use duet_core::{
    BackendError, GenerateRequest, LoadedModel, Pooler, Pooling, SeqId, StepPlan, TextPart, Want,
};

use crate::common::{self, fixture, row};
use crate::oracle::Oracle;

const TEXTS: [&str; 3] =
    ["The cat sat on the mat.", "Rain", "a river carries sand to the sea, and rain fell today"];
const QUERY: &str = "where is the cat?";
const DOCUMENTS: [&str; 4] =
    ["the cat sat on the mat", "the stock market fell today", "rain", "Dogs and cats in the river!"];
/// Tokens that the fixtures take.
const CONTEXT: usize = 128;

async fn load(name: &str) -> Arc<dyn LoadedModel> {
    common::load_with(GgufSettings::default(), common::spec(name)).await.expect("an encoder loads")
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    let worst = got.iter().zip(expected).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    assert_eq!(got.len(), expected.len(), "{what}");
    assert!(worst <= 1e-3 * scale, "{what}: {worst} of {scale}");
}

#[tokio::test]
async fn vectors_equal_transformers() {
    let (oracle, model) = (Oracle::read("tiny-bert"), load("tiny-bert.gguf").await);
    let options = EncodeOptions { add_special: true, parse_special: false };
    let mut ids = Vec::new();
    for (index, text) in TEXTS.iter().enumerate() {
        ids.push(oracle.ids(&format!("text.{index}.ids")));
        assert_eq!(model.tokenizer().encode(text, options).expect("plain text"), ids[index], "{text}");
    }
    for (name, pooling) in Pooling::NAMES {
        let vectors = model.embed(ids.clone(), pooling).await.expect("known tokens");
        for (index, vector) in vectors.iter().enumerate() {
            let states = oracle.floats(&format!("text.{index}.states"));
            let mut pooler = Pooler::new(pooling, states.len() / ids[index].len());
            pooler.push(&states);
            assert_close(vector, &pooler.finish().unwrap(), name);
        }
    }
    model.unload().await;
}

#[tokio::test]
async fn scores_equal_transformers() {
    let (oracle, model) = (Oracle::read("tiny-bert-rank"), load("tiny-bert-rank.gguf").await);
    assert!(model.capabilities().ranks && model.capabilities().embedding_width.is_none());
    let mut pairs = Vec::new();
    for (index, document) in DOCUMENTS.iter().enumerate() {
        pairs.push(oracle.ids(&format!("pair.{index}.ids")));
        let encoded = model.tokenizer().encode_pair(QUERY, document).expect("plain text");
        assert_eq!(encoded, pairs[index], "{document}");
    }
    let expected: Vec<f32> =
        (0..pairs.len()).flat_map(|index| oracle.floats(&format!("pair.{index}.score"))).collect();
    assert_close(&model.rank(pairs.clone()).await.expect("known tokens"), &expected, "scores");
    let refused = model.embed(pairs, Pooling::Mean).await;
    assert!(matches!(refused, Err(BackendError::Unsupported { .. })), "{refused:?}");
    model.unload().await;
}

#[tokio::test]
async fn an_encoder_neither_generates_nor_ranks() {
    let model = load("tiny-bert.gguf").await;
    assert!(!model.capabilities().generates);
    let refused = model.generate(GenerateRequest::new("encoder", vec![2, 9, 3], 4)).map(drop);
    assert!(
        matches!(&refused, Err(BackendError::Unsupported { backend, .. }) if backend == "gguf"),
        "{refused:?}"
    );
    let refused = model.rank(vec![vec![2, 9, 3]]).await;
    assert!(matches!(refused, Err(BackendError::Unsupported { .. })), "{refused:?}");
    model.unload().await;
}

#[tokio::test]
async fn texts_are_as_long_as_the_model_was_trained_for() {
    // More than that would read beyond the table of positions.
    let mut spec = common::spec("tiny-bert.gguf");
    spec.context_length = 1000;
    spec.kv_tokens = 1000;
    let model = common::load_with(GgufSettings::default(), spec).await.expect("it loads");
    assert_eq!(model.capabilities().context_length as usize, CONTEXT);
    let longest = model.embed(vec![vec![9; CONTEXT]], Pooling::Mean).await.expect("it fits");
    assert!(longest[0].iter().all(|value| value.is_finite()));
    let refused = model.embed(vec![vec![9; CONTEXT + 1]], Pooling::Mean).await;
    assert!(matches!(refused, Err(BackendError::ContextLengthExceeded { .. })), "{refused:?}");
    for odd in [Vec::new(), vec![9, 100_000]] {
        let refused = model.embed(vec![vec![9], odd], Pooling::Mean).await;
        assert!(matches!(refused, Err(BackendError::InvalidRequest { .. })), "{refused:?}");
    }
    model.unload().await;
}

#[tokio::test]
async fn the_runner_refuses_what_needs_a_cache_and_parts_of_texts() {
    let model = load("tiny-bert.gguf").await;
    common::on_runner(model.as_ref(), |runner| {
        let rows = [row(0, 0, &[9], Want::LastLogits)];
        let refused = runner.submit(StepPlan { rows: &rows });
        assert!(matches!(refused, Err(BackendError::Unsupported { .. })), "{refused:?}");
        assert!(runner.collect().is_err());
        assert!(runner.fork(SeqId(0), SeqId(1), 1).is_err());
        assert!(runner.snapshot(SeqId(0)).is_err());
        assert!(matches!(runner.truncate(SeqId(0), 0), Ok(false)));
        let width = runner.capabilities().embedding_width.expect("vectors") as usize;
        for (position, n_text) in [(0, 2), (1, 2), (0, 200)] {
            let mut pooler = Pooler::new(Pooling::Mean, width);
            let refused = runner.embed(TextPart { tokens: &[9], position, n_text }, &mut pooler);
            assert!(matches!(refused, Err(BackendError::InvalidRequest { .. })), "{position} of {n_text}");
        }
    })
    .await;
    model.unload().await;
}

#[tokio::test]
async fn a_crowd_of_requests_and_deserters_is_answered() {
    let model = load("tiny-bert.gguf").await;
    let alone = model.embed(vec![vec![2, 9, 3]], Pooling::Mean).await.expect("a text");
    for _ in 0..20 {
        let left = model.embed(vec![vec![9; CONTEXT]; 50], Pooling::Mean);
        // Polled once, then dropped.
        let _ = tokio::time::timeout(std::time::Duration::ZERO, left).await;
    }
    let one = || model.embed(vec![vec![2, 9, 3]], Pooling::Mean);
    let (a, b, c) = tokio::join!(one(), one(), one());
    for vectors in [a, b, c] {
        assert_eq!(vectors.expect("a text"), alone);
    }
    model.unload().await;
}

#[test]
fn headers_say_what_they_are() {
    let info = |name: &str| duet_core::model::inspect(&fixture(name)).expect("a fixture");
    let (bert, rank, llama) = (info("tiny-bert.gguf"), info("tiny-bert-rank.gguf"), info("tiny-llama.gguf"));
    assert_eq!((bert.encoder, bert.ranks, bert.pooling), (true, false, Some(Pooling::Mean)));
    assert_eq!((rank.encoder, rank.ranks, rank.pooling), (true, true, None));
    assert_eq!((llama.encoder, llama.ranks), (false, false));
    let tokenizer = load_tokenizer(&fixture("tiny-llama.gguf")).expect("a vocabulary");
    assert_eq!(tokenizer.pair_separator(), None);
}
