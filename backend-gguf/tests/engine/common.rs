//! What the tests share: fixtures, loading, single steps.

use std::path::PathBuf;
use std::sync::Arc;

use duet_backend_gguf::{GgufBackend, GgufSettings, load_tokenizer};
use duet_core::model::inspect;
use duet_core::{
    BackendError, InferenceBackend, LoadSpec, LoadedModel, ModelRunner, PlanRow, RowTokens, SeqId, StepPlan,
    Want,
};

/// A fixture's path.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A spec for a fixture: two threads, so that tests of several models at once stay quick.
pub(crate) fn spec(name: &str) -> LoadSpec {
    let path = fixture(name);
    let model = inspect(&path).expect("a fixture has good headers");
    let mut spec = LoadSpec::new(Arc::new(model), load_tokenizer(&path).expect("and a vocabulary"));
    spec.threads = Some(2);
    spec
}

/// Loads a spec with these settings.
pub(crate) async fn load_with(
    settings: GgufSettings,
    spec: LoadSpec,
) -> Result<Arc<dyn LoadedModel>, BackendError> {
    GgufBackend::new(settings).load(spec, Arc::new(|_| true)).await
}

/// Runs a job with the runner of a model, and passes its panic on.
pub(crate) async fn on_runner(
    model: &dyn LoadedModel,
    job: impl FnOnce(&mut dyn ModelRunner) + Send + 'static,
) {
    let (done, result) = tokio::sync::oneshot::channel();
    model
        .run_exclusive(Box::new(move |runner| {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(runner)));
            let _ = done.send(result);
        }))
        .await
        .expect("the job runs");
    if let Err(panic) = result.await.expect("the job answers") {
        std::panic::resume_unwind(panic);
    }
}

/// Loads a spec, runs a job with its runner, unloads it.
pub(crate) async fn with_runner(
    settings: GgufSettings,
    spec: LoadSpec,
    job: impl FnOnce(&mut dyn ModelRunner) + Send + 'static,
) {
    let model = load_with(settings, spec).await.expect("the model loads");
    on_runner(model.as_ref(), job).await;
    model.unload().await;
}

/// One row of one sequence.
pub(crate) fn row(seq: u32, position: u32, tokens: &[u32], want: Want) -> PlanRow<'_> {
    PlanRow { seq: SeqId(seq), position, tokens: RowTokens::Host(tokens), want }
}

/// Submits rows and gives all logits of the step.
pub(crate) fn step(runner: &mut dyn ModelRunner, rows: &[PlanRow<'_>]) -> Result<Vec<f32>, BackendError> {
    runner.submit(StepPlan { rows })?;
    Ok(runner.collect()?.logits.to_vec())
}

/// `n` token ids of the small fixtures' vocabulary, the same for the same seed.
pub(crate) fn ids(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32)
        .map(|index| 10 + (seed.wrapping_mul(97) + index.wrapping_mul(31) + index * index) % 250)
        .collect()
}
