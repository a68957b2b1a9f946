//! Rotary position embedding: the frequencies of all its scalings, and the rotation itself.

use duet_core::BackendError;
use duet_core::model::ModelInfo;
use duet_core::model::config::ModelConfig;

use super::config::unsupported;
use crate::tensor::{Device, Result, Tensor, concat};

/// How the context was extended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RopeScaling {
    None,
    /// Positions divided by a factor.
    Linear(f64),
    /// Long wavelengths stretched by a factor, short ones kept, those between blended.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// A divisor per frequency, as GGUF files state it.
    Factors(Vec<f64>),
    /// A larger base for contexts beyond the original one.
    Dynamic {
        factor: f64,
        original: f64,
    },
}

impl RopeScaling {
    /// As config.json states it: `rope_scaling`, or `rope_parameters` of transformers 5.
    ///
    /// # Errors
    /// `UnsupportedArchitecture` for a scaling that is not here, `ModelFile` for fields that are missing or no numbers.
    pub(super) fn from_json(
        config: &ModelConfig,
        model: &ModelInfo,
    ) -> std::result::Result<Self, BackendError> {
        let Some(scaling) = &model.rope.scaling else { return Ok(Self::None) };
        let fields = match config.object("rope_scaling")? {
            Some(fields) => Some(fields),
            None => config.object("rope_parameters")?,
        };
        let number = |key: &str| {
            let value = fields.and_then(|fields| fields.get(key)?.as_f64()).filter(|value| *value > 0.0);
            value.ok_or_else(|| unsupported(model, format!("its rope scaling has no positive {key:?}")))
        };
        match scaling.kind.as_str() {
            "linear" => Ok(Self::Linear(number("factor")?)),
            "dynamic" => {
                let original = number("original_max_position_embeddings");
                let original = original.unwrap_or_else(|_| model.context_length.into());
                Ok(Self::Dynamic { factor: number("factor")?, original })
            }
            "llama3" => Ok(Self::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: number("original_max_position_embeddings")?,
            }),
            other => Err(Self::unknown(model, other)),
        }
    }

    /// As a GGUF header without factors states it.
    ///
    /// # Errors
    /// `UnsupportedArchitecture`.
    pub(super) fn from_gguf(model: &ModelInfo) -> std::result::Result<Self, BackendError> {
        let Some(scaling) = &model.rope.scaling else { return Ok(Self::None) };
        match (scaling.kind.as_str(), scaling.factor) {
            ("none", _) => Ok(Self::None),
            ("linear", Some(factor)) if factor > 0.0 => Ok(Self::Linear(factor.into())),
            (other, _) => Err(Self::unknown(model, other)),
        }
    }

    fn unknown(model: &ModelInfo, kind: &str) -> BackendError {
        unsupported(model, format!("rope scaling {kind:?}; none, linear, dynamic and llama3 are known"))
    }
}

/// A rotary embedding before it knows the context it is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RopeSpec {
    pub(crate) base: f64,
    /// Values of a head that are rotated; even.
    pub(crate) n_rot: usize,
    /// Whether neighbours rotate together, and not the halves of a head.
    pub(crate) traditional: bool,
    pub(crate) scaling: RopeScaling,
}

impl RopeSpec {
    /// Radians per position of each of the n_rot/2 pairs.
    ///
    /// A dynamic base is fixed for the longest sequence that can come, `context_length`: were it to move with the
    /// sequence's length, keys in the cache would have been rotated with another one.
    pub(crate) fn frequencies(&self, context_length: usize) -> Vec<f64> {
        let n = self.n_rot as f64;
        let base = match self.scaling {
            RopeScaling::Dynamic { factor, original } if context_length as f64 > original => {
                let stretch = factor * context_length as f64 / original - (factor - 1.0);
                self.base * stretch.powf(n / (n - 2.0))
            }
            _ => self.base,
        };
        let plain = (0..self.n_rot / 2).map(|pair| base.powf(-2.0 * pair as f64 / n));
        match &self.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => plain.collect(),
            RopeScaling::Linear(factor) => plain.map(|frequency| frequency / factor).collect(),
            RopeScaling::Factors(factors) => {
                plain.zip(factors).map(|(frequency, factor)| frequency / factor).collect()
            }
            &RopeScaling::Llama3 { factor, low, high, original } => plain
                .map(|frequency| {
                    let turns = original * frequency / std::f64::consts::TAU; // within the original context
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * ((1.0 - kept) / factor + kept)
                })
                .collect(),
        }
    }
}

/// A rotary embedding for one model as loaded.
#[derive(Debug)]
pub(crate) struct Rope {
    frequencies: Vec<f64>,
    traditional: bool,
    /// For kernels: reciprocal frequencies, `[n_rot/2]`.
    periods: Tensor,
    device: Device,
}

/// What a step's tokens are rotated by.
#[derive(Debug)]
pub(crate) enum Rotation {
    /// Cosines and sines, `[n_tokens, n_rot/2]` each, shared by all layers and heads.
    Tables { cos: Tensor, sin: Tensor },
    /// The kernel computes them from each row's first position.
    Kernel,
}

impl Rope {
    pub(crate) fn new(spec: &RopeSpec, context_length: usize, device: Device) -> Self {
        let frequencies = spec.frequencies(context_length);
        let periods: Vec<f32> = frequencies.iter().map(|frequency| (1.0 / frequency) as f32).collect();
        let periods = Tensor::from_f32(&periods, &[periods.len()]);
        Self { frequencies, traditional: spec.traditional, periods, device }
    }

    /// Whether neighbours rotate together, and not the halves of a head.
    pub(crate) fn is_traditional(&self) -> bool {
        self.traditional
    }

    /// What turns the tokens at `positions`.
    ///
    /// On a CPU libmlx computes cosines and sines anew for every layer's queries and keys; here once per step.
    pub(crate) fn rotation(&self, positions: impl Iterator<Item = usize>) -> Rotation {
        if self.device == Device::Gpu && !self.traditional {
            return Rotation::Kernel;
        }
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in positions {
            for frequency in &self.frequencies {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        let shape = [cos.len() / self.frequencies.len(), self.frequencies.len()];
        Rotation::Tables { cos: Tensor::from_f32(&cos, &shape), sin: Tensor::from_f32(&sin, &shape) }
    }

    /// `x`, `[n_heads, n, head_dim]`, turned; `first` is the position of its first token.
    pub(crate) fn apply(&self, x: &Tensor, rotation: &Rotation, first: usize) -> Result<Tensor> {
        let [heads, n, dim] = [0, 1, 2].map(|axis| x.len(axis));
        let Rotation::Tables { cos, sin } = rotation else {
            let turned = x.reshape(&[1, heads, n, dim])?.fused_rope(dim, first, &self.periods)?;
            return turned.reshape(&[heads, n, dim]);
        };
        let half = dim / 2;
        let (one, other) = if self.traditional {
            let pairs = x.reshape(&[heads, n, half, 2])?;
            let side =
                |at| pairs.slice(&[0, 0, 0, at], &[heads, n, half, at + 1])?.reshape(&[heads, n, half]);
            (side(0)?, side(1)?)
        } else {
            (x.slice(&[0, 0, 0], &[heads, n, half])?, x.slice(&[0, 0, half], &[heads, n, dim])?)
        };
        let (cos, sin) = (cos.cast(x.element_type())?, sin.cast(x.element_type())?);
        let first = one.multiply(&cos)?.subtract(&other.multiply(&sin)?)?;
        let second = other.multiply(&cos)?.add(&one.multiply(&sin)?)?;
        if !self.traditional {
            return concat(&[first, second], 2);
        }
        let shape = [heads, n, half, 1];
        concat(&[first.reshape(&shape)?, second.reshape(&shape)?], 3)?.reshape(&[heads, n, dim])
    }
}
