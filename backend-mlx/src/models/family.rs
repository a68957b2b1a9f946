//! The architectures: what each has that the others have not.

use duet_core::BackendError;
use duet_core::model::config::ModelConfig;
use duet_core::model::{ModelFileError, ModelFormat, ModelInfo};

use super::config::{Biases, unsupported};
use super::{llama, qwen2, qwen3};

/// One architecture as a variation of the common decoder.
#[derive(Debug)]
pub(crate) struct Family {
    /// For messages.
    pub(crate) name: &'static str,
    /// `model_type` of config.json.
    pub(crate) model_types: &'static [&'static str],
    /// `general.architecture` of GGUF files.
    pub(crate) gguf: &'static str,
    /// Whether each head's queries and keys are normalised.
    pub(crate) qk_norm: bool,
    /// Whether GGUF files have the rows of Q and K in the order of rotating pairs.
    pub(crate) gguf_permutes: bool,
    /// `rms_norm_eps` where config.json does not say.
    pub(crate) default_eps: f32,
    /// Which projections have a bias.
    pub(crate) biases: fn(&ModelConfig) -> Result<Biases, ModelFileError>,
}

const FAMILIES: [&Family; 3] = [&llama::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY];

impl Family {
    /// The architecture of `model`.
    ///
    /// # Errors
    /// `UnsupportedArchitecture`, naming those that are supported.
    pub(crate) fn of(model: &ModelInfo) -> Result<&'static Self, BackendError> {
        if model.encoder {
            return Err(unsupported(model, "it generates nothing, and encoders are not there yet"));
        }
        let name = model.architecture.as_str();
        let found = FAMILIES.into_iter().find(|family| match model.format {
            ModelFormat::MlxDirectory => family.model_types.contains(&name),
            ModelFormat::Gguf => family.gguf == name,
        });
        found.ok_or_else(|| {
            let names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
            unsupported(model, format!("supported: {}", names.join(", ")))
        })
    }
}
