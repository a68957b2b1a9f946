//! What a loaded model's states are valid for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::backend::LoadedInfo;
use crate::prefix::ModelKey;

/// Places of a file that are looked at; a model of 100 GB is not read for this.
const N_SAMPLES: u64 = 16;
const SAMPLE_BYTES: u64 = 64 << 10;

/// The key under which this model's states are kept: what its files hold, wherever they lie, and what the engine made of
/// them. A file that cannot be read any more gives a key of its own, under which nothing is found.
pub(super) fn model_key(info: &LoadedInfo) -> ModelKey {
    let mut hash = Sha256::new();
    for path in &info.model.files {
        if let Err(error) = sample(path, &mut hash) {
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

fn sample(path: &Path, hash: &mut Sha256) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    hash.update(len.to_le_bytes());
    let mut part = Vec::with_capacity(SAMPLE_BYTES as usize);
    for index in 0..N_SAMPLES {
        part.clear();
        let last = len.saturating_sub(SAMPLE_BYTES);
        file.seek(SeekFrom::Start(last / (N_SAMPLES - 1) * index))?;
        file.by_ref().take(SAMPLE_BYTES).read_to_end(&mut part)?;
        hash.update(&part);
    }
    Ok(())
}
