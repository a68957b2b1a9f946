//! The engines of this build, and which of them takes a model. The one place that chooses.

use std::sync::Arc;

use crate::backend::{InferenceBackend, Probe};
use crate::decision::{DecisionFile, EngineIdentity, Found, MachineIdentity, Question};
use crate::error::BackendError;
use crate::model::{ModelFormat, ModelInfo, fingerprint};
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
    /// What a decision of the bench says, if one holds; else the format's native engine if it accepts the model, else the
    /// first that does.
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
    decisions: Option<Arc<(DecisionFile, MachineIdentity)>>,
}

impl Registry {
    /// Of these engines; `text` makes tokenizers and templates.
    pub fn new(backends: Vec<Arc<dyn InferenceBackend>>, text: TextResolver) -> Self {
        Self { backends, text, decisions: None }
    }

    /// The same registry, whose `auto` follows these decisions of the bench as far as they hold on this machine.
    pub fn with_decisions(self, decisions: DecisionFile, machine: MachineIdentity) -> Self {
        Self { decisions: Some(Arc::new((decisions, machine))), ..self }
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

    /// What the bench's decisions say, if there is a file of them that names this model: the engine to follow, or why it
    /// is not followed.
    fn decided(&self, model: &ModelInfo) -> Option<Result<Selection, String>> {
        let (file, machine) = &**self.decisions.as_ref()?;
        // Most models have none; files are not sampled for an empty file of decisions.
        if file.decisions.is_empty() {
            return None;
        }
        let fingerprint = fingerprint(&model.files).ok()?;
        let engines: Vec<EngineIdentity> =
            self.backends.iter().map(|backend| EngineIdentity::of(&backend.info())).collect();
        let now = jiff::Timestamp::now();
        let question = Question { fingerprint: &fingerprint, machine, engines: &engines, now };
        let decision = match file.find(question) {
            Found::Nothing => return None,
            Found::Stale(decision, why) => {
                return Some(Err(format!("the bench's decision of {} is stale: {why}", decision.decided)));
            }
            Found::Decision(decision) => decision,
        };
        let Some(id) = &decision.engine else {
            return Some(Err(format!("the bench of {}: {}", decision.decided, decision.reason)));
        };
        let backend = self.backends.iter().find(|backend| backend.info().id == *id)?;
        Some(match backend.probe(model) {
            Ok(probe) => {
                let reason = format!("the bench of {}: {}", decision.decided, decision.reason);
                Ok(Selection { backend: backend.clone(), probe, reason })
            }
            Err(error) => Err(format!("the bench chose `{id}`, which refuses the model now ({error})")),
        })
    }

    fn select_auto(&self, model: &ModelInfo) -> Result<Selection, BackendError> {
        let beside = match self.decided(model) {
            Some(Ok(selection)) => return Ok(selection),
            Some(Err(why)) => format!("; {why}"),
            None => String::new(),
        };
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
                    } + &beside;
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
