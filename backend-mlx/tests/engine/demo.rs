//! The demo model, as .gguf and as MLX directory: exact weights, mlx-lm's logits, and Paris.

use std::path::PathBuf;

use duet_backend_mlx::check_exactness;
use duet_core::testing::conformance::evaluate;
use duet_core::{SeqId, WeightsMode};

use crate::common::{Oracle, fixture, load_as, with_runner};

/// A model that `make setup` fetches; without it a test says so and passes.
#[expect(clippy::print_stderr, reason = "a skip is for whoever runs the tests")]
fn demo(name: &str) -> Option<PathBuf> {
    let path = fixture("../../models").join(name);
    if !path.exists() {
        eprintln!("skipped: no {}; `make setup` makes it", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn every_weight_is_the_files() {
    let Some(path) = demo("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    for weights in [WeightsMode::Packed, WeightsMode::Dense] {
        let report = check_exactness(&path, weights).expect("compared");
        assert!(report.is_exact(), "{weights:?}: {:?}", report.differences);
        assert_eq!((report.n_tensors, report.n_values), (272, 134_515_008));
    }
    check_exactness(&fixture("tiny-llama"), WeightsMode::Auto).expect_err("nothing is converted there");
}

/// Every position's logits at 1024 ids and its 64 best, to 1e-4 of the largest; then the greedy answer.
async fn agrees_with_mlx_lm(name: &str, weights: WeightsMode, prompts: &'static [&'static str]) {
    let Some(path) = demo(name) else { return };
    let (oracle, _folder) = Oracle::open("smollm2-135m-q4_1");
    let model = load_as(&path, 1, weights).await;
    for prompt in prompts {
        let get = |entry: &str| oracle.numbers(&format!("{prompt}.{entry}"));
        let ids = oracle.ids(&format!("{prompt}.ids"));
        let first = oracle.ids(&format!("{prompt}.first_position"))[0] as usize;
        let (max_abs, top, sample) = (get("max_abs"), get("top_logits"), get("sample_logits"));
        let top_ids = oracle.ids(&format!("{prompt}.top_ids"));
        let given = ids.clone();
        let got = with_runner(model.as_ref(), move |runner| evaluate(runner, SeqId(0), 0, &given)).await;
        for (row, scale) in max_abs.iter().enumerate() {
            let logits = &got[(first + row) * 49_152..][..49_152];
            let near = |id: usize, expected: f32| (logits[id] - expected).abs() <= 1e-4 * scale;
            for at in 0..1024 {
                assert!(near(at * 48, sample[row * 1024 + at]), "{name} {prompt} {row}: id {}", at * 48);
            }
            for at in row * 64..(row + 1) * 64 {
                assert!(near(top_ids[at] as usize, top[at]), "{name} {prompt} {row}: id {}", top_ids[at]);
            }
        }
    }
    if prompts.contains(&"prompt_chat") {
        let (ids, expected) = (oracle.ids("prompt_chat.ids"), oracle.ids("prompt_chat.greedy_ids"));
        let mut request = duet_core::GenerateRequest::new("paris", ids, expected.len() as u32);
        request.sampling.temperature = 0.0;
        request.ignore_eos = true;
        let stream = model.generate(request).expect("idle");
        let answer = duet_core::testing::conformance::fold(stream).await.expect("answered");
        assert_eq!(answer.ids(), expected, "the capital of France");
    }
    model.unload().await;
}

#[tokio::test]
async fn the_gguf_file_dense() {
    let prompts = &["prompt_story", "prompt_code", "prompt_chat"];
    agrees_with_mlx_lm("SmolLM2-135M-Instruct.Q4_1.gguf", WeightsMode::Auto, prompts).await;
}

#[tokio::test]
async fn the_gguf_file_packed() {
    agrees_with_mlx_lm("SmolLM2-135M-Instruct.Q4_1.gguf", WeightsMode::Packed, &["prompt_code"]).await;
}

#[tokio::test]
async fn the_mlx_directory() {
    agrees_with_mlx_lm("SmolLM2-135M-Instruct-mlx", WeightsMode::Auto, &["prompt_story", "prompt_chat"])
        .await;
}
