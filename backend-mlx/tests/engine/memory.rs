//! What a plan of memory may count on.

use duet_backend_mlx::MlxBackend;
use duet_core::testing::conformance::evaluate;
use duet_core::{InferenceBackend, SeqId};

use crate::common::{fixture, load, spec, with_runner};

#[tokio::test]
async fn the_cache_grows_to_what_the_probe_lets_one_plan() {
    let mut spec = spec(&fixture("tiny-llama"), 3);
    (spec.context_length, spec.kv_tokens, spec.kv_type) = (600, 1800, None);
    let probe = MlxBackend::new().expect("MLX starts").probe(&spec.model).expect("it takes the fixture");
    let allocation = probe.kv_allocation.for_load(None);
    let planned = allocation.bytes(&spec.model, 1800, 3, probe.kv_type).expect("plain attention");
    let model = load(spec).await.expect("it loads");
    assert_eq!(model.info().kv_type, probe.kv_type.to_string());
    let held = with_runner(model.as_ref(), |runner| {
        let tokens: Vec<u32> = (0..600).map(|index| 10 + index % 250).collect();
        (0..3)
            .map(|seq| {
                for (index, part) in tokens.chunks(100).enumerate() {
                    evaluate(runner, SeqId(seq), 100 * index as u32, part);
                }
                runner.memory().kv_bytes.expect("counted")
            })
            .collect::<Vec<_>>()
    })
    .await;
    assert_eq!(held, [planned / 3, planned / 3 * 2, planned], "a third for each");
    model.unload().await;
}
