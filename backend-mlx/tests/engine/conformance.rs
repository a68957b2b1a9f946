//! Core's conformance suite, on both formats.

use std::path::PathBuf;

use duet_core::WeightsMode;
use duet_core::model::KvType;
use duet_core::testing::conformance::{Tolerance, suite};
use duet_core::testing::{restart, storm};

use crate::common::{fixture, load, spec};

async fn conforms(path: PathBuf, weights: WeightsMode) {
    suite(Tolerance(1e-4), |parallel, max_queue| {
        let mut spec = spec(&path, parallel);
        spec.max_queue = max_queue;
        spec.weights = weights;
        async { load(spec).await.expect("the model loads") }
    })
    .await;
}

#[tokio::test]
async fn an_mlx_directory_conforms() {
    conforms(fixture("tiny-llama"), WeightsMode::Auto).await;
}

#[tokio::test]
async fn a_packed_mlx_directory_conforms() {
    conforms(fixture("tiny-llama-mlx-mixed"), WeightsMode::Packed).await;
}

#[tokio::test]
async fn a_gguf_file_conforms() {
    conforms(fixture("tiny-qwen3.gguf"), WeightsMode::Auto).await;
}

/// Random events with too few cells for all, kept prefixes and a host tier; one step in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weathers_a_storm() {
    let mut spec = spec(&fixture("tiny-llama"), 3);
    (spec.max_queue, spec.kv_tokens) = (8, 400);
    spec.prefix_cache.host_bytes = 1 << 20;
    let model = load(spec).await.expect("the model loads");
    let weathered = storm(model.as_ref(), 7, 500).await;
    assert!(weathered.n_ended > 30 && model.load().n_prefix_hits > 0, "{weathered:?} {:?}", model.load());
}

/// What the disk tier gives back after a restart is all that was evaluated, and greedy answers go on as if nothing had been.
#[tokio::test]
async fn a_conversation_survives_a_restart() {
    for (path, kv_type) in
        [("tiny-llama", KvType::F32), ("tiny-qwen3", KvType::F16), ("tiny-qwen3.gguf", KvType::F32)]
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let restarted = restart(folder.path(), 1e-3, |prefix_cache| {
            let mut spec = spec(&fixture(path), 2);
            (spec.prefix_cache, spec.kv_type) = (prefix_cache, Some(kv_type));
            async { load(spec).await.expect("the model loads") }
        })
        .await;
        // The last token of an answer is never evaluated.
        assert_eq!((restarted.n_prompt, restarted.n_cached), (128, 111), "{path}");
    }
}
