//! The logits of the tiny random checkpoints against those of transformers and mlx-lm.

use crate::common::{Oracle, fixture, load_as, with_runner, worst};
use duet_core::testing::conformance::evaluate;
use duet_core::{Pooler, Pooling, SeqId, WeightsMode};

/// Logits of both prompts, and the greedy continuation where the reference is sure of it.
async fn check(model: &str, oracle: &str, weights: WeightsMode, tolerance: f32) {
    let (oracle, _folder) = Oracle::open(oracle);
    let loaded = load_as(&fixture(model), 1, weights).await;
    for prompt in ["prompt_short", "prompt_long"] {
        if !oracle.has(&format!("{prompt}.ids")) {
            continue;
        }
        let ids = oracle.ids(&format!("{prompt}.ids"));
        let expected = oracle.numbers(&format!("{prompt}.logits"));
        let given = ids.clone();
        let got = with_runner(loaded.as_ref(), move |runner| evaluate(runner, SeqId(0), 0, &given)).await;
        let difference = worst(&got, &expected);
        assert!(difference <= tolerance, "{model} {prompt}: {difference}");

        let (greedy, margins) =
            (oracle.ids(&format!("{prompt}.greedy_ids")), oracle.numbers(&format!("{prompt}.greedy_margin")));
        let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
        let sure = margins.iter().take_while(|margin| **margin > 2.0 * tolerance * scale).count();
        let got = with_runner(loaded.as_ref(), move |runner| {
            let vocab = runner.n_vocab();
            let best = |logits: &[f32]| {
                let row = &logits[logits.len() - vocab..];
                (0..vocab).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a vocabulary") as u32
            };
            let mut new = vec![best(&evaluate(runner, SeqId(0), 0, &ids))];
            while new.len() < 32 {
                let position = (ids.len() + new.len() - 1) as u32;
                new.push(best(&evaluate(runner, SeqId(0), position, &new[new.len() - 1..])));
            }
            new
        })
        .await;
        assert_eq!(got[..sure], greedy[..sure], "{model} {prompt}: greedy ids");
    }
    loaded.unload().await;
}

#[tokio::test]
async fn llama() {
    check("tiny-llama", "tiny-llama", WeightsMode::Auto, 1e-4).await;
    check("tiny-llama.gguf", "tiny-llama", WeightsMode::Auto, 1e-4).await;
}

#[tokio::test]
async fn llama_with_tied_embeddings() {
    check("tiny-llama-tied", "tiny-llama-tied", WeightsMode::Auto, 1e-4).await;
    check("tiny-llama-tied.gguf", "tiny-llama-tied", WeightsMode::Auto, 1e-4).await;
}

#[tokio::test]
async fn qwen2() {
    check("tiny-qwen2", "tiny-qwen2", WeightsMode::Auto, 1e-4).await;
    check("tiny-qwen2.gguf", "tiny-qwen2", WeightsMode::Auto, 1e-4).await;
    check("tiny-qwen2-sharded", "tiny-qwen2", WeightsMode::Auto, 1e-4).await;
}

#[tokio::test]
async fn qwen3() {
    check("tiny-qwen3", "tiny-qwen3", WeightsMode::Auto, 1e-4).await;
    check("tiny-qwen3.gguf", "tiny-qwen3", WeightsMode::Auto, 1e-4).await;
}

#[tokio::test]
async fn affine_at_all_widths_packed_and_dense() {
    for name in ["q2g32", "q3g64", "q4g32", "q5g32", "q6g64", "q8g64", "mixed"] {
        let name = format!("tiny-llama-mlx-{name}");
        for weights in [WeightsMode::Packed, WeightsMode::Dense] {
            check(&name, &name, weights, 1e-4).await;
        }
    }
}

#[tokio::test]
async fn half_precision_checkpoints() {
    check("tiny-llama-mlx-f16", "tiny-llama-mlx-f16", WeightsMode::Auto, 1e-4).await;
    check("tiny-llama-mlx-bf16", "tiny-llama-mlx-bf16", WeightsMode::Auto, 1e-4).await;
}

#[tokio::test]
async fn embeddings_equal_transformers() {
    let (states, _folder) = Oracle::open("states");
    for name in ["tiny-llama", "tiny-llama-tied", "tiny-qwen2", "tiny-qwen3"] {
        let (oracle, _folder) = Oracle::open(name);
        let ids = oracle.ids("prompt_long.ids");
        let states = states.numbers(&format!("{name}.states"));
        for file in [name.to_owned(), format!("{name}.gguf")] {
            let model = load_as(&fixture(&file), 1, WeightsMode::Auto).await;
            for (pooling_name, pooling) in Pooling::NAMES {
                let mut pooler = Pooler::new(pooling, states.len() / ids.len());
                pooler.push(&states);
                let got = model.embed(vec![ids.clone()], pooling).await.expect("a text").remove(0);
                let difference = worst(&got, &pooler.finish().unwrap());
                assert!(difference <= 1e-4, "{file} {pooling_name}: {difference}");
            }
            model.unload().await;
        }
    }
}
