//! From a path on the command line to a loaded model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use duet_core::model::{KvType, ModelInfo, inspect};
use duet_core::{EngineChoice, LoadSpec, LoadedModel, Registry, TextAssets, WeightsMode};

/// How to load a model; the same on every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArguments {
    /// Engine: gguf, mlx, or auto (the format's own engine if it takes the model)
    #[arg(long, default_value = "auto", value_parser = ["auto", "gguf", "mlx"])]
    pub(crate) engine: String,
    /// Longest request in tokens, prompt and answer [default: the model's, at most 4096]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) context: Option<u32>,
    /// CPU threads of the engine [default: physical cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<u32>,
    /// How MLX holds quantised weights: as stored, as floats, or whichever is faster here
    #[arg(long, default_value = "auto", value_parser = ["auto", "packed", "dense"])]
    pub(crate) weights: String,
    /// Type of the KV cache's elements [default: the engine's choice]
    #[arg(long, value_parser = ["f16", "f32", "q8_0"])]
    pub(crate) kv_type: Option<String>,
}

impl LoadArguments {
    /// As if only these flags had been given.
    pub(crate) fn of_kind(weights: &str, kv_type: Option<&str>) -> Self {
        Self {
            engine: "auto".into(),
            context: None,
            threads: None,
            weights: weights.into(),
            kv_type: kv_type.map(str::to_owned),
        }
    }

    /// Flags that say how to load MODEL make no sense without one.
    pub(crate) fn refuse_without_model(&self) -> anyhow::Result<()> {
        let given = [
            ("--engine", self.engine != "auto"),
            ("--context", self.context.is_some()),
            ("--threads", self.threads.is_some()),
            ("--weights", self.weights != "auto"),
            ("--kv-type", self.kv_type.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => {
                anyhow::bail!("{flag} needs a MODEL; for configured models it is a setting of theirs")
            }
            None => Ok(()),
        }
    }

    pub(crate) fn weights(&self) -> WeightsMode {
        match self.weights.as_str() {
            "packed" => WeightsMode::Packed,
            "dense" => WeightsMode::Dense,
            _ => WeightsMode::Auto,
        }
    }

    pub(crate) fn kv_type(&self) -> Option<KvType> {
        match self.kv_type.as_deref()? {
            "f16" => Some(KvType::F16),
            "f32" => Some(KvType::F32),
            _ => Some(KvType::Q8_0),
        }
    }
}

/// A model in memory with its text side.
pub(crate) struct Ready {
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) info: Arc<ModelInfo>,
    pub(crate) text: TextAssets,
    pub(crate) reason: String,
}

/// Inspects, chooses the engine, loads with a progress bar.
pub(crate) async fn load(
    registry: &Registry,
    path: &Path,
    arguments: &LoadArguments,
) -> anyhow::Result<Ready> {
    let info = Arc::new(inspect(path)?);
    let selection = registry.select(&info, &EngineChoice::parse(&arguments.engine))?;
    if let Some(setting) = selection.probe.settings.lacking(arguments.weights(), None) {
        let (engine, reason) = (selection.backend.info().id, &selection.reason);
        anyhow::bail!("--{setting} has no effect on the engine `{engine}` ({reason})");
    }
    let text = registry.text_assets(&info)?;
    let mut spec = LoadSpec::new(info.clone(), text.tokenizer.clone());
    if let Some(context) = arguments.context {
        anyhow::ensure!(context >= 2, "--context {context}: at least 2 tokens are needed");
        anyhow::ensure!(
            context <= info.context_length,
            "--context {context}: the model was trained for {} tokens",
            info.context_length
        );
        spec.context_length = context;
        spec.kv_tokens = context;
    }
    spec.threads = arguments.threads;
    spec.weights = arguments.weights();
    spec.kv_type = arguments.kv_type();
    let (bar, progress) = crate::progress::load_bar(&format!("loading {}", file_name(path)));
    let loaded = selection.backend.load(spec, progress).await;
    bar.finish_and_clear();
    let model = loaded.with_context(|| format!("{} could not be loaded", path.display()))?;
    Ok(Ready { model, info, text, reason: selection.reason })
}

/// The last part of a path, for people.
pub(crate) fn file_name(path: &Path) -> String {
    let whole: PathBuf = path.components().collect(); // without a trailing slash
    whole.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
