//! Where a model directory keeps its chat templates and the written forms of its special tokens.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{DEFAULT, TemplateError};

/// The templates of a model, not compiled yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateSources {
    /// Source by name; a model with a single template has it under `default`.
    pub templates: BTreeMap<String, String>,
    /// Written form by variable: `bos_token`, `eos_token`, `pad_token`, ...
    pub special_tokens: BTreeMap<String, String>,
}

impl TemplateSources {
    /// What a model directory has: `chat_template.jinja` and `additional_chat_templates/`, else what
    /// `tokenizer_config.json` or `chat_template.json` hold (one template, a list of named ones, or a map).
    ///
    /// # Errors
    /// [`TemplateError::Unreadable`] for files that cannot be read or are not what they should be. A model without
    /// templates is no error here.
    pub fn from_model_dir(dir: &Path) -> Result<Self, TemplateError> {
        let mut sources = Self::default();
        if let Some(config) = read_json(&dir.join("tokenizer_config.json"))? {
            sources.take_special_tokens(&config);
            sources.take_templates(config.get("chat_template"));
        }
        if let Some(config) = read_json(&dir.join("chat_template.json"))? {
            sources.take_templates(config.get("chat_template"));
        }
        if let Some(source) = read(&dir.join("chat_template.jinja"))? {
            sources.templates.insert(DEFAULT.to_owned(), source);
        }
        sources.take_folder(&dir.join("additional_chat_templates"))?;
        Ok(sources)
    }

    fn take_special_tokens(&mut self, config: &Value) {
        for (name, value) in config.as_object().into_iter().flatten() {
            if let (true, Some(text)) = (name.ends_with("_token"), token_text(value)) {
                self.special_tokens.insert(name.clone(), text.to_owned());
            }
        }
    }

    fn take_templates(&mut self, value: Option<&Value>) {
        let mut take = |name: &str, source: Option<&Value>| {
            if let Some(source) = source.and_then(Value::as_str) {
                self.templates.insert(name.to_owned(), source.to_owned());
            }
        };
        match value {
            Some(Value::String(_)) => take(DEFAULT, value),
            Some(Value::Object(map)) => map.iter().for_each(|(name, source)| take(name, Some(source))),
            Some(Value::Array(entries)) => {
                for entry in entries {
                    if let Some(name) = entry.get("name").and_then(Value::as_str) {
                        take(name, entry.get("template"));
                    }
                }
            }
            _ => {}
        }
    }

    fn take_folder(&mut self, folder: &Path) -> Result<(), TemplateError> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "jinja")
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
                && let Some(source) = read(&path)?
            {
                self.templates.insert(name.to_owned(), source);
            }
        }
        Ok(())
    }
}

/// A token in `tokenizer_config.json`: its text, or an object with the text as `content`.
pub(in crate::text) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str))
}

/// More than any tokenizer's configuration holds.
const MAX_FILE_BYTES: u64 = 64 << 20;

fn read(path: &Path) -> Result<Option<String>, TemplateError> {
    let unreadable = |message: String| TemplateError::Unreadable { path: path.to_owned(), message };
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            return Err(unreadable(format!(
                "{} bytes are more than the limit of {MAX_FILE_BYTES}",
                metadata.len()
            )));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(|error| unreadable(error.to_string()))
}

fn read_json(path: &Path) -> Result<Option<Value>, TemplateError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let parsed = serde_json::from_str(&text);
    parsed
        .map(Some)
        .map_err(|error| TemplateError::Unreadable { path: path.to_owned(), message: error.to_string() })
}
