//! The sizes and choices of a decoder, read from either format's header.

use duet_core::BackendError;
use duet_core::model::config::ModelConfig;
use duet_core::model::gguf::{GgmlType, GgufFile};
use duet_core::model::{ModelFileError, ModelFormat, ModelInfo};

use super::family::Family;
use super::rope::{RopeScaling, RopeSpec};

/// Which projections have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Biases {
    /// Q, K and V.
    pub(crate) qkv: bool,
    /// The attention's output.
    pub(crate) out: bool,
    /// Gate, up and down.
    pub(crate) mlp: bool,
}

/// A pre-norm decoder with rotary attention and SwiGLU.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DecoderConfig {
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) vocab_size: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Added under the root of every norm.
    pub(crate) eps: f32,
    /// Whether the head is the embedding table.
    pub(crate) tied: bool,
    /// Whether each head's queries and keys are normalised.
    pub(crate) qk_norm: bool,
    pub(crate) biases: Biases,
    /// Each layer's attention window; `None`: everything before.
    pub(crate) windows: Vec<Option<usize>>,
    pub(crate) rope: RopeSpec,
}

impl DecoderConfig {
    /// The configuration of `model`, whose files are read again where [`ModelInfo`] does not say enough.
    ///
    /// # Errors
    /// `UnsupportedArchitecture` with what is in the way, `Unsupported` for a rotary scaling that duet does not have,
    /// `ModelFile` for contradictions.
    pub(crate) fn of(model: &ModelInfo, family: &Family) -> Result<Self, BackendError> {
        check_sizes(model, family)?;
        let mut config = Self {
            hidden_size: model.hidden_size as usize,
            intermediate_size: model.intermediate_size as usize,
            vocab_size: model.vocab_size as usize,
            n_heads: model.n_heads as usize,
            n_kv_heads: model.n_kv_heads as usize,
            head_dim: model.head_dim_k as usize,
            eps: 1e-5,
            tied: model.tied_embeddings,
            qk_norm: family.qk_norm,
            biases: Biases::default(),
            windows: model.layers.iter().map(|layer| layer.window.map(|window| window as usize)).collect(),
            rope: RopeSpec {
                base: model.rope.freq_base.into(),
                n_rot: model.rope.n_rot as usize,
                traditional: false,
                scaling: RopeScaling::None,
            },
        };
        match model.format {
            ModelFormat::MlxDirectory => config.read_json(model, family)?,
            ModelFormat::Gguf => config.read_gguf(model)?,
        }
        Ok(config)
    }

    fn read_json(&mut self, model: &ModelInfo, family: &Family) -> Result<(), BackendError> {
        let json = ModelConfig::read(&model.path)?;
        if let Some(act) = json.str("hidden_act")?.filter(|act| *act != "silu") {
            return Err(unsupported(model, format!("its activation is {act:?}, and only \"silu\" is known")));
        }
        self.eps = json.f32("rms_norm_eps")?.unwrap_or(family.default_eps);
        self.biases = (family.biases)(&json)?;
        self.rope.traditional = json.bool("rope_traditional")?.unwrap_or(false);
        self.rope.scaling = RopeScaling::from_json(&json, model)?;
        Ok(())
    }

    fn read_gguf(&mut self, model: &ModelInfo) -> Result<(), BackendError> {
        let file = GgufFile::open(&model.path)?;
        let key = |name: &str| format!("{}.{name}", model.architecture);
        let eps = file.metadata().f32(&key("attention.layer_norm_rms_epsilon"))?;
        self.eps = eps.ok_or_else(|| malformed(model, "it states no epsilon for its norms"))?;
        let has = |name: &str| file.tensor(&format!("blk.0.{name}.bias")).is_some();
        self.biases = Biases { qkv: has("attn_q"), out: has("attn_output"), mlp: has("ffn_down") };
        self.rope.scaling = match file.tensor("rope_freqs.weight") {
            Some(factors) => {
                let n = self.head_dim as u64 / 2;
                if factors.ggml_type != GgmlType::F32 || factors.dims != [n] {
                    return Err(malformed(model, format!("\"rope_freqs.weight\" is not F32 [{n}]")));
                }
                let bytes = file.tensor_data(factors)?;
                let factors = bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word).into());
                RopeScaling::Factors(factors.collect())
            }
            None => RopeScaling::from_gguf(model)?,
        };
        Ok(())
    }
}

fn check_sizes(model: &ModelInfo, family: &Family) -> Result<(), BackendError> {
    let detail = if model.is_moe() {
        "it has experts".to_owned()
    } else if model.head_dim_k != model.head_dim_v {
        format!("its keys have {} values per head and its values {}", model.head_dim_k, model.head_dim_v)
    } else if model.rope.n_rot != model.head_dim_k || !model.head_dim_k.is_multiple_of(2) {
        format!("{} of {} values of a head are rotated", model.rope.n_rot, model.head_dim_k)
    } else if model.n_kv_heads == 0 || !model.n_heads.is_multiple_of(model.n_kv_heads) {
        format!("{} heads do not share {} key/value heads evenly", model.n_heads, model.n_kv_heads)
    } else if let Some(layer) = model.layers.iter().find(|layer| {
        (layer.n_heads, layer.n_kv_heads, layer.head_dim_k)
            != (model.n_heads, model.n_kv_heads, model.head_dim_k)
    }) {
        format!("its layers differ in their heads ({} and {})", model.n_heads, layer.n_heads)
    } else if model.intermediate_size == 0 || model.hidden_size == 0 || model.vocab_size == 0 {
        "a size is missing".to_owned()
    } else if model.rope.freq_base <= 0.0 || model.rope.freq_base_window.is_some() {
        format!("its rotary base is not one positive number for all layers, as {} has", family.name)
    } else {
        return Ok(());
    };
    Err(unsupported(model, detail))
}

pub(super) fn unsupported(model: &ModelInfo, detail: impl Into<String>) -> BackendError {
    BackendError::UnsupportedArchitecture {
        architecture: model.architecture.clone(),
        backend: crate::ID,
        detail: detail.into(),
    }
}

fn malformed(model: &ModelInfo, what: impl Into<String>) -> BackendError {
    ModelFileError::Malformed { path: model.path.clone(), what: what.into(), offset: None }.into()
}
