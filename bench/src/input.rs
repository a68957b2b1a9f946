//! From what a user names to two arms that can be loaded: models, engines, one tokenizer.

use std::sync::Arc;

use duet_core::model::{ModelInfo, inspect};
use duet_core::registry::{EngineChoice, Registry};
use duet_core::text::Tokenizer;
use duet_core::{BackendError, InferenceBackend, Probe};

use crate::error::BenchError;
use crate::options::Subject;
use crate::order::Side;
use crate::parity::first_difference;

/// One arm, before it is loaded.
#[derive(Clone)]
pub(crate) struct ArmInput {
    pub(crate) label: String,
    pub(crate) model: Arc<ModelInfo>,
    pub(crate) backend: Arc<dyn InferenceBackend>,
    pub(crate) probe: Probe,
    pub(crate) reason: String,
    pub(crate) tokenizer: Arc<dyn Tokenizer>,
}

/// The models of a subject, from their headers.
pub(crate) fn models(subject: &Subject) -> Result<Vec<Arc<ModelInfo>>, BenchError> {
    let one = |path: &std::path::PathBuf| match inspect(path) {
        Ok(model) => Ok(Arc::new(model)),
        Err(error) => Err(BenchError::Model { path: path.clone(), source: BackendError::ModelFile(error) }),
    };
    match subject {
        Subject::One(path) => Ok(vec![one(path)?]),
        Subject::Pair(a, b) => Ok(vec![one(a)?, one(b)?]),
    }
}

/// Two arms for one model or two; `text` is what they will work on.
pub(crate) fn resolve(
    registry: &Registry,
    models: &[Arc<ModelInfo>],
    engines: Option<&[String; 2]>,
    text: &str,
) -> Result<[ArmInput; 2], BenchError> {
    let (a, b) = match models {
        [one] => (one, one),
        [a, b] => (a, b),
        _ => {
            let message = format!("must be one model or two, got {}", models.len());
            return Err(BenchError::Option { option: "subject", message });
        }
    };
    let choices = choices(registry, models.len() == 1, engines)?;
    let [choice_a, choice_b] = choices;
    let tokenizers = tokenizers(registry, a, b, models.len() == 1, text)?;
    let [tokenizer_a, tokenizer_b] = tokenizers;
    let mut arms = [
        arm(registry, Side::A, a, &choice_a, tokenizer_a)?,
        arm(registry, Side::B, b, &choice_b, tokenizer_b)?,
    ];
    if arms[0].label == arms[1].label {
        for (number, arm) in arms.iter_mut().enumerate() {
            arm.label = format!("{}-{}", arm.label, number + 1);
        }
    }
    Ok(arms)
}

fn choices(
    registry: &Registry,
    one_model: bool,
    engines: Option<&[String; 2]>,
) -> Result<[EngineChoice; 2], BenchError> {
    if let Some([a, b]) = engines {
        return Ok([EngineChoice::parse(a), EngineChoice::parse(b)]);
    }
    if !one_model {
        return Ok([EngineChoice::Auto, EngineChoice::Auto]);
    }
    let ids: Vec<&str> = registry.backends().iter().map(|backend| backend.info().id).collect();
    match ids[..] {
        [a, b, ..] => Ok([EngineChoice::Named(a.to_owned()), EngineChoice::Named(b.to_owned())]),
        _ => Err(BenchError::TooFewEngines { n_engines: ids.len(), known: ids.join(", ") }),
    }
}

fn tokenizers(
    registry: &Registry,
    a: &ModelInfo,
    b: &ModelInfo,
    one_model: bool,
    text: &str,
) -> Result<[Arc<dyn Tokenizer>; 2], BenchError> {
    let of = |model: &ModelInfo| match registry.text_assets(model) {
        Ok(assets) => Ok(assets.tokenizer),
        Err(source) => Err(BenchError::Model { path: model.path.clone(), source }),
    };
    let first = of(a)?;
    if one_model {
        return Ok([first.clone(), first]);
    }
    let second = of(b)?;
    match first_difference(first.as_ref(), second.as_ref(), text)? {
        None => Ok([first, second]),
        Some(difference) => Err(BenchError::TokenizersDiffer {
            a: a.path.clone(),
            b: b.path.clone(),
            difference: Box::new(difference),
        }),
    }
}

fn arm(
    registry: &Registry,
    side: Side,
    model: &Arc<ModelInfo>,
    choice: &EngineChoice,
    tokenizer: Arc<dyn Tokenizer>,
) -> Result<ArmInput, BenchError> {
    let selection = registry.select(model, choice).map_err(|source| BenchError::Refused {
        arm: side.name(),
        engine: match choice {
            EngineChoice::Named(id) => id.clone(),
            EngineChoice::Auto => model.format.as_str().to_owned(),
        },
        path: model.path.clone(),
        source: Box::new(source),
    })?;
    Ok(ArmInput {
        label: selection.backend.info().id.to_owned(),
        model: model.clone(),
        backend: selection.backend,
        probe: selection.probe,
        reason: selection.reason,
        tokenizer,
    })
}
