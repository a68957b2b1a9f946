//! The layers: defaults < file < environment < flags that were given.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::environment::Environment;
use super::error::origin_of;
use super::raw::RawConfig;
use super::security::KEYS_VARIABLE;
use super::{ConfigError, ServerConfig};

/// The file that is read if it is there and no other was named.
pub const DEFAULT_FILE: &str = "duet.toml";

impl ServerConfig {
    /// Reads all layers and checks them. `file`: the file named by the user, which has to exist; without one,
    /// [`DEFAULT_FILE`] in the working directory, if it exists. `flags`: what the command line gave.
    ///
    /// # Errors
    /// The first setting that is unknown, of the wrong type or out of range, with its key and where it was written.
    pub fn load(file: Option<&Path>, flags: &RawConfig) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) if path.is_file() => Some(path.to_owned()),
            Some(path) => {
                let message = if path.exists() { "not a file" } else { "no such file" };
                let origin = Some(path.display().to_string());
                return Err(ConfigError { origin, ..ConfigError::new("", message) });
            }
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file()),
        };
        let mut figment = Figment::new();
        if let Some(path) = file {
            figment = figment.merge(Toml::file_exact(path));
        }
        let known_models = match figment.find_value("models") {
            Ok(Value::Dict(_, models)) => models.into_keys().collect(),
            _ => Vec::new(), // none, or a mistake that the extraction below reports
        };
        let figment = figment.merge(Environment::new(known_models)).merge(Flags(flags));
        let raw: RawConfig = figment.extract().map_err(ConfigError::from)?;
        let mut config = Self::validate(&raw).map_err(|error| located(&figment, error))?;
        if let Some(keys) = std::env::var_os(KEYS_VARIABLE) {
            config.http.security.add_keys(&keys.to_string_lossy())?;
        }
        Ok(config)
    }

    /// Settings from flags alone, for tests and tools.
    ///
    /// # Errors
    /// As [`ServerConfig::load`].
    pub fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Self::validate(raw)
    }
}

/// Fills in where the setting of a checked error was written. By hand: model names may hold the dots that figment's own
/// look-up splits at.
fn located(figment: &Figment, mut error: ConfigError) -> ConfigError {
    if error.origin.is_none() {
        error.origin = origin_of_key(figment, &error.key);
    }
    error
}

fn origin_of_key(figment: &Figment, key: &str) -> Option<String> {
    let (table, rest) = key.split_once('.')?;
    let mut value = figment.find_value(table).ok()?;
    let parts = match table {
        "models" => match rest.rsplit_once('.') {
            Some((name, field)) => vec![name, field],
            None => vec![rest],
        },
        _ => vec![rest],
    };
    for part in parts {
        match value {
            Value::Dict(_, mut dict) => value = dict.remove(part)?,
            _ => return None,
        }
    }
    figment.get_metadata(value.tag()).map(origin_of)
}

/// Flags as a layer: what was not given is not there.
struct Flags<'a>(&'a RawConfig);

impl Provider for Flags<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("command line")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut all = Serialized::defaults(self.0).data()?;
        for dict in all.values_mut() {
            prune(dict);
        }
        Ok(all)
    }
}

/// Takes out empty values and tables, which would replace those of lower layers, wrong ones included.
fn prune(dict: &mut Dict) {
    dict.retain(|_, value| match value {
        Value::Empty(..) => false,
        Value::Dict(_, inner) => {
            prune(inner);
            !inner.is_empty()
        }
        _ => true,
    });
}
