//! Logits against transformers, on the tiny random checkpoints, with f32 weights and f32 KV.

use duet_backend_gguf::GgufSettings;
use duet_core::model::KvType;
use duet_core::{Pooler, Pooling, SeqId, Want};
use safetensors::SafeTensors;

use crate::common::{self, row, step};

/// A file of reference values.
pub(crate) struct Oracle(Vec<u8>);

impl Oracle {
    pub(crate) fn read(name: &str) -> Self {
        Self(std::fs::read(common::fixture(&format!("oracle/{name}.safetensors"))).expect("an oracle file"))
    }

    fn words(&self, name: &str) -> Vec<[u8; 4]> {
        let file = SafeTensors::deserialize(&self.0).expect("an oracle file");
        let tensor = file.tensor(name).expect("its tensor");
        tensor.data().chunks_exact(4).map(|word| word.try_into().expect("four bytes")).collect()
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name).into_iter().map(f32::from_le_bytes).collect()
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        self.words(name).into_iter().map(u32::from_le_bytes).collect()
    }
}

/// Every logit of both prompts, the whole at once and in chunks, within `tolerance` of the largest.
async fn agrees(name: &'static str, kv_type: KvType, tolerance: f32) {
    let mut spec = common::spec(&format!("{name}.gguf"));
    spec.kv_type = Some(kv_type);
    common::with_runner(GgufSettings::default(), spec, move |runner| {
        let oracle = Oracle::read(name);
        for prompt in ["prompt_short", "prompt_long"] {
            let ids = oracle.ids(&format!("{prompt}.ids"));
            let expected = oracle.floats(&format!("{prompt}.logits"));
            for chunk in [ids.len(), 7] {
                let mut logits = Vec::new();
                for (index, part) in ids.chunks(chunk).enumerate() {
                    let position = (index * chunk) as u32;
                    logits.extend(step(runner, &[row(0, position, part, Want::AllLogits)]).expect("a step"));
                }
                runner.release(SeqId(0));
                let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
                assert_eq!(logits.len(), expected.len());
                let worst = logits.iter().zip(&expected).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
                assert!(
                    worst <= tolerance * scale,
                    "{name} {prompt} in chunks of {chunk}: {worst} of {scale}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn f32_equals_transformers() {
    for name in ["tiny-llama", "tiny-llama-tied", "tiny-qwen2", "tiny-qwen3"] {
        agrees(name, KvType::F32, 1e-3).await;
    }
}

#[tokio::test]
async fn f16_caches_are_near() {
    for name in ["tiny-llama", "tiny-llama-tied", "tiny-qwen2", "tiny-qwen3"] {
        agrees(name, KvType::F16, 1e-2).await;
    }
}

#[tokio::test]
async fn greedy_follows_the_oracle_where_it_is_decided() {
    for name in ["tiny-llama", "tiny-qwen2", "tiny-qwen3"] {
        let mut spec = common::spec(&format!("{name}.gguf"));
        spec.kv_type = Some(KvType::F32);
        common::with_runner(GgufSettings::default(), spec, move |runner| {
            let oracle = Oracle::read(name);
            let mut input = oracle.ids("prompt_short.ids");
            let margins = oracle.floats("prompt_short.greedy_margin");
            let mut position = 0;
            let mut n_checked = 0;
            for (expected, margin) in oracle.ids("prompt_short.greedy_ids").into_iter().zip(margins) {
                let logits = step(runner, &[row(0, position, &input, Want::LastLogits)]).expect("a step");
                position += input.len() as u32;
                if margin > 1e-2 {
                    assert_eq!(duet_backend_gguf::measure::argmax(&logits), expected, "{name} at {position}");
                    n_checked += 1;
                }
                input = vec![expected];
            }
            assert!(n_checked > 16, "{name}: only {n_checked} of the steps are decided");
        })
        .await;
    }
}

#[tokio::test]
async fn embeddings_equal_transformers() {
    let states = Oracle::read("states");
    for name in ["tiny-llama", "tiny-llama-tied", "tiny-qwen2", "tiny-qwen3"] {
        let mut spec = common::spec(&format!("{name}.gguf"));
        spec.kv_type = Some(KvType::F32);
        let model = common::load_with(GgufSettings::default(), spec).await.expect("the model loads");
        let ids = Oracle::read(name).ids("prompt_long.ids");
        let states = states.floats(&format!("{name}.states"));
        for (pooling_name, pooling) in Pooling::NAMES {
            let mut pooler = Pooler::new(pooling, states.len() / ids.len());
            pooler.push(&states);
            let expected = pooler.finish().unwrap();
            let got = model.embed(vec![ids.clone()], pooling).await.expect("a text").remove(0);
            let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
            let worst = got.iter().zip(&expected).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
            assert_eq!(got.len(), expected.len());
            assert!(worst <= 1e-3 * scale, "{name} {pooling_name}: {worst} of {scale}");
        }
        model.unload().await;
    }
}
