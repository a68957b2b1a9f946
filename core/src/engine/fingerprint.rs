//! What a loaded model's states are valid for.

use sha2::{Digest, Sha256};

use crate::backend::LoadedInfo;
use crate::model::sample_file;
use crate::prefix::ModelKey;

/// The key under which this model's states are kept: what its files hold, wherever they lie, and what the engine made of
/// them. A file that cannot be read any more gives a key of its own, under which nothing is found.
pub(super) fn model_key(info: &LoadedInfo) -> ModelKey {
    let mut hash = Sha256::new();
    for path in &info.model.files {
        if let Err(error) = sample_file(path, &mut hash) {
            tracing::debug!(%error, path = %path.display(), "a model file could not be read for its fingerprint");
            hash.update(path.as_os_str().as_encoded_bytes());
        }
    }
    let weights = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    ModelKey::new([
        weights.as_str(),
        info.backend,
        &info.backend_version,
        &info.device,
        &info.weights,
        &info.kv_type,
    ])
}
