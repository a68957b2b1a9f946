//! The engine's names in a build without it.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use duet_core::model::ModelInfo;
use duet_core::{
    BackendError, BackendInfo, InferenceBackend, LoadProgress, LoadSpec, LoadedModel, Probe, WeightsMode,
};

use crate::{EachTensor, ExactnessReport, ID};

fn left_out() -> BackendError {
    BackendError::NotCompiledIn { backend: ID, feature: "mlx" }
}

/// The MLX engine; this build has none.
#[derive(Debug, Clone)]
pub struct MlxBackend {
    // Never made: `new` always refuses.
    _private: (),
}

impl MlxBackend {
    /// Refuses.
    ///
    /// # Errors
    /// `NotCompiledIn`.
    pub fn new() -> Result<Self, BackendError> {
        Err(left_out())
    }
}

#[async_trait]
impl InferenceBackend for MlxBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            id: ID,
            library: "MLX",
            version: "not compiled in".into(),
            devices: Vec::new(),
            features: Vec::new(),
            library_path: String::new(),
        }
    }

    fn probe(&self, _model: &ModelInfo) -> Result<Probe, BackendError> {
        Err(left_out())
    }

    async fn load(
        &self,
        _spec: LoadSpec,
        _progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        Err(left_out())
    }
}

/// Refuses.
///
/// # Errors
/// `NotCompiledIn`.
pub fn check_exactness(_path: &Path, _weights: WeightsMode) -> Result<ExactnessReport, BackendError> {
    Err(left_out())
}

/// Refuses.
///
/// # Errors
/// `NotCompiledIn`.
pub fn show_weights(
    _path: &Path,
    _weights: WeightsMode,
    _each: &mut EachTensor<'_>,
) -> Result<(), BackendError> {
    Err(left_out())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_door_says_not_compiled_in() {
        let refused = |error: BackendError| {
            matches!(error, BackendError::NotCompiledIn { backend: ID, feature: "mlx" })
        };
        assert!(refused(MlxBackend::new().unwrap_err()));
        assert!(refused(check_exactness(Path::new("m.gguf"), WeightsMode::Auto).unwrap_err()));
        let backend = MlxBackend { _private: () };
        assert!(refused(backend.probe(&duet_core::testing::fake_model_info()).unwrap_err()));
    }
}
