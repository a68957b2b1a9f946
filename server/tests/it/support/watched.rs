//! A loaded model that notes what it is asked for and can be told what to say.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use duet_core::GenerationStream;
use duet_core::backend::{EngineLoad, Health, LoadedInfo, LoadedModel, RunnerJob};
use duet_core::runner::{Capabilities, MemoryReport};
use duet_core::text::{TokenId, Tokenizer};
use duet_core::{BackendError, Constraint, ConstraintError, ConstraintSpec, GenerateRequest, Pooling};

/// Between a test and the models.
#[derive(Default)]
pub(crate) struct Orders {
    /// Requests that have come, refused ones too.
    pub(crate) requests: Mutex<Vec<GenerateRequest>>,
    /// Refuse with this time to wait.
    pub(crate) overloaded: Mutex<Option<Duration>>,
    /// Counters to show instead of the engine's own.
    pub(crate) load: Mutex<Option<EngineLoad>>,
}

pub(super) struct Watched {
    pub(super) inner: Arc<dyn LoadedModel>,
    pub(super) orders: Arc<Orders>,
}

#[async_trait]
impl LoadedModel for Watched {
    fn info(&self) -> &LoadedInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        self.inner.tokenizer()
    }

    fn constraint(&self, spec: ConstraintSpec) -> Result<Constraint, ConstraintError> {
        self.inner.constraint(spec)
    }

    fn generate(&self, request: GenerateRequest) -> Result<GenerationStream, BackendError> {
        self.orders.requests.lock().expect("no panic").push(request.clone());
        match *self.orders.overloaded.lock().expect("no panic") {
            Some(retry_after) => Err(BackendError::Overloaded { queue_length: 7, retry_after }),
            None => self.inner.generate(request),
        }
    }

    async fn embed(&self, texts: Vec<Vec<TokenId>>, pooling: Pooling) -> Result<Vec<Vec<f32>>, BackendError> {
        self.inner.embed(texts, pooling).await
    }

    async fn rank(&self, pairs: Vec<Vec<TokenId>>) -> Result<Vec<f32>, BackendError> {
        self.inner.rank(pairs).await
    }

    async fn run_exclusive(&self, job: RunnerJob) -> Result<(), BackendError> {
        self.inner.run_exclusive(job).await
    }

    fn load(&self) -> EngineLoad {
        self.orders.load.lock().expect("no panic").unwrap_or_else(|| self.inner.load())
    }

    fn memory(&self) -> MemoryReport {
        self.inner.memory()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    async fn unload(&self) {
        self.inner.unload().await;
    }
}
