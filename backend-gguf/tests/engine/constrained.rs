//! Constrained output of the demo model at temperature 1: what ends is valid by another crate's judgement.

use std::sync::Arc;

use duet_backend_gguf::GgufSettings;
use duet_core::LoadedModel;
use duet_core::testing::bounded_schemas;
use duet_core::testing::requests::answer_schemas;
use serde_json::Value;

use crate::common;

/// The model that `make setup` fetches; without it a test says so and passes.
#[expect(clippy::print_stderr, reason = "a skip is for whoever runs the tests")]
async fn demo() -> Option<Arc<dyn LoadedModel>> {
    let name = "../../models/SmolLM2-135M-Instruct.Q4_1.gguf";
    if !common::fixture(name).exists() {
        eprintln!("skipped: no {name}; `make setup` makes it");
        return None;
    }
    let mut spec = common::spec(name);
    (spec.parallel, spec.context_length, spec.kv_tokens) = (4, 512, 2048);
    Some(common::load_with(GgufSettings::default(), spec).await.expect("the demo model loads"))
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
