//! A job on an engine's thread, and its result.

use std::sync::Arc;

use duet_core::{BackendError, LoadedModel, ModelRunner};
use tokio::sync::oneshot;

/// Runs `job` with the runner to itself and gives what it returned.
///
/// # Errors
/// Those of [`LoadedModel::run_exclusive`]; `EngineCrashed` if the job panicked.
pub(crate) async fn exclusive<T: Send + 'static>(
    model: &Arc<dyn LoadedModel>,
    job: impl FnOnce(&mut dyn ModelRunner) -> T + Send + 'static,
) -> Result<T, BackendError> {
    let (give, result) = oneshot::channel();
    let job = Box::new(move |runner: &mut dyn ModelRunner| {
        let _ = give.send(job(runner)); // a caller that left wants nothing
    });
    model.run_exclusive(job).await?;
    result.await.map_err(|_| BackendError::EngineCrashed { detail: "its job gave no answer".into() })
}
