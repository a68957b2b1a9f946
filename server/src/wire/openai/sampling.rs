//! Sampling parameters of a request, and the layers below them: request > config > the model's own > OpenAI's.

use std::collections::BTreeMap;

use duet_core::model::GenerationDefaults;
use duet_core::sampling::{MirostatParams, MirostatVersion, SamplingParams};
use duet_core::text::TokenId;

use crate::config::SamplingDefaults;
use crate::error::ApiError;
use crate::wire::fields::Fields;
use crate::wire::openai::one_or_many::OneOrMany;

/// What the request says; `None`: nothing.
#[derive(Debug, Default)]
pub(crate) struct SamplingRequest {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    top_n_sigma: Option<f32>,
    repetition_penalty: Option<f32>,
    repeat_last_n: Option<i32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logit_bias: Vec<(TokenId, f32)>,
    seed: Option<u64>,
    xtc_probability: Option<f32>,
    xtc_threshold: Option<f32>,
    dry_multiplier: Option<f32>,
    dry_base: Option<f32>,
    dry_allowed_length: Option<u32>,
    dry_penalty_last_n: Option<i32>,
    dry_sequence_breakers: Option<Vec<String>>,
    mirostat: Option<MirostatParams>,
}

/// llama.cpp's own: line ends, colons, quotes, stars.
const DRY_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];
const MOST_BREAKERS: usize = 64;

impl SamplingRequest {
    /// Takes the group's fields.
    ///
    /// # Errors
    /// Wrong types, two names of one parameter with different values, bad ids in `logit_bias`. Ranges are checked by
    /// [`SamplingRequest::resolve`].
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let repetition = (fields.take::<f32>("repetition_penalty")?, fields.take::<f32>("repeat_penalty")?);
        let repetition_penalty = match repetition {
            (Some(a), Some(b)) if a != b => {
                let message = "`repetition_penalty` and `repeat_penalty` are one parameter; give one of them";
                return Err(ApiError::invalid("repeat_penalty", message));
            }
            (a, b) => a.or(b),
        };
        Ok(Self {
            temperature: fields.take("temperature")?,
            top_p: fields.take("top_p")?,
            top_k: fields.take("top_k")?,
            min_p: fields.take("min_p")?,
            typical_p: fields.take("typical_p")?,
            // -1 and 0 are how clients of llama.cpp say "off".
            top_n_sigma: fields.take("top_n_sigma")?.filter(|sigma| *sigma != -1.0 && *sigma != 0.0),
            repetition_penalty,
            repeat_last_n: fields.take("repeat_last_n")?,
            presence_penalty: fields.take("presence_penalty")?,
            frequency_penalty: fields.take("frequency_penalty")?,
            logit_bias: logit_bias(fields.take("logit_bias")?.unwrap_or_default())?,
            seed: seed(fields)?,
            xtc_probability: fields.take("xtc_probability")?,
            xtc_threshold: fields.take("xtc_threshold")?,
            dry_multiplier: fields.take("dry_multiplier")?,
            dry_base: fields.take("dry_base")?,
            dry_allowed_length: fields.take("dry_allowed_length")?,
            dry_penalty_last_n: fields.take("dry_penalty_last_n")?,
            dry_sequence_breakers: fields.take::<OneOrMany>("dry_sequence_breakers")?.map(|list| list.0),
            mirostat: mirostat(fields)?,
        })
    }

    /// The first choice's seed; none was given: none is chosen here.
    pub(crate) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Whether DRY is on, for which the whole vocabulary is looked through.
    pub(crate) fn has_dry(&self) -> bool {
        self.dry_multiplier.is_some_and(|multiplier| multiplier != 0.0)
    }

    /// The texts that DRY repeats do not reach across, if DRY is on at all.
    ///
    /// # Errors
    /// `invalid_value` for an empty text or too many of them.
    pub(crate) fn dry_breakers(&self) -> Result<Vec<&str>, ApiError> {
        if !self.has_dry() {
            return Ok(Vec::new());
        }
        match &self.dry_sequence_breakers {
            None => Ok(DRY_BREAKERS.to_vec()),
            Some(list) if list.len() > MOST_BREAKERS || list.iter().any(String::is_empty) => {
                let message = format!(
                    "`dry_sequence_breakers` must be at most {MOST_BREAKERS} texts that are not empty"
                );
                Err(ApiError::invalid("dry_sequence_breakers", message))
            }
            Some(list) => Ok(list.iter().map(String::as_str).collect()),
        }
    }

    /// All layers together, checked; seed 0 is to be replaced by the caller.
    ///
    /// # Errors
    /// `invalid_value` for the first parameter out of range. Nothing is clamped.
    pub(crate) fn resolve(
        &self,
        config: &SamplingDefaults,
        model: &GenerationDefaults,
        dry_sequence_breakers: Vec<TokenId>,
        vocab_size: u32,
    ) -> Result<SamplingParams, ApiError> {
        let openai = SamplingParams::default();
        // Mirostat takes the place of filters that nobody asked for; those of the request go first.
        let (no_config, no_model) = (SamplingDefaults::default(), GenerationDefaults::default());
        let (config_filters, model_filters) =
            if self.mirostat.is_some() { (&no_config, &no_model) } else { (config, model) };
        let top_k = match self.top_k {
            None => config_filters.top_k.or(model_filters.top_k).unwrap_or(openai.top_k),
            Some(-1) => 0, // how clients of vLLM say "off"
            Some(top_k) => u32::try_from(top_k).map_err(|_| {
                ApiError::invalid("top_k", format!("`top_k` must be -1 (off), 0 (off) or more, got {top_k}"))
            })?,
        };
        let params = SamplingParams {
            temperature: self
                .temperature
                .or(config.temperature)
                .or(model.temperature)
                .unwrap_or(openai.temperature),
            top_k,
            top_p: self.top_p.or(config_filters.top_p).or(model_filters.top_p).unwrap_or(openai.top_p),
            min_p: self.min_p.or(config_filters.min_p).or(model_filters.min_p).unwrap_or(openai.min_p),
            typical_p: self.typical_p.or(config_filters.typical_p).unwrap_or(openai.typical_p),
            top_n_sigma: self.top_n_sigma,
            repetition_penalty: self
                .repetition_penalty
                .or(config.repetition_penalty)
                .or(model.repetition_penalty)
                .unwrap_or(openai.repetition_penalty),
            repeat_last_n: self.repeat_last_n.or(config.repeat_last_n).unwrap_or(openai.repeat_last_n),
            frequency_penalty: self
                .frequency_penalty
                .or(config.frequency_penalty)
                .unwrap_or(openai.frequency_penalty),
            presence_penalty: self
                .presence_penalty
                .or(config.presence_penalty)
                .unwrap_or(openai.presence_penalty),
            logit_bias: self.logit_bias.clone(),
            seed: 0,
            xtc_probability: self.xtc_probability.unwrap_or(openai.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(openai.xtc_threshold),
            dry_multiplier: self.dry_multiplier.unwrap_or(openai.dry_multiplier),
            dry_base: self.dry_base.unwrap_or(openai.dry_base),
            dry_allowed_length: self.dry_allowed_length.unwrap_or(openai.dry_allowed_length),
            dry_penalty_last_n: self.dry_penalty_last_n.unwrap_or(openai.dry_penalty_last_n),
            dry_sequence_breakers,
            mirostat: self.mirostat,
        };
        params.validate(vocab_size).map_err(|error| {
            ApiError::invalid(error.param, format!("`{}` {}", error.param, error.message))
        })?;
        Ok(params)
    }
}

/// 0: off, whatever the other two say.
fn mirostat(fields: &mut Fields) -> Result<Option<MirostatParams>, ApiError> {
    let version = fields.take::<u8>("mirostat")?;
    let tau = fields.take("mirostat_tau")?.unwrap_or(5.0);
    let eta = fields.take("mirostat_eta")?.unwrap_or(0.1);
    let version = match version {
        None | Some(0) => return Ok(None),
        Some(1) => MirostatVersion::One,
        Some(_) => MirostatVersion::Two,
    };
    Ok(Some(MirostatParams { version, tau, eta }))
}

/// Any integer of 64 bits; -1 means "none" to llama.cpp's clients.
fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(number) = fields.take::<serde_json::Number>("seed")? else { return Ok(None) };
    match (number.as_u64(), number.as_i64()) {
        (Some(seed), _) => Ok(Some(seed)),
        (None, Some(-1)) => Ok(None),
        (None, Some(seed)) => Ok(Some(seed.cast_unsigned())),
        (None, None) => Err(ApiError::invalid("seed", "`seed` must be an integer of 64 bits")),
    }
}

fn logit_bias(map: BTreeMap<String, f32>) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let entry = |(key, bias): (String, f32)| match key.parse::<TokenId>() {
        Ok(id) => Ok((id, bias)),
        Err(_) => Err(ApiError::invalid(format!("logit_bias.{key}"), format!("`{key}` is no token id"))),
    };
    map.into_iter().map(entry).collect()
}
