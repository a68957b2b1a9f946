//! `DUET_*` variables as settings: `__` separates the parts of a key, upper case stands for lower case.
//!
//! `DUET_SERVER__PORT` is `server.port`, `DUET_MODELS__QWEN3_0_6B__ENGINE` is `engine` of the model whose name is
//! `qwen3-0.6b` (each character that is no letter or digit is written `_`), or of a new model `qwen3_0_6b` where no file
//! names such a one. Variables without `__` (`DUET_LOG`) are no settings and are left alone.

use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};

const PREFIX: &str = "DUET_";

pub(super) struct Environment {
    known_models: Vec<String>,
}

impl Environment {
    pub(super) fn new(known_models: Vec<String>) -> Self {
        Self { known_models }
    }

    fn model_name(&self, segment: &str) -> String {
        let same = |name: &&String| as_variable(name) == segment.to_uppercase();
        self.known_models.iter().find(same).cloned().unwrap_or_else(|| segment.to_lowercase())
    }

    /// The parts of a variable's key, or `None` for a variable that is no setting.
    fn parts(&self, variable: &str) -> Option<Vec<String>> {
        let rest = variable.strip_prefix(PREFIX).filter(|rest| rest.contains("__"))?;
        let mut parts: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        if parts[0] == "models"
            && let Some(name) = parts.get_mut(1)
        {
            *name = self.model_name(name);
        }
        Some(parts)
    }
}

fn as_variable(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let mut settings = Dict::new();
        for (variable, text) in std::env::vars_os() {
            let Some(parts) = variable.to_str().and_then(|variable| self.parts(variable)) else { continue };
            let Some(text) = text.to_str() else {
                return Err(Error::from(format!("{} is not UTF-8", variable.display())));
            };
            // Infallible: what is no number, boolean or list is a string.
            let value: Value = text.parse().unwrap_or_else(|_| Value::from(text));
            insert(&mut settings, &parts, value);
        }
        Ok(Map::from([(Profile::Default, settings)]))
    }
}

fn insert(dict: &mut Dict, parts: &[String], value: Value) {
    match parts {
        [] => {}
        [last] => {
            dict.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = dict.entry(first.clone()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
