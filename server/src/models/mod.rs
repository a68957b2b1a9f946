//! The configured models: what they are, which are loaded, and loading them once however many ask.

mod cache;
mod describe;
mod entry;
mod memory;
mod resident;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use duet_core::backend::PrefixCacheSpec;
use duet_core::registry::{EngineChoice, Registry};
use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use describe::Described;
pub(crate) use entry::{Loading, ModelEntry, Phase};
pub use memory::{Memory, MemorySource, system_memory};
pub(crate) use resident::Resident;

use cache::CacheBudget;

use crate::config::{CacheConfig, ConfigError, ModelConfig};
use crate::error::{ApiError, ErrorCode};
use crate::generate::job::unix_seconds;
use crate::metrics::Metrics;
use crate::near::{near, nearest};

/// How long an engine may take to free a model at the end.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// All configured models.
pub(crate) struct ModelTable {
    entries: Vec<Arc<ModelEntry>>,
    by_name: HashMap<String, Arc<ModelEntry>>,
    registry: Registry,
    memory: MemorySource,
    cache: CacheBudget,
    metrics: Arc<Metrics>,
    /// One load at a time, so that two of them do not count on the same memory.
    loads: Semaphore,
    stopping: CancellationToken,
    /// For the models' `created`: seconds since 1970.
    pub(crate) started_unix: u64,
}

impl ModelTable {
    /// Of these models, none of them inspected yet.
    ///
    /// # Errors
    /// A model that names an engine which this build does not know.
    pub(crate) fn new(
        models: Vec<ModelConfig>,
        cache: CacheConfig,
        registry: Registry,
        memory: MemorySource,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, ConfigError> {
        for model in &models {
            check_engine(model, &registry)?;
        }
        let entries: Vec<_> = models.into_iter().map(|model| Arc::new(ModelEntry::new(model))).collect();
        let mut by_name = HashMap::new();
        for entry in &entries {
            for name in std::iter::once(&entry.config.name).chain(&entry.config.aliases) {
                by_name.insert(name.clone(), entry.clone());
            }
        }
        let started_unix = unix_seconds();
        let (loads, stopping) = (Semaphore::new(1), CancellationToken::new());
        let cache = CacheBudget::new(cache, memory());
        Ok(Arc::new(Self {
            entries,
            by_name,
            registry,
            memory,
            cache,
            metrics,
            loads,
            stopping,
            started_unix,
        }))
    }

    pub(crate) fn entries(&self) -> &[Arc<ModelEntry>] {
        &self.entries
    }

    /// The model of this name or alias.
    ///
    /// # Errors
    /// 404 with near matches; never another model.
    pub(crate) fn find(&self, name: &str) -> Result<&Arc<ModelEntry>, ApiError> {
        self.by_name.get(name).ok_or_else(|| {
            let shown: String = name.chars().take(100).collect();
            let meant = near(name, self.by_name.keys().map(String::as_str), 3);
            let hint = match meant.as_slice() {
                [] => "`GET /v1/models` lists them".to_owned(),
                names => format!("did you mean `{}`?", names.join("` or `")),
            };
            ApiError::param(ErrorCode::ModelNotFound, "model", format!("there is no model `{shown}`; {hint}"))
        })
    }

    /// Reads the headers of all models that have not been looked at; resolves when all are known.
    pub(crate) async fn inspect_all(self: &Arc<Self>) {
        let jobs = self.entries.iter().filter(|entry| matches!(entry.phase(), Phase::Unknown)).map(|entry| {
            let (table, entry) = (self.clone(), entry.clone());
            tokio::task::spawn_blocking(move || {
                let budget_bytes = (table.memory)().budget_bytes(0);
                let result = Described::read(&entry.config, &table.registry, budget_bytes);
                log_inspection(&entry.config, &result);
                entry.inspected(result);
            })
        });
        futures_util::future::join_all(jobs.collect::<Vec<_>>()).await;
    }

    /// The model, loaded: at once if it is, else after a load that all who wait for it share.
    ///
    /// # Errors
    /// Why it cannot be loaded (the next request tries again), or 503 `model_loading` with too many waiting.
    ///
    /// # Cancel safety
    /// A caller that leaves does not disturb the load.
    pub(crate) async fn ready(self: &Arc<Self>, entry: &Arc<ModelEntry>) -> Result<Arc<Resident>, ApiError> {
        match entry.phase() {
            Phase::Ready(resident) if !resident.is_crashed() => return Ok(resident),
            _ => {}
        }
        if self.stopping.is_cancelled() {
            return Err(ApiError::shutting_down());
        }
        if let Some(loading) = entry.begin_load() {
            let (table, entry) = (self.clone(), entry.clone());
            tokio::spawn(async move {
                let began = Instant::now();
                let load = AssertUnwindSafe(table.load(&entry, &loading)).catch_unwind();
                let result = tokio::select! {
                    result = load => result.unwrap_or_else(|_| {
                        Err(ApiError::new(ErrorCode::EngineCrashed, "the engine stopped while loading"))
                    }),
                    () = table.stopping.cancelled() => Err(ApiError::shutting_down()),
                };
                if let Err(error) = &result {
                    let (name, diagnostic) = (&entry.config.name, error.diagnostic.as_deref());
                    tracing::error!(
                        model = name,
                        code = error.code.as_str(),
                        diagnostic,
                        "{}",
                        error.message
                    );
                }
                let engine = result.as_ref().ok().map(|resident| resident.described.engine);
                table.metrics.load_ended(&entry.config.name, engine, began.elapsed());
                entry.loaded(result);
            });
        }
        entry.wait().await
    }

    async fn load(
        self: &Arc<Self>,
        entry: &Arc<ModelEntry>,
        loading: &Arc<Loading>,
    ) -> Result<Resident, ApiError> {
        // What is broken is told at once, even while another model loads.
        self.describe(entry, |memory, _| memory.total_bytes).await?;
        let _alone = self.loads.acquire().await.map_err(|_| ApiError::shutting_down())?;
        let started = Instant::now();
        let described = self.describe(entry, Memory::budget_bytes).await?;
        let (registry, info) = (self.registry.clone(), described.info.clone());
        let assets = blocking(move || registry.text_assets(&info)).await??;
        let name = &entry.config.name;
        tracing::info!(
            model = name,
            engine = described.engine,
            reason = described.selection.reason,
            plan = described.plan.reason,
            "loading"
        );
        let prefix_cache = self.cache_share(entry, &described);
        let cache_bytes = prefix_cache.host_bytes;
        let spec = described.spec(&entry.config, assets.tokenizer.clone(), prefix_cache);
        let model = described.selection.backend.load(spec, progress(name, loading)).await?;
        let info = model.info();
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(
            model = name,
            engine = info.backend,
            device = info.device,
            weights = info.weights,
            seconds,
            "loaded"
        );
        let metrics = self.metrics.model(name, described.engine);
        Ok(Resident::new(entry.config.clone(), described, model, assets, metrics, cache_bytes))
    }

    /// What of the memory for prefixes a model gets that is about to be loaded.
    fn cache_share(&self, entry: &ModelEntry, described: &Described) -> PrefixCacheSpec {
        let taken = self.sum_of_residents(|resident| resident.cache_bytes);
        let may_come = |other: &ModelEntry| {
            other.config.name != entry.config.name && other.config.prefix_cache && other.resident().is_none()
        };
        let others_may_come = self.entries.iter().any(|other| may_come(other));
        let free_bytes = self.budget_bytes().saturating_sub(described.plan.need_bytes);
        self.cache.share(&entry.config, taken, others_may_come, free_bytes)
    }

    /// What a further model may take now.
    pub(crate) fn budget_bytes(&self) -> u64 {
        (self.memory)().budget_bytes(self.resident_bytes())
    }

    /// Headers as they are now: the file may be another one than at the start. `budget` gets the memory and what the
    /// loaded models were planned to take.
    async fn describe(
        self: &Arc<Self>,
        entry: &Arc<ModelEntry>,
        budget: impl FnOnce(Memory, u64) -> u64 + Send + 'static,
    ) -> Result<Described, ApiError> {
        let (table, config) = (self.clone(), entry.config.clone());
        let read = move || {
            let budget_bytes = budget((table.memory)(), table.resident_bytes());
            Described::read(&config, &table.registry, budget_bytes)
        };
        blocking(read).await?
    }

    /// What the loaded models were planned to take, their prefixes in host memory included.
    fn resident_bytes(&self) -> u64 {
        let bytes =
            |resident: &Resident| resident.described.plan.need_bytes.saturating_add(resident.cache_bytes);
        self.sum_of_residents(bytes)
    }

    fn sum_of_residents(&self, bytes: impl Fn(&Resident) -> u64) -> u64 {
        let one = |entry: &Arc<ModelEntry>| entry.resident().map_or(0, |resident| bytes(&resident));
        self.entries.iter().map(one).fold(0, u64::saturating_add)
    }

    /// Cancels loads and frees every loaded model.
    pub(crate) async fn unload_all(&self) {
        self.stopping.cancel();
        let unload = |entry: &Arc<ModelEntry>| {
            let resident = entry.take_resident();
            let name = entry.config.name.clone();
            async move {
                let Some(resident) = resident else { return };
                if tokio::time::timeout(UNLOAD_TIMEOUT, resident.model.unload()).await.is_err() {
                    tracing::warn!(model = name, "the engine did not free the model in time");
                }
            }
        };
        futures_util::future::join_all(self.entries.iter().map(unload)).await;
    }
}

fn check_engine(model: &ModelConfig, registry: &Registry) -> Result<(), ConfigError> {
    let EngineChoice::Named(id) = &model.engine else { return Ok(()) };
    let known: Vec<&str> =
        registry.backends().iter().map(|backend| backend.info().id).chain(["auto"]).collect();
    if known.contains(&id.as_str()) {
        return Ok(());
    }
    Err(ConfigError {
        origin: None,
        key: format!("models.{}.engine", model.name),
        message: format!("there is no engine `{id}`; known: {}", known.join(", ")),
        near: nearest(id, known.into_iter()).map(str::to_owned),
    })
}

fn log_inspection(config: &ModelConfig, result: &Result<Described, ApiError>) {
    let name = &config.name;
    match result {
        Ok(described) => {
            let (reason, plan) = (&described.selection.reason, &described.plan.reason);
            tracing::info!(model = name, engine = described.engine, reason, plan, "found");
        }
        Err(error) => {
            let diagnostic = error.diagnostic.as_deref();
            tracing::warn!(model = name, code = error.code.as_str(), diagnostic, "{}", error.message);
        }
    }
}

/// Keeps the listing's figure and says so in the log at each quarter.
fn progress(name: &str, loading: &Arc<Loading>) -> duet_core::backend::LoadProgress {
    let (name, loading) = (name.to_owned(), loading.clone());
    Arc::new(move |fraction| {
        let now = (fraction.clamp(0.0, 1.0) * 1000.0) as u32;
        let before = loading.progress.swap(now, Ordering::Relaxed);
        if now / 250 > before / 250 {
            tracing::info!(model = name, percent = now / 10, "loading");
        }
        true
    })
}

/// Runs something that blocks beside the async workers.
pub(crate) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(job).await.map_err(|error| {
        ApiError::new(
            ErrorCode::EngineError,
            "an internal error; the server's log says more under this request's id",
        )
        .diagnostic(error.to_string())
    })
}
