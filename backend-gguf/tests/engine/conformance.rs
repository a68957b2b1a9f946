//! What every engine has to do.

use duet_backend_gguf::GgufSettings;
use duet_core::model::KvType;
use duet_core::testing::conformance::{Tolerance, suite};

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
