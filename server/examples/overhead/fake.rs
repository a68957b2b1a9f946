//! The fake engine behind a server, with its model at hand.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use duet_core::model::ModelInfo;
use duet_core::testing::{ByteTokenizer, FakeBackend, FakeConfig, FakeGate, Reply};
use duet_core::text::ChatTemplate;
use duet_core::{
    BackendError, BackendInfo, InferenceBackend, LoadProgress, LoadSpec, LoadedModel, Probe, Registry,
    TextAssets,
};
use duet_server::{RawConfig, RawModel, Server, ServerConfig};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::gguf;

/// Sequences of a model.
pub(crate) const PARALLEL: u32 = 8;
const CONTEXT: u32 = 2048;

/// The fake engine, but loads of "slow" never end and keep every core busy until told to stop.
pub(crate) struct Backend {
    fake: FakeBackend,
    pub(crate) stop_spinning: AtomicBool,
    loaded: Mutex<Option<Arc<dyn LoadedModel>>>,
}

/// A server with its files.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) backend: Arc<Backend>,
    pub(crate) gate: Arc<FakeGate>,
    _dir: TempDir,
}

impl World {
    /// With so many models: "slow", "model-1", "model-2", …; no step passes the gate before it is opened.
    pub(crate) async fn new(n_models: usize) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let gate = FakeGate::closed();
        let config = FakeConfig {
            reply: Reply::Tokens(vec![97; CONTEXT as usize]),
            device_sampling: true,
            gate: Some(gate.clone()),
            ..FakeConfig::default()
        };
        let backend = Arc::new(Backend {
            fake: FakeBackend { config },
            stop_spinning: AtomicBool::new(false),
            loaded: Mutex::new(None),
        });
        let config = ServerConfig::from_raw(&settings(dir.path(), n_models)).expect("valid");
        let server = Server::new(config, registry(backend.clone())).expect("known engines");
        server.inspect().await;
        Self { server, backend, gate, _dir: dir }
    }

    async fn get(&self, path: &str) -> String {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = self.server.router().oneshot(request).await.expect("infallible");
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8(body.to_vec()).expect("UTF-8")
    }

    /// Requests that the server has let in.
    pub(crate) async fn n_active(&self) -> usize {
        let health: serde_json::Value = serde_json::from_str(&self.get("/health").await).expect("JSON");
        health["n_active_requests"].as_u64().expect("a count") as usize
    }

    /// What the server took itself until the engine had its requests: seconds, and how many they were.
    pub(crate) async fn own_time(&self) -> (f64, f64) {
        let metrics = self.get("/metrics").await;
        let value = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(name)).expect("a series");
            line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")
        };
        (value("duet_request_overhead_seconds_sum"), value("duet_request_overhead_seconds_count"))
    }

    /// The model that was loaded last.
    pub(crate) async fn model(&self) -> Arc<dyn LoadedModel> {
        self.server.load("model-1").await.expect("it loads");
        self.backend.loaded.lock().expect("no panic").clone().expect("just loaded")
    }
}

fn settings(dir: &Path, n_models: usize) -> RawConfig {
    let mut raw = RawConfig::default();
    raw.server.max_queue = Some(100_000); // a machine that stands still for a moment is not what is measured
    raw.server.max_requests = Some(100_000);
    let header = gguf::Header { context_length: CONTEXT, ..gguf::Header::default() };
    for index in 0..n_models {
        let name = if index == 0 { "slow".to_owned() } else { format!("model-{index}") };
        let path = dir.join(format!("{name}.gguf"));
        std::fs::write(&path, header.bytes()).expect("a file");
        let model = RawModel { path: Some(path.into()), parallel: Some(PARALLEL), ..RawModel::default() };
        raw.models.insert(name, model);
    }
    raw
}

fn registry(backend: Arc<Backend>) -> Registry {
    let text = Arc::new(|_: &ModelInfo| {
        let template = ChatTemplate::new("{{ messages[0].content }}", "", "").map(Arc::new);
        Ok(TextAssets {
            tokenizer: Arc::new(ByteTokenizer::default()),
            template: template.map_err(|error| error.to_string()),
        })
    });
    Registry::new(vec![backend], text)
}

#[async_trait]
impl InferenceBackend for Backend {
    fn info(&self) -> BackendInfo {
        self.fake.info()
    }

    fn probe(&self, model: &ModelInfo) -> Result<Probe, BackendError> {
        self.fake.probe(model)
    }

    async fn load(
        &self,
        spec: LoadSpec,
        progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        if spec.model.path.ends_with("slow.gguf") {
            std::thread::scope(|scope| {
                for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                    scope.spawn(|| {
                        while !self.stop_spinning.load(Ordering::Relaxed) {
                            std::hint::spin_loop();
                        }
                    });
                }
            });
        }
        let model = self.fake.load(spec, progress).await?;
        *self.loaded.lock().expect("no panic") = Some(model.clone());
        Ok(model)
    }
}
