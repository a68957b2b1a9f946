//! A model that is loaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duet_core::backend::{Health, LoadedModel};
use duet_core::registry::TextAssets;
use sha2::{Digest, Sha256};

use crate::config::ModelConfig;
use crate::models::describe::Described;

/// A loaded model with everything that its requests need.
pub(crate) struct Resident {
    pub(crate) config: Arc<ModelConfig>,
    pub(crate) described: Described,
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) assets: TextAssets,
    /// `system_fingerprint`: engine version, file and settings in one word.
    pub(crate) fingerprint: String,
    /// Moving mean of how long a request holds its sequence, in microseconds; 0: none has ended yet.
    mean_request_us: AtomicU64,
}

impl Resident {
    pub(super) fn new(
        config: Arc<ModelConfig>,
        described: Described,
        model: Arc<dyn LoadedModel>,
        assets: TextAssets,
    ) -> Self {
        let fingerprint = fingerprint(&config, &described, model.as_ref());
        Self { config, described, model, assets, fingerprint, mean_request_us: AtomicU64::new(0) }
    }

    pub(crate) fn is_crashed(&self) -> bool {
        self.model.health() == Health::Crashed
    }

    /// A request has ended that held its sequence for so long.
    pub(crate) fn note_request(&self, duration: Duration) {
        let sample = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
        let mean = self.mean_request_us.load(Ordering::Relaxed);
        // A lost update between two threads does no harm to an estimate.
        let next = if mean == 0 { sample } else { mean - mean / 8 + sample / 8 };
        self.mean_request_us.store(next.max(1), Ordering::Relaxed);
    }

    /// Seconds until a place in the queue comes free, from the mean so far.
    pub(crate) fn seconds_until_place(&self) -> u64 {
        let parallel = u64::from(self.model.capabilities().max_sequences.max(1));
        (self.mean_request_us.load(Ordering::Relaxed) / parallel).div_ceil(1_000_000)
    }
}

fn fingerprint(config: &ModelConfig, described: &Described, model: &dyn LoadedModel) -> String {
    let info = model.info();
    let modified =
        described.info.files.iter().filter_map(|file| std::fs::metadata(file).ok()?.modified().ok()).max();
    let plan = &described.plan;
    let all = format!(
        "{} {} {:?} {} {modified:?} {} {} {} {} {:?} {}",
        info.backend,
        info.backend_version,
        described.info.files,
        described.info.file_bytes,
        plan.context,
        plan.parallel,
        plan.kv_tokens,
        info.kv_type,
        config.weights,
        info.weights,
    );
    let hash = Sha256::digest(all.as_bytes());
    let hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("fp_{hex}")
}
