//! One configured model through its life: headers, loading, loaded, failed.
//!
//! The phase is a watched value: reading it takes a lock for moments and never waits for an engine, so that listings
//! answer from memory while a model loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::config::ModelConfig;
use crate::error::{ApiError, ErrorCode};
use crate::models::describe::Described;
use crate::models::resident::Resident;

/// Where a model stands.
#[derive(Clone)]
pub(crate) enum Phase {
    /// Its headers have not been read yet.
    Unknown,
    /// Known and not loaded.
    Unloaded(Arc<Described>),
    /// Being loaded; requests wait for it.
    Loading(Arc<Loading>),
    /// Loaded.
    Ready(Arc<Resident>),
    /// The last attempt failed; the next request tries again.
    Failed(Option<Arc<Described>>, Arc<ApiError>),
}

/// A load on its way.
pub(crate) struct Loading {
    /// From before the load, for listings.
    pub(crate) described: Option<Arc<Described>>,
    /// Thousandths.
    pub(crate) progress: AtomicU32,
}

impl Phase {
    /// For the `state` field.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Phase::Unknown => "inspecting",
            Phase::Unloaded(_) => "unloaded",
            Phase::Loading(_) => "loading",
            Phase::Ready(resident) if resident.is_crashed() => "crashed",
            Phase::Ready(_) => "ready",
            Phase::Failed(..) => "failed",
        }
    }

    pub(crate) fn described(&self) -> Option<&Described> {
        match self {
            Phase::Unknown => None,
            Phase::Unloaded(described) => Some(described),
            Phase::Loading(loading) => loading.described.as_deref(),
            Phase::Ready(resident) => Some(&resident.described),
            Phase::Failed(described, _) => described.as_deref(),
        }
    }

    fn described_arc(&self) -> Option<Arc<Described>> {
        match self {
            Phase::Unknown => None,
            Phase::Unloaded(described) => Some(described.clone()),
            Phase::Loading(loading) => loading.described.clone(),
            Phase::Ready(resident) => Some(Arc::new(resident.described.clone())),
            Phase::Failed(described, _) => described.clone(),
        }
    }
}

/// A configured model.
pub(crate) struct ModelEntry {
    pub(crate) config: Arc<ModelConfig>,
    phase: watch::Sender<Phase>,
    n_waiting: AtomicUsize,
}

impl ModelEntry {
    pub(super) fn new(config: ModelConfig) -> Self {
        Self {
            config: Arc::new(config),
            phase: watch::Sender::new(Phase::Unknown),
            n_waiting: AtomicUsize::new(0),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// The loaded model, if its engine still answers.
    pub(super) fn resident(&self) -> Option<Arc<Resident>> {
        match self.phase() {
            Phase::Ready(resident) if !resident.is_crashed() => Some(resident),
            _ => None,
        }
    }

    /// The headers were read, unless a load has overtaken that.
    pub(super) fn inspected(&self, result: Result<Described, ApiError>) {
        self.phase.send_if_modified(|phase| {
            if !matches!(phase, Phase::Unknown) {
                return false;
            }
            *phase = match result {
                Ok(described) => Phase::Unloaded(Arc::new(described)),
                Err(error) => Phase::Failed(None, Arc::new(error)),
            };
            true
        });
    }

    /// Goes over to loading if nobody else has; the winner has to call [`ModelEntry::loaded`] in the end.
    pub(super) fn begin_load(&self) -> Option<Arc<Loading>> {
        let mut begun = None;
        self.phase.send_if_modified(|phase| {
            let to_do = match phase {
                Phase::Loading(_) => false,
                Phase::Ready(resident) => resident.is_crashed(),
                Phase::Unknown | Phase::Unloaded(_) | Phase::Failed(..) => true,
            };
            if to_do {
                let loading =
                    Arc::new(Loading { described: phase.described_arc(), progress: AtomicU32::new(0) });
                begun = Some(loading.clone());
                *phase = Phase::Loading(loading);
            }
            to_do
        });
        begun
    }

    /// Ends a load.
    pub(super) fn loaded(&self, result: Result<Resident, ApiError>) {
        self.phase.send_modify(|phase| {
            let described = phase.described_arc();
            *phase = match result {
                Ok(resident) => Phase::Ready(Arc::new(resident)),
                Err(error) => Phase::Failed(described, Arc::new(error)),
            };
        });
    }

    /// Takes a loaded model out.
    pub(super) fn take_resident(&self) -> Option<Arc<Resident>> {
        let mut taken = None;
        self.phase.send_if_modified(|phase| match phase {
            Phase::Ready(resident) => {
                taken = Some(resident.clone());
                *phase = Phase::Unloaded(Arc::new(resident.described.clone()));
                true
            }
            _ => false,
        });
        taken
    }

    /// Waits for the end of the load that is under way.
    ///
    /// # Errors
    /// The load's error; 503 `model_loading` if as many requests wait already as the model's queue holds.
    pub(super) async fn wait(&self) -> Result<Arc<Resident>, ApiError> {
        let _place = Waiting::enter(&self.n_waiting, &self.config)?;
        let mut phases = self.phase.subscribe();
        let ended = phases
            .wait_for(|phase| matches!(phase, Phase::Ready(_) | Phase::Failed(..) | Phase::Unloaded(_)))
            .await;
        match ended.as_deref() {
            Ok(Phase::Ready(resident)) => Ok(resident.clone()),
            Ok(Phase::Failed(_, error)) => Err(error.as_ref().clone()),
            // Unloaded again at once, or the table is gone: the process is ending.
            _ => Err(ApiError::shutting_down()),
        }
    }
}

/// A place among the requests that wait for a load.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(n_waiting: &'a AtomicUsize, config: &ModelConfig) -> Result<Self, ApiError> {
        let most = config.max_queue;
        match n_waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < most).then_some(n + 1)) {
            Ok(_) => Ok(Self(n_waiting)),
            Err(n) => {
                let message =
                    format!("model `{}` is loading, and {n} requests wait for it already", config.name);
                Err(ApiError::new(ErrorCode::ModelLoading, message))
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
