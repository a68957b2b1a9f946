//! Constrained output of the demo model at temperature 1: what ends is valid by another crate's judgement.

use std::sync::Arc;

use duet_backend_mlx::MlxBackend;
use duet_core::model::inspect;
use duet_core::testing::bounded_schemas;
use duet_core::testing::requests::answer_schemas;
use duet_core::text::HfTokenizer;
use duet_core::{InferenceBackend, LoadSpec, LoadedModel};
use serde_json::Value;

use crate::common::fixture;

/// The model that `make setup` makes; without it a test says so and passes.
#[expect(clippy::print_stderr, reason = "a skip is for whoever runs the tests")]
async fn demo() -> Option<Arc<dyn LoadedModel>> {
    let path = fixture("../../models/SmolLM2-135M-Instruct-mlx");
    if !path.exists() {
        eprintln!("skipped: no {}; `make setup` makes it", path.display());
        return None;
    }
    let tokenizer = HfTokenizer::from_model_dir(&path).expect("a tokenizer");
    let mut spec = LoadSpec::new(Arc::new(inspect(&path).expect("good headers")), Arc::new(tokenizer));
    (spec.parallel, spec.context_length, spec.kv_tokens) = (4, 512, 2048);
    let backend = MlxBackend::new().expect("MLX starts");
    Some(backend.load(spec, Arc::new(|_| true)).await.expect("the demo model loads"))
}

#[track_caller]
fn check_valid(schema: &Value, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}\n{schema}"));
    let validator = jsonschema::options().should_validate_formats(true).build(schema).expect("a good schema");
    let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}: {text}\n{schema}");
}

async fn mostly_whole(schemas: &[Value]) {
    let Some(model) = demo().await else { return };
    let ended = answer_schemas(model.as_ref(), schemas, 400, check_valid).await;
    assert!(ended.n_whole * 100 >= schemas.len() * 95, "{ended:?}");
    model.unload().await;
}

#[tokio::test]
async fn some_schemas() {
    mostly_whole(&bounded_schemas(12)).await;
}

#[tokio::test]
#[ignore = "200 whole texts, a minute on two cores; `make verify` runs it, `some_schemas` is its sample"]
async fn two_hundred_schemas() {
    mostly_whole(&bounded_schemas(200)).await;
}
