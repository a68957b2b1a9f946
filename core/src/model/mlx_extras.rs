//! What the small files beside config.json add: ids that end a generation, recommended sampling, the chat template.

use std::path::Path;

use serde_json::Value;

use super::config::{ModelConfig, integers};
use super::info::GenerationDefaults;
use super::{ModelFileError, json_file};
use crate::embedding::Pooling;

const MAX_TEMPLATE_BYTES: u64 = 4 << 20;
/// Added tokens make some of these files large.
const MAX_TOKENIZER_CONFIG_BYTES: u64 = 64 << 20;
const MAX_GENERATION_CONFIG_BYTES: u64 = 1 << 20;

/// See the module.
pub(super) struct Extras {
    pub(super) chat_template: Option<String>,
    pub(super) bos_token_id: Option<u32>,
    pub(super) eos_token_ids: Vec<u32>,
    pub(super) generation_defaults: GenerationDefaults,
    pub(super) pooling: Option<Pooling>,
}

impl Extras {
    pub(super) fn read(dir: &Path, config: &ModelConfig) -> Result<Self, ModelFileError> {
        let path = dir.join("generation_config.json");
        let generation = json_file::read_object(&path, MAX_GENERATION_CONFIG_BYTES)?;
        let generation = generation.unwrap_or_default();
        let stated_ids = |key: &str| match generation.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match integers(value) {
                Some(ids) => Ok(Some(ids)),
                None => {
                    Err(ModelFileError::malformed(&path, format!("{key:?} is no token id or list of them")))
                }
            },
        };
        let mut eos_token_ids = match stated_ids("eos_token_id")? {
            Some(ids) => ids,
            None => config.token_ids("eos_token_id")?,
        };
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        let bos = match config.token_ids("bos_token_id")?.first() {
            Some(&id) => Some(id),
            None => stated_ids("bos_token_id")?.and_then(|ids| ids.first().copied()),
        };
        Ok(Self {
            chat_template: chat_template(dir)?,
            bos_token_id: bos,
            eos_token_ids,
            generation_defaults: generation_defaults(&generation),
            pooling: pooling(dir)?,
        })
    }
}

/// Fields of the wrong type count as not stated: they are advice.
fn generation_defaults(generation: &Value) -> GenerationDefaults {
    let f32 = |key: &str| generation.get(key)?.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
    GenerationDefaults {
        temperature: f32("temperature"),
        top_p: f32("top_p"),
        top_k: generation.get("top_k").and_then(|n| n.as_u64()?.try_into().ok()),
        min_p: f32("min_p"),
        repetition_penalty: f32("repetition_penalty"),
    }
}

/// As sentence-transformers writes it down. Ways of pooling that are not ours count as not stated.
fn pooling(dir: &Path) -> Result<Option<Pooling>, ModelFileError> {
    let path = dir.join("1_Pooling").join("config.json");
    let Some(config) = json_file::read_object(&path, MAX_GENERATION_CONFIG_BYTES)? else { return Ok(None) };
    let modes = [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_lasttoken", Pooling::Last),
        ("pooling_mode_cls_token", Pooling::First),
    ];
    let on = |name: &str| config.get(name).and_then(Value::as_bool) == Some(true);
    Ok(modes.into_iter().find(|(name, _)| on(name)).map(|(_, pooling)| pooling))
}

/// chat_template.jinja, else the field of chat_template.json, else that of tokenizer_config.json.
fn chat_template(dir: &Path) -> Result<Option<String>, ModelFileError> {
    let text = json_file::read_text(&dir.join("chat_template.jinja"), MAX_TEMPLATE_BYTES)?;
    if text.is_some() {
        return Ok(text);
    }
    for (file, limit) in
        [("chat_template.json", MAX_TEMPLATE_BYTES), ("tokenizer_config.json", MAX_TOKENIZER_CONFIG_BYTES)]
    {
        let object = json_file::read_object(&dir.join(file), limit)?;
        let template = object.as_ref().and_then(|object| object.get("chat_template"));
        if let Some(template) = template.and_then(default_template) {
            return Ok(Some(template.to_owned()));
        }
    }
    Ok(None)
}

/// A template's text, or of a list of named ones that called "default".
fn default_template(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(named) => {
            let default =
                named.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"));
            default?.get("template")?.as_str()
        }
        _ => None,
    }
}
