//! The fake engine with a counter, a door in front of its loads, and a behaviour per model.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use duet_core::model::ModelInfo;
use duet_core::testing::{FakeBackend, FakeConfig};
use duet_core::{BackendError, BackendInfo, InferenceBackend, LoadProgress, LoadSpec, LoadedModel, Probe};
use tokio::sync::Semaphore;

use super::watched::{Orders, Watched};

/// What tests hold on to.
#[derive(Default)]
pub(crate) struct TestBackend {
    /// By the model file's stem; others behave as by default.
    pub(crate) models: HashMap<String, FakeConfig>,
    /// Loads that have begun.
    pub(crate) n_loads: AtomicUsize,
    /// So many of the next loads fail.
    pub(crate) n_failing: AtomicUsize,
    /// A load goes on when there is a permit, if there is a door at all.
    pub(crate) door: Option<Arc<Semaphore>>,
    /// What its answers to probes are otherwise than the fake's.
    pub(crate) change_probe: Option<fn(&mut Probe)>,
    /// What loads were asked for, in their order.
    pub(crate) specs: Mutex<Vec<LoadSpec>>,
    /// What its models shall do otherwise than the fake.
    pub(crate) orders: Arc<Orders>,
}

#[async_trait]
impl InferenceBackend for TestBackend {
    fn info(&self) -> BackendInfo {
        FakeBackend::default().info()
    }

    fn probe(&self, model: &ModelInfo) -> Result<Probe, BackendError> {
        if model.architecture == "unheard-of" {
            return Err(BackendError::UnsupportedArchitecture {
                architecture: model.architecture.clone(),
                backend: "fake",
                detail: "it has no forward pass".into(),
            });
        }
        if model.architecture == "left-out" {
            return Err(BackendError::NotCompiledIn { backend: "fake", feature: "fake" });
        }
        let mut probe = FakeBackend::default().probe(model)?;
        if let Some(change) = self.change_probe {
            change(&mut probe);
        }
        Ok(probe)
    }

    async fn load(
        &self,
        spec: LoadSpec,
        progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        self.n_loads.fetch_add(1, Ordering::SeqCst);
        self.specs.lock().expect("no panic").push(spec.clone());
        if let Some(door) = &self.door {
            door.acquire().await.expect("the door is never closed for good").forget();
        }
        let stem = spec.model.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut config = self.models.get(&stem).cloned().unwrap_or_default();
        let failing = |n: usize| n.checked_sub(1);
        config.fail_load |= self.n_failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, failing).is_ok();
        let inner = FakeBackend { config }.load(spec, progress).await?;
        Ok(Arc::new(Watched { inner, orders: self.orders.clone() }))
    }
}
