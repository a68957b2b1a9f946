//! The same names in a build without llama.cpp: everything answers "not compiled in".

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use duet_core::model::ModelInfo;
use duet_core::text::Tokenizer;
use duet_core::{BackendError, BackendInfo, InferenceBackend, LoadProgress, LoadSpec, LoadedModel, Probe};

use crate::{GgufSettings, ID};

/// The GGUF engine, which this build does not have.
#[derive(Debug, Clone, Default)]
pub struct GgufBackend;

impl GgufBackend {
    /// An engine that refuses to load, whatever the settings.
    pub fn new(settings: GgufSettings) -> Self {
        drop(settings); // there is nothing to set
        Self
    }
}

fn not_compiled_in() -> BackendError {
    BackendError::NotCompiledIn { backend: ID, feature: "gguf" }
}

#[async_trait]
impl InferenceBackend for GgufBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            id: ID,
            library: "llama.cpp",
            version: "not compiled in".into(),
            devices: Vec::new(),
            features: Vec::new(),
            library_path: String::new(),
        }
    }

    fn probe(&self, _model: &ModelInfo) -> Result<Probe, BackendError> {
        Err(not_compiled_in())
    }

    async fn load(
        &self,
        _spec: LoadSpec,
        _progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        Err(not_compiled_in())
    }
}

/// A GGUF file's vocabulary, which this build cannot read.
///
/// # Errors
/// [`BackendError::NotCompiledIn`], always.
pub fn load_tokenizer(_path: &Path) -> Result<Arc<dyn Tokenizer>, BackendError> {
    Err(not_compiled_in())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_llama_cpp_says_so() {
        let backend = GgufBackend::new(GgufSettings::default());
        assert_eq!((backend.info().id, backend.info().devices.len()), (ID, 0));
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-llama.gguf");
        let model = duet_core::model::inspect(&fixture).expect("a fixture");
        let error = backend.probe(&model).expect_err("not here");
        assert!(
            matches!(error, BackendError::NotCompiledIn { backend: "gguf", feature: "gguf" }),
            "{error:?}"
        );
        let error = load_tokenizer(&fixture).expect_err("nor its vocabulary");
        assert!(error.to_string().contains("no gguf engine"), "{error}");
    }
}
