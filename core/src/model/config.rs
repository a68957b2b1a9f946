//! config.json of an MLX directory: the whole tree, and typed access to what both detection and the engine need.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::quant_config::{ForeignQuantization, Quantization};
use super::{ModelFileError, json_file};

/// Far more than per-module quantisation settings of the largest models take.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// A parsed config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    path: PathBuf,
    root: Value,
}

impl ModelConfig {
    /// Reads `config.json` in the directory `dir`.
    ///
    /// # Errors
    /// `NotAModel` if there is none, `Malformed` if it is no JSON object, `LimitExceeded` beyond 16 MiB, `Io`.
    pub fn read(dir: &Path) -> Result<Self, ModelFileError> {
        let path = dir.join("config.json");
        match json_file::read_object(&path, MAX_CONFIG_BYTES)? {
            Some(root) => Ok(Self { path, root }),
            None => {
                let why = "the directory has no config.json".to_owned();
                Err(ModelFileError::NotAModel { path: dir.to_owned(), why })
            }
        }
    }

    /// A configuration that is already parsed; `path` serves for errors.
    pub fn from_value(path: &Path, root: Value) -> Self {
        Self { path: path.to_owned(), root }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole tree.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// A field of the language model: that of `text_config` where there is such an object with the field, else that of
    /// the root. A JSON null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let text = self.root.get("text_config").and_then(|text| text.get(key));
        text.or_else(|| self.root.get(key)).filter(|value| !value.is_null())
    }

    /// The language model's family: `model_type`, that of `text_config` first.
    ///
    /// # Errors
    /// `Malformed` if it is missing or no string.
    pub fn model_type(&self) -> Result<&str, ModelFileError> {
        self.str("model_type")?.ok_or_else(|| self.missing("model_type"))
    }

    /// The number under `key`, by the rule of [`get`](Self::get).
    ///
    /// # Errors
    /// `Malformed` if it is something else or does not fit. The same holds for the others below.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, ModelFileError> {
        self.typed(key, "an integer of 32 bits", |value| value.as_u64()?.try_into().ok())
    }

    /// The finite number under `key`.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, ModelFileError> {
        self.typed(key, "a finite number", |value| {
            let value = value.as_f64()? as f32;
            value.is_finite().then_some(value)
        })
    }

    /// The flag under `key`.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ModelFileError> {
        self.typed(key, "a boolean", Value::as_bool)
    }

    /// The text under `key`.
    pub fn str(&self, key: &str) -> Result<Option<&str>, ModelFileError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// The list under `key`.
    pub fn array(&self, key: &str) -> Result<Option<&[Value]>, ModelFileError> {
        self.typed(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// The object under `key`.
    pub fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, ModelFileError> {
        self.typed(key, "an object", Value::as_object)
    }

    /// As [`u32`](Self::u32), with a missing field being `Malformed` as well.
    pub fn require_u32(&self, key: &str) -> Result<u32, ModelFileError> {
        self.u32(key)?.ok_or_else(|| self.missing(key))
    }

    /// The largest of the integers under `key`, which may be one number or a list with one per layer.
    pub fn largest_u32(&self, key: &str) -> Result<Option<u32>, ModelFileError> {
        let list = self.typed(key, "an integer or a list of them", integers)?;
        Ok(list.and_then(|list| list.into_iter().max()))
    }

    /// The ids under `key`, which may be one number or a list; empty if there are none.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>, ModelFileError> {
        let ids = self.typed(key, "a token id or a list of them", integers)?;
        Ok(ids.unwrap_or_default())
    }

    /// MLX's own quantisation settings: `quantization`, or a `quantization_config` of the same form; `None` for a model
    /// that has none.
    ///
    /// # Errors
    /// `Malformed` if it is not of that form.
    pub fn quantization(&self) -> Result<Option<Quantization>, ModelFileError> {
        let own = self.get("quantization").or_else(|| match self.foreign_scheme() {
            Some(_) => None,
            None => self.get("quantization_config"),
        });
        own.map(|value| Quantization::parse(value, &self.path)).transpose()
    }

    /// Another library's quantisation (`quantization_config` with a `quant_method`) in a model without MLX's own.
    pub fn foreign_quantization(&self) -> Option<ForeignQuantization> {
        match self.get("quantization") {
            Some(_) => None,
            None => self.foreign_scheme(),
        }
    }

    /// `Malformed` about this file.
    pub(crate) fn malformed(&self, what: impl Into<String>) -> ModelFileError {
        ModelFileError::malformed(&self.path, what)
    }

    fn foreign_scheme(&self) -> Option<ForeignQuantization> {
        ForeignQuantization::parse(self.get("quantization_config")?)
    }

    fn missing(&self, key: &str) -> ModelFileError {
        self.malformed(format!("the field {key:?} is missing"))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelFileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.malformed(format!("the field {key:?} is not {expected}"))),
        }
    }
}

/// One small integer or a list of them.
pub(super) fn integers(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64()?.try_into().ok();
    match value {
        Value::Array(values) => values.iter().map(id).collect(),
        value => id(value).map(|id| vec![id]),
    }
}
