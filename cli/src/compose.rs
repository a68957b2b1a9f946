//! The composition root: which engines there are, and who reads which format's text assets. The only place that names
//! both engines.

use std::path::PathBuf;
use std::sync::Arc;

use duet_core::decision::DecisionFile;
use duet_core::model::{ModelFormat, ModelInfo};
use duet_core::text::{ChatTemplate, HfTokenizer, TemplateError, TemplateSources, TokenId, Tokenizer};
use duet_core::{BackendError, InferenceBackend, Registry, TextAssets};

/// All engines of this build that can start. A new engine is one more line here.
pub(crate) fn registry() -> Registry {
    registry_with(Vec::new())
}

/// The same and these.
pub(crate) fn registry_with(others: Vec<Arc<dyn InferenceBackend>>) -> Registry {
    let mut backends: Vec<Arc<dyn InferenceBackend>> =
        vec![Arc::new(duet_backend_gguf::GgufBackend::default())];
    match duet_backend_mlx::MlxBackend::new() {
        Ok(mlx) => backends.push(Arc::new(mlx)),
        // A library of another version, say: the other engine works all the same.
        Err(error) => tracing::warn!("no MLX engine: {}", error.chain()),
    }
    backends.extend(others);
    Registry::new(backends, Arc::new(text_assets))
}

/// The same, with what `duet bench explain --record` has decided for this machine, which `engine = "auto"` follows. A file
/// that cannot be read is said and changes nothing.
pub(crate) fn deciding_registry() -> Registry {
    let registry = registry();
    let Some(path) = decisions_path() else { return registry };
    match DecisionFile::read_or_empty(&path) {
        Ok(file) => registry.with_decisions(file, duet_bench::Machine::this().identity()),
        Err(error) => {
            tracing::warn!("decisions are not followed: {}", duet_core::chain(&error));
            registry
        }
    }
}

/// Where decisions are kept: the file that `DUET_DECISIONS` names, else `duet/decisions.json` in the user's data folder
/// (`XDG_DATA_HOME`, else `~/.local/share`). `None` without either.
pub(crate) fn decisions_path() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("DUET_DECISIONS").or_else(|| {
        let data = named("XDG_DATA_HOME").or_else(|| Some(named("HOME")?.join(".local/share")));
        Some(data?.join("duet/decisions.json"))
    })
}

/// A .gguf file's vocabulary is read by llama.cpp, a directory's tokenizer.json by the `tokenizers` crate.
fn text_assets(model: &ModelInfo) -> Result<TextAssets, BackendError> {
    let tokenizer: Arc<dyn Tokenizer> = match model.format {
        ModelFormat::Gguf => duet_backend_gguf::load_tokenizer(&model.path)?,
        ModelFormat::MlxDirectory => Arc::new(
            HfTokenizer::from_model_dir(&model.path)
                .map_err(|error| BackendError::load_failed(&model.path, error))?,
        ),
    };
    let template =
        template(model, tokenizer.as_ref()).map(Arc::new).map_err(|error| duet_core::chain(&error));
    Ok(TextAssets { tokenizer, template })
}

/// The model's chat template with its own written forms of BOS and EOS.
fn template(model: &ModelInfo, tokenizer: &dyn Tokenizer) -> Result<ChatTemplate, TemplateError> {
    match model.format {
        ModelFormat::MlxDirectory => {
            ChatTemplate::from_sources(TemplateSources::from_model_dir(&model.path)?)
        }
        ModelFormat::Gguf => {
            let source = model.chat_template.as_deref().ok_or(TemplateError::Missing)?;
            let written = |id: Option<TokenId>| {
                let bytes = id.and_then(|id| tokenizer.token_bytes(id)).unwrap_or_default();
                String::from_utf8_lossy(bytes).into_owned()
            };
            ChatTemplate::new(source, &written(tokenizer.bos()), &written(tokenizer.eos()))
        }
    }
}
