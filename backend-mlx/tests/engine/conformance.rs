//! Core's conformance suite, on both formats.

use std::path::PathBuf;

use duet_core::WeightsMode;
use duet_core::testing::conformance::{Tolerance, suite};

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
