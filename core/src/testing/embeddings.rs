//! What every engine that gives embeddings has to do.

use super::conformance::{Tolerance, fold};
use crate::backend::LoadedModel;
use crate::embedding::Pooling;
use crate::error::BackendError;
use crate::request::GenerateRequest;
use crate::text::{EncodeOptions, TokenId};

const TEXTS: [&str; 3] =
    ["A cat sat on a mat.", "Rain", "The quick brown fox jumps over the lazy dog, twice."];

fn tokens(m: &dyn LoadedModel, text: &str) -> Vec<TokenId> {
    let options = EncodeOptions { add_special: true, parse_special: false };
    m.tokenizer().encode(text, options).expect("plain text encodes")
}

async fn embed(m: &dyn LoadedModel, texts: &[Vec<TokenId>], pooling: Pooling) -> Vec<Vec<f32>> {
    m.embed(texts.to_vec(), pooling).await.expect("known tokens that fit")
}

fn assert_close(a: &[f32], b: &[f32], tolerance: Tolerance, what: &str) {
    let most = a.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let apart = a.iter().zip(b).fold(0.0f32, |apart, (a, b)| apart.max((a - b).abs()));
    assert!(apart <= tolerance.0 * most, "{what}: {apart} apart, the largest number is {most}");
}

/// Shapes, several texts as one alone, beside a running stream, and refusals.
pub(super) async fn embeddings(m: &dyn LoadedModel, tolerance: Tolerance) {
    let Some(width) = m.capabilities().embedding_width else {
        let refused = m.embed(vec![tokens(m, "a")], Pooling::Mean).await;
        assert!(matches!(refused, Err(BackendError::Unsupported { .. })), "{refused:?}");
        return;
    };
    let texts: Vec<_> = TEXTS.iter().map(|text| tokens(m, text)).collect();
    for (name, pooling) in Pooling::NAMES {
        let together = embed(m, &texts, pooling).await;
        assert_eq!(together.len(), texts.len());
        for (text, vector) in texts.iter().zip(&together) {
            assert_eq!(vector.len(), width as usize, "{name}");
            assert!(vector.iter().all(|value| value.is_finite()), "{name}");
            let alone = embed(m, std::slice::from_ref(text), pooling).await;
            assert_close(&alone[0], vector, tolerance, name);
        }
        // The first token of texts may be the same one, and of a decoder its state too.
        assert!(pooling == Pooling::First || together[0] != together[1], "{name}: two texts, two vectors");
    }
    assert!(embed(m, &[], Pooling::Mean).await.is_empty());
    let [mean, last] = [Pooling::Mean, Pooling::Last].map(|pooling| embed(m, &texts[..1], pooling));
    assert_ne!(mean.await, last.await, "pooling makes a difference");
    beside_a_stream(m, &texts).await;
    refusals(m).await;
}

/// Neither notices the other.
async fn beside_a_stream(m: &dyn LoadedModel, texts: &[Vec<TokenId>]) {
    let request = || {
        let mut request = GenerateRequest::new("embeddings", tokens(m, "Once upon a time"), 16);
        request.ignore_eos = true;
        request
    };
    let vectors = embed(m, texts, Pooling::Last).await;
    let alone = fold(m.generate(request()).expect("idle")).await.expect("answered").ids();
    let stream = m.generate(request()).expect("idle");
    let (answer, beside) = tokio::join!(fold(stream), embed(m, texts, Pooling::Last));
    assert_eq!(answer.expect("answered").ids(), alone);
    assert_eq!(beside, vectors);
}

async fn refusals(m: &dyn LoadedModel) {
    let id = tokens(m, "a")[0];
    let n = m.capabilities().context_length.min(m.capabilities().kv_tokens) as usize;
    for odd in [Vec::new(), vec![m.tokenizer().vocab_size()]] {
        let refused = m.embed(vec![vec![id], odd], Pooling::Mean).await;
        assert!(matches!(refused, Err(BackendError::InvalidRequest { .. })), "{refused:?}");
    }
    let long = m.embed(vec![vec![id; n + 1]], Pooling::Mean).await;
    assert!(matches!(long, Err(BackendError::ContextLengthExceeded { n_prompt_tokens, context_length })
        if n_prompt_tokens == n + 1 && context_length == n));
    let longest =
        m.embed(vec![vec![id; n]], Pooling::Mean).await.expect("all of the context is there for it");
    assert!(longest[0].iter().all(|value| value.is_finite()));
}
