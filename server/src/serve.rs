//! A server from its settings to its end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use duet_core::registry::Registry;
use tokio::net::TcpListener;

use crate::app::{App, router};
use crate::config::{ConfigError, ServerConfig};
use crate::drain::Drain;
use crate::error::ApiError;
use crate::listen::{Tls, listen};
use crate::metrics::Metrics;
use crate::models::{MemorySource, ModelTable, Phase, system_memory};
use crate::replay::Replay;
use crate::wire::responses::store::{Bounds, ResponseStore};

/// For connections to be closed after their requests have been cut.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Anybody who reaches the port could use the models.
const BEYOND_LOOPBACK: &str = "listening beyond this machine needs API keys: name a file of them in server.api_keys_file, \
                               or put them into DUET_API_KEYS";

/// A server before and while it listens. Cloning it gives another handle to the same one.
#[derive(Clone)]
pub struct Server(Arc<App>);

/// What is known of a model, for people.
#[derive(Debug, Clone)]
pub struct ModelSummary {
    /// As configured.
    pub name: String,
    /// As in `GET /v1/models`.
    pub state: &'static str,
    /// The engine's id, once the headers are read.
    pub engine: Option<&'static str>,
    /// Why this engine.
    pub engine_reason: Option<String>,
    /// How most weights are stored.
    pub quantization: Option<String>,
    /// The sizes it is or would be loaded with, and why.
    pub plan: Option<String>,
    /// Why it cannot be used.
    pub error: Option<ApiError>,
}

impl Server {
    /// Of these settings and engines. Nothing is read yet.
    ///
    /// # Errors
    /// A model that names an engine which this build does not know.
    pub fn new(config: ServerConfig, registry: Registry) -> Result<Self, ConfigError> {
        Self::with_memory(config, registry, Arc::new(system_memory))
    }

    /// As [`Server::new`], with another idea of the machine's memory.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn with_memory(
        config: ServerConfig,
        registry: Registry,
        memory: MemorySource,
    ) -> Result<Self, ConfigError> {
        let metrics = Arc::new(Metrics::new());
        let drain = Drain::new(config.http.max_requests);
        let models = ModelTable::new(config.models, config.cache, registry, memory, metrics.clone())?;
        let responses = Arc::new(ResponseStore::new(Bounds::USUAL));
        let replay = config.replay.map(|script| {
            tracing::warn!("answers come from a replay script, not from the models");
            Arc::new(Replay::new(script))
        });
        Ok(Self(Arc::new(App { http: config.http, models, drain, metrics, responses, replay })))
    }

    /// Reads the headers of all models. [`Server::serve`] does it by itself, beside its first requests.
    pub async fn inspect(&self) {
        self.0.models.inspect_all().await;
    }

    /// What is known of the models now, in order of name.
    pub fn models(&self) -> Vec<ModelSummary> {
        let summary = |entry: &Arc<crate::models::ModelEntry>| {
            let phase = entry.phase();
            let described = phase.described();
            ModelSummary {
                name: entry.config.name.clone(),
                state: phase.name(),
                engine: described.map(|described| described.engine),
                engine_reason: described.map(|described| described.selection.reason.clone()),
                quantization: described.map(|described| described.info.quantization.clone()),
                plan: described.map(|described| described.plan.reason.clone()),
                error: match &phase {
                    Phase::Failed(_, error) => Some(error.as_ref().clone()),
                    _ => None,
                },
            }
        };
        self.0.models.entries().iter().map(summary).collect()
    }

    /// Loads a model now instead of on its first request.
    ///
    /// # Errors
    /// 404 for an unknown name; why it cannot be loaded, with the chain of causes in `diagnostic`.
    pub async fn load(&self, name: &str) -> Result<(), ApiError> {
        let entry = self.0.models.find(name)?.clone();
        self.0.models.ready(&entry).await.map(drop)
    }

    /// The routes, to be called without a socket. The guards behave as on loopback.
    pub fn router(&self) -> Router {
        router(self.0.clone(), None)
    }

    /// Answers requests until `shutdown` resolves; then refuses new ones with 503 `shutting_down`, lets running ones end
    /// for `server.shutdown_timeout_s`, cuts the rest with an error event, frees all models and returns.
    ///
    /// # Errors
    /// A listener that is not on loopback while there are no API keys (`InvalidInput`), a certificate that cannot be
    /// used, or what the listener says.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let bound = listener.local_addr()?;
        if !bound.ip().is_loopback() && self.0.http.security.keys.is_none() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, BEYOND_LOOPBACK));
        }
        let security = &self.0.http.security;
        let tls = security.tls.clone().map(Tls::load).transpose()?;
        let models = self.0.models.clone();
        let inspection = tokio::spawn(async move { models.inspect_all().await });
        let drain = self.0.drain.clone();
        let timeout = self.0.http.shutdown_timeout;
        let stop = {
            let drain = drain.clone();
            async move {
                shutdown.await;
                tracing::info!(n_active = drain.n_active(), "stopping");
                drain.stop();
                if !drain.idle(timeout).await {
                    tracing::warn!(n_active = drain.n_active(), "cutting requests that did not end in time");
                }
                drain.cut();
                drain.idle(LAST_WORDS).await;
            }
        };
        let server = listen(listener, router(self.0.clone(), Some(bound)), security, tls, stop);
        let stuck = async {
            drain.cut_begun().await;
            tokio::time::sleep(LAST_WORDS * 2).await;
        };
        tokio::select! {
            () = server => {}
            // Clients that do not read their last words are left behind.
            () = stuck => {}
        }
        inspection.abort();
        self.0.models.unload_all().await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// A server in one call: see [`Server::serve`].
///
/// # Errors
/// A setting that does not fit this build (as `InvalidInput`), or what the listener says.
pub async fn serve(
    config: ServerConfig,
    registry: Registry,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let server = Server::new(config, registry)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
    server.serve(listener, shutdown).await
}
