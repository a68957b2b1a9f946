//! Quantisation settings in config.json.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::ModelFileError;

/// How MLX packs the values of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuantMode {
    /// Scale and bias per group: w = s·q + β.
    Affine,
    /// 4-bit floats, one power-of-two scale per 32.
    Mxfp4,
    /// 8-bit floats, one power-of-two scale per 32.
    Mxfp8,
    /// 4-bit floats, one 8-bit float scale per 16.
    Nvfp4,
}

impl QuantMode {
    /// The name in config.json.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Affine, Self::Mxfp4, Self::Mxfp8, Self::Nvfp4].into_iter().find(|mode| mode.as_str() == name)
    }

    /// Group size and bits that the mode fixes or, for affine, defaults to.
    fn defaults(self) -> (u32, u32) {
        match self {
            Self::Affine => (64, 4),
            Self::Mxfp4 => (32, 4),
            Self::Mxfp8 => (32, 8),
            Self::Nvfp4 => (16, 4),
        }
    }
}

/// How one module's weights are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuantSpec {
    /// How the values of a group are encoded.
    pub mode: QuantMode,
    /// Values per group.
    pub group_size: u32,
    /// Bits per value.
    pub bits: u32,
}

impl std::fmt::Display for QuantSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mode {
            QuantMode::Affine => write!(f, "affine {}-bit g{}", self.bits, self.group_size),
            mode => f.write_str(mode.as_str()),
        }
    }
}

/// MLX's quantisation settings: one rule for all modules, and exceptions by module path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantization {
    /// The rule.
    pub default: QuantSpec,
    /// Module path ("model.layers.0.mlp.down_proj") to its own rule; `None` for a module left dense.
    pub overrides: BTreeMap<String, Option<QuantSpec>>,
}

impl Quantization {
    /// The rule for the module at `path`; `None` if it is to be left dense. Whether it *is* quantised the file decides
    /// (it has scales, or has not).
    pub fn for_module(&self, path: &str) -> Option<QuantSpec> {
        self.overrides.get(path).copied().unwrap_or(Some(self.default))
    }

    pub(super) fn parse(value: &Value, path: &Path) -> Result<Self, ModelFileError> {
        let malformed = |what: String| ModelFileError::malformed(path, format!("\"quantization\" {what}"));
        let Value::Object(fields) = value else { return Err(malformed("is no object".to_owned())) };
        let default = parse_spec(value).map_err(malformed)?;
        let mut overrides = BTreeMap::new();
        for (key, value) in fields {
            let rule = match value {
                Value::Bool(false) => None,
                // mlx-lm: true means "by the general rule".
                Value::Bool(true) if key.contains('.') => Some(default),
                Value::Object(_) => {
                    let rule = parse_spec(value);
                    Some(rule.map_err(|what| malformed(format!("for {key:?} {what}")))?)
                }
                _ => continue,
            };
            overrides.insert(key.clone(), rule);
        }
        Ok(Self { default, overrides })
    }
}

/// A rule's three fields. Missing ones do not come from the general rule but from MLX's own defaults, as in mlx-lm,
/// which hands the object to `to_quantized`: without a mode it means affine even beside a general mxfp4.
fn parse_spec(value: &Value) -> Result<QuantSpec, String> {
    let mode = match value.get("mode") {
        None | Some(Value::Null) => QuantMode::Affine,
        Some(name) => {
            let mode = name.as_str().and_then(QuantMode::parse);
            mode.ok_or_else(|| format!("has the unknown mode {name}"))?
        }
    };
    let (group_size, bits) = mode.defaults();
    let number = |key: &str, default: u32| match value.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(number) => {
            let n = number.as_u64().and_then(|n| u32::try_from(n).ok());
            n.ok_or_else(|| format!("has the field {key:?}, which is no small integer"))
        }
    };
    let spec = QuantSpec { mode, group_size: number("group_size", group_size)?, bits: number("bits", bits)? };
    match spec.group_size {
        16 | 32 | 64 | 128 => {}
        n => return Err(format!("has groups of {n}")),
    }
    match spec.bits {
        2..=6 | 8 => Ok(spec),
        n => Err(format!("has {n} bits")),
    }
}

/// A quantisation that another library made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignQuantization {
    /// Its name, lower case: "awq", "gptq", "fp8", "compressed-tensors", "mxfp4", "bitnet", "modelopt", …
    pub scheme: String,
    /// Bits per value, where stated.
    pub bits: Option<u32>,
}

impl ForeignQuantization {
    fn from_fields(scheme: &str, value: &Value) -> Self {
        let bits = ["bits", "w_bit"].into_iter().find_map(|key| value.get(key)?.as_u64()?.try_into().ok());
        Self { scheme: scheme.to_ascii_lowercase(), bits }
    }

    pub(super) fn parse(value: &Value) -> Option<Self> {
        let scheme = value.get("quant_method")?.as_str()?;
        Some(Self::from_fields(scheme, value))
    }
}

impl std::fmt::Display for ForeignQuantization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.bits {
            Some(bits) => write!(f, "{} {bits}-bit", self.scheme),
            None => f.write_str(&self.scheme),
        }
    }
}
