//! What every engine has to do.

use duet_backend_gguf::GgufSettings;
use duet_core::model::KvType;
use duet_core::testing::conformance::{Tolerance, suite};
use duet_core::testing::{restart, storm};

use crate::common;

async fn conforms(fixture: &'static str, kv_unified: bool) {
    suite(Tolerance(1e-3), |parallel, max_queue| async move {
        let mut spec = common::spec(fixture);
        spec.parallel = parallel;
        spec.max_queue = max_queue;
        spec.context_length = 256;
        spec.kv_tokens = 1024;
        spec.kv_type = Some(KvType::F32);
        spec.kv_unified = Some(kv_unified);
        common::load_with(GgufSettings::default(), spec).await.expect("the fixture loads")
    })
    .await;
}

#[tokio::test]
async fn llama_unified() {
    conforms("tiny-llama.gguf", true).await;
}

#[tokio::test]
async fn llama_split() {
    conforms("tiny-llama.gguf", false).await;
}

#[tokio::test]
async fn qwen3_unified() {
    conforms("tiny-qwen3.gguf", true).await;
}

/// Random events with too few cells for all, kept prefixes and a host tier.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weathers_a_storm() {
    for kv_unified in [true, false] {
        let mut spec = common::spec("tiny-llama.gguf");
        (spec.parallel, spec.max_queue, spec.context_length) = (3, 8, 256);
        spec.kv_tokens = if kv_unified { 512 } else { 768 };
        spec.kv_unified = Some(kv_unified);
        spec.prefix_cache.host_bytes = 1 << 20;
        let model = common::load_with(GgufSettings::default(), spec).await.expect("the fixture loads");
        let weathered = storm(model.as_ref(), 7, 500).await;
        assert!(weathered.n_ended > 30, "{weathered:?}");
        assert!(model.load().n_prefix_hits > 0 || !kv_unified);
    }
}

/// What the disk tier gives back after a restart is all that was evaluated, and greedy answers go on as if nothing had been.
#[tokio::test]
async fn a_conversation_survives_a_restart() {
    for (fixture, kv_unified) in [("tiny-llama.gguf", true), ("tiny-qwen3.gguf", false)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let restarted = restart(folder.path(), 1e-3, |prefix_cache| {
            let mut spec = common::spec(fixture);
            (spec.parallel, spec.context_length, spec.kv_tokens) = (2, 256, 512);
            (spec.kv_type, spec.kv_unified) = (Some(KvType::F32), Some(kv_unified));
            spec.prefix_cache = prefix_cache;
            async { common::load_with(GgufSettings::default(), spec).await.expect("the fixture loads") }
        })
        .await;
        // The last token of an answer is never evaluated.
        assert_eq!((restarted.n_prompt, restarted.n_cached), (128, 111), "{fixture}");
    }
}
