//! The engines of this build, and which of them takes a model. The one place that chooses.

use std::sync::Arc;

use crate::backend::{InferenceBackend, Probe};
use crate::error::BackendError;
use crate::model::{ModelFormat, ModelInfo};
use crate::text::{ChatTemplate, Tokenizer};

/// A model's text side, made from its format and handed to whichever engine loads it.
#[derive(Clone)]
pub struct TextAssets {
    /// Text to ids and back.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The chat template, or why there is none.
    pub template: Result<Arc<ChatTemplate>, String>,
}

/// Makes the text assets of a model; given by the composition root, since a .gguf file's vocabulary is read by the crate
/// that links llama.cpp.
pub type TextResolver = Arc<dyn Fn(&ModelInfo) -> Result<TextAssets, BackendError> + Send + Sync>;

/// Which engine a model shall run on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The format's native engine if it accepts the model, else the first that does.
    #[default]
    Auto,
    /// This one or none.
    Named(String),
}

impl EngineChoice {
    /// "auto" or an engine's id.
    pub fn parse(text: &str) -> Self {
        if text == "auto" { Self::Auto } else { Self::Named(text.to_owned()) }
    }
}

/// An engine chosen for a model.
#[derive(Clone)]
pub struct Selection {
    /// The engine.
    pub backend: Arc<dyn InferenceBackend>,
    /// What it said to the model.
    pub probe: Probe,
    /// Why this one, in one sentence.
    pub reason: String,
}

/// All engines of this build, in order of preference.
#[derive(Clone)]
pub struct Registry {
    backends: Vec<Arc<dyn InferenceBackend>>,
    text: TextResolver,
}

impl Registry {
    /// Of these engines; `text` makes tokenizers and templates.
    pub fn new(backends: Vec<Arc<dyn InferenceBackend>>, text: TextResolver) -> Self {
        Self { backends, text }
    }

    /// The engines.
    pub fn backends(&self) -> &[Arc<dyn InferenceBackend>] {
        &self.backends
    }

    /// The engine of this id.
    ///
    /// # Errors
    /// `InvalidRequest` that lists the ids there are.
    pub fn backend(&self, id: &str) -> Result<&Arc<dyn InferenceBackend>, BackendError> {
        self.backends.iter().find(|backend| backend.info().id == id).ok_or_else(|| {
            let known: Vec<&str> = self.backends.iter().map(|backend| backend.info().id).collect();
            BackendError::invalid("engine", format!("there is no engine `{id}`; known: {}", known.join(", ")))
        })
    }

    /// Tokenizer and template of a model.
    ///
    /// # Errors
    /// `LoadFailed` if its tokenizer is broken, `NotCompiledIn` if the crate that reads it was left out.
    pub fn text_assets(&self, model: &ModelInfo) -> Result<TextAssets, BackendError> {
        (self.text)(model)
    }

    /// Chooses the engine for a model, from headers alone.
    ///
    /// # Errors
    /// The named engine's refusal; for `Auto` the native engine's, if no other takes the model either.
    pub fn select(&self, model: &ModelInfo, choice: &EngineChoice) -> Result<Selection, BackendError> {
        match choice {
            EngineChoice::Named(id) => {
                let backend = self.backend(id)?;
                let probe = backend.probe(model)?;
                Ok(Selection { backend: backend.clone(), probe, reason: format!("`{id}` was asked for") })
            }
            EngineChoice::Auto => self.select_auto(model),
        }
    }

    fn select_auto(&self, model: &ModelInfo) -> Result<Selection, BackendError> {
        let (native, format) = match model.format {
            ModelFormat::Gguf => ("gguf", "a .gguf file"),
            ModelFormat::MlxDirectory => ("mlx", "an MLX directory"),
        };
        let mut refusal = None;
        let (first, rest): (Vec<_>, Vec<_>) =
            self.backends.iter().partition(|backend| backend.info().id == native);
        for backend in first.into_iter().chain(rest) {
            let id = backend.info().id;
            match backend.probe(model) {
                Ok(probe) => {
                    let reason = match &refusal {
                        None if id == native => format!("the native engine of {format}"),
                        None => format!("the first engine that takes {format}"),
                        Some((other, error)) => format!("{other} refused ({error})"),
                    };
                    return Ok(Selection { backend: backend.clone(), probe, reason });
                }
                Err(error) => {
                    refusal.get_or_insert((id, error));
                }
            }
        }
        Err(refusal.map_or_else(
            || BackendError::invalid("engine", "this build of duet has no engine at all"),
            |(_, error)| error,
        ))
    }
}
