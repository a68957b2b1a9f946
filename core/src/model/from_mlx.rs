//! An MLX directory's config.json and safetensors headers as [`ModelInfo`].

use std::path::Path;

use super::config::ModelConfig;
use super::info::{
    LayerInfo, LayerKind, ModelFormat, ModelInfo, RopeInfo, RopeScaling, TokenizerKind, WindowPattern,
};
use super::mlx_extras::Extras;
use super::mlx_weights::Weights;
use super::safetensors::SafetensorsDir;
use super::windows::{self, Period};
use super::{ModelFileError, quantization};

const MAX_LAYERS: u32 = 4096;

/// Describes the directory `dir`.
pub(super) fn describe(dir: &Path) -> Result<ModelInfo, ModelFileError> {
    let config = ModelConfig::read(dir)?;
    let weights = SafetensorsDir::open(dir)?;
    describe_parts(dir, &config, &weights)
}

fn describe_parts(
    dir: &Path,
    config: &ModelConfig,
    files: &SafetensorsDir,
) -> Result<ModelInfo, ModelFileError> {
    let architecture = config.model_type()?;
    let defaults = FamilyDefaults::of(config, architecture);
    let n_layers = config.require_u32("num_hidden_layers")?;
    if n_layers == 0 {
        return Err(config.malformed("it has no layers"));
    }
    if n_layers > MAX_LAYERS {
        let (what, value, limit) = ("num_hidden_layers".to_owned(), n_layers.into(), MAX_LAYERS.into());
        return Err(ModelFileError::LimitExceeded { path: config.path().to_owned(), what, value, limit });
    }
    let hidden_size = config.require_u32("hidden_size")?;
    let layers = layers(config, architecture, &defaults, n_layers, hidden_size)?;
    let largest = |of: fn(&LayerInfo) -> u32| layers.iter().map(of).max().unwrap_or(0);
    let weights = Weights::of(files, config)?;
    let extras = Extras::read(dir, config)?;
    let first = |keys: &[&str]| -> Result<Option<u32>, ModelFileError> {
        keys.iter().find_map(|key| config.u32(key).transpose()).transpose()
    };
    let context_length = first(&["max_position_embeddings", "n_positions", "max_seq_len"])?;
    let context_length = context_length.or(defaults.context_length);
    Ok(ModelInfo {
        path: dir.to_owned(),
        format: ModelFormat::MlxDirectory,
        name: config.str("_name_or_path")?.filter(|name| !name.is_empty()).map(str::to_owned),
        architecture: architecture.to_owned(),
        n_params: weights.n_params,
        quantization: weights.label.clone(),
        bits_per_weight: quantization::bits_per_weight(weights.bytes, weights.n_params),
        context_length: match context_length {
            Some(context_length) => context_length,
            None => config.require_u32("max_position_embeddings")?,
        },
        n_layers,
        hidden_size,
        intermediate_size: config.largest_u32("intermediate_size")?.unwrap_or(0),
        n_heads: largest(|layer| layer.n_heads),
        n_kv_heads: largest(|layer| layer.n_kv_heads),
        head_dim_k: largest(|layer| layer.head_dim_k),
        head_dim_v: largest(|layer| layer.head_dim_v),
        window: WindowPattern::of(&layers),
        n_experts: first(&["num_local_experts", "num_experts", "n_routed_experts"])?.unwrap_or(0),
        n_experts_used: first(&["num_experts_per_tok", "experts_per_token", "top_k_experts"])?.unwrap_or(0),
        vocab_size: match config.u32("vocab_size")?.or(defaults.vocab_size) {
            Some(n) => n,
            None => weights.embedding_rows.map_or_else(|| config.require_u32("vocab_size"), Ok)?,
        },
        // The file decides where config.json is silent: its default differs by library.
        tied_embeddings: config.bool("tie_word_embeddings")?.unwrap_or(!weights.has_head),
        rope: rope(config, &layers[0])?,
        layers,
        tokenizer: tokenizer(dir),
        chat_template: extras.chat_template,
        bos_token_id: extras.bos_token_id,
        eos_token_ids: extras.eos_token_ids,
        generation_defaults: extras.generation_defaults,
        encoder: false,
        ranks: false,
        pooling: extras.pooling,
        split: weights.split,
        file_bytes: files.file_bytes(),
        weight_bytes: weights.bytes,
        files: files.files(),
    })
}

/// What config.json may leave out because the libraries' classes have it as a default.
#[derive(Default)]
struct FamilyDefaults {
    n_heads: Option<u32>,
    n_kv_heads: Option<u32>,
    head_dim: Option<u32>,
    context_length: Option<u32>,
    vocab_size: Option<u32>,
    window: Option<u32>,
}

impl FamilyDefaults {
    fn of(config: &ModelConfig, architecture: &str) -> Self {
        let nested = config.root().get("text_config").is_some();
        match architecture {
            // Published Gemma 3 files name only what differs from these; the 4B is what a nested one starts from.
            "gemma3" | "gemma3_text" if nested => Self {
                n_heads: Some(8),
                n_kv_heads: Some(4),
                head_dim: Some(256),
                context_length: Some(131_072),
                vocab_size: Some(262_208),
                window: Some(1024),
            },
            "gemma3_text" => Self {
                n_heads: Some(4),
                n_kv_heads: Some(1),
                head_dim: Some(256),
                context_length: Some(32_768),
                vocab_size: Some(262_144),
                window: Some(512),
            },
            "gpt_oss" => Self { head_dim: Some(64), window: Some(128), ..Self::default() },
            // transformers' class default, which most files repeat and some leave out.
            "qwen3" => Self { head_dim: Some(128), ..Self::default() },
            _ => Self::default(),
        }
    }
}

fn layers(
    config: &ModelConfig,
    architecture: &str,
    defaults: &FamilyDefaults,
    n_layers: u32,
    hidden_size: u32,
) -> Result<Vec<LayerInfo>, ModelFileError> {
    let n_heads = match config.u32("num_attention_heads")?.or(defaults.n_heads) {
        Some(n) => n,
        None => config.require_u32("num_attention_heads")?,
    };
    let n_kv_heads = config.u32("num_key_value_heads")?.or(defaults.n_kv_heads).unwrap_or(n_heads);
    let head_dim = config.u32("head_dim")?.or(defaults.head_dim);
    let head_dim = head_dim.or(hidden_size.checked_div(n_heads)).unwrap_or(0);
    if n_kv_heads == 0 || head_dim == 0 {
        return Err(config.malformed("attention heads have no number or no size"));
    }
    let windows = windows(config, architecture, defaults, n_layers)?;
    let kinds = kinds(config, n_layers)?;
    let layer = |(window, kind): (Option<u32>, LayerKind)| LayerInfo {
        kind,
        n_heads,
        n_kv_heads,
        head_dim_k: head_dim,
        head_dim_v: head_dim,
        window: window.filter(|_| kind == LayerKind::Attention || kind == LayerKind::SharedKv),
    };
    Ok(windows.into_iter().zip(kinds).map(layer).collect())
}

/// `layer_types`, one name per layer.
fn layer_types(config: &ModelConfig, n_layers: u32) -> Result<Option<Vec<&str>>, ModelFileError> {
    let Some(types) = config.array("layer_types")? else { return Ok(None) };
    let names: Option<Vec<&str>> = types.iter().map(|name| name.as_str()).collect();
    match names.filter(|names| names.len() == n_layers as usize) {
        Some(names) => Ok(Some(names)),
        None => Err(config.malformed(format!("\"layer_types\" is no list of {n_layers} names"))),
    }
}

/// The window of each layer.
fn windows(
    config: &ModelConfig,
    architecture: &str,
    defaults: &FamilyDefaults,
    n_layers: u32,
) -> Result<Vec<Option<u32>>, ModelFileError> {
    let none = Ok(vec![None; n_layers as usize]);
    let window = config.u32("sliding_window")?.or(defaults.window).filter(|&window| window > 0);
    let chunk = config.u32("attention_chunk_size")?.filter(|&chunk| chunk > 0);
    if let Some(types) = layer_types(config, n_layers)? {
        let windowed = types.into_iter().map(|name| match name {
            "sliding_attention" => match window {
                Some(window) => Ok(Some(window)),
                None => Err(config.malformed("it has windowed layers and no \"sliding_window\"")),
            },
            "chunked_attention" => match chunk {
                Some(chunk) => Ok(Some(chunk)),
                None => Err(config.malformed("it has chunked layers and no \"attention_chunk_size\"")),
            },
            _ => Ok(None),
        });
        return windowed.collect();
    }
    let family = windows::family_period(architecture, n_layers);
    let mut stated = ["sliding_window_pattern", "_sliding_window_pattern"].into_iter();
    let stated = stated.find_map(|key| config.get(key)?.as_u64()).and_then(|n| u32::try_from(n).ok());
    let period = family.map(|family| Period { period: stated.unwrap_or(family.period), ..family });
    match (window.or(chunk), period) {
        (Some(window), Some(period)) => {
            let windows = (0..n_layers).map(|layer| period.is_windowed(layer).then_some(window));
            Ok(windows.collect())
        }
        _ => none,
    }
}

/// What each layer remembers.
fn kinds(config: &ModelConfig, n_layers: u32) -> Result<Vec<LayerKind>, ModelFileError> {
    /// Fields that only families with states of fixed size have.
    const STATE_FIELDS: [&str; 8] = [
        "state_size",
        "ssm_cfg",
        "mamba_d_state",
        "ssm_state_size",
        "conv_L_cache",
        "linear_conv_kernel_dim",
        "linear_attn_config",
        "hybrid_override_pattern",
    ];
    let latent = config.u32("kv_lora_rank")?.is_some_and(|rank| rank > 0);
    let shared = config.u32("num_kv_shared_layers")?.unwrap_or(0).min(n_layers);
    let first_shared = (n_layers - shared) as usize;
    let has_states = STATE_FIELDS.iter().any(|field| config.get(field).is_some());
    let interval = config.u32("full_attention_interval")?.filter(|&interval| interval > 0);
    let types = layer_types(config, n_layers)?;
    let kind = |index: usize| {
        let is_attention = match (&types, interval) {
            (Some(types), _) => types[index].ends_with("attention") && types[index] != "linear_attention",
            (None, Some(interval)) if has_states => (index + 1).is_multiple_of(interval as usize),
            (None, _) => !has_states,
        };
        match (is_attention, latent, index >= first_shared) {
            (false, ..) => LayerKind::Recurrent,
            (true, true, _) => LayerKind::Latent,
            (true, false, true) => LayerKind::SharedKv,
            (true, false, false) => LayerKind::Attention,
        }
    };
    Ok((0..n_layers as usize).map(kind).collect())
}

fn rope(config: &ModelConfig, layer: &LayerInfo) -> Result<RopeInfo, ModelFileError> {
    let number = |object: Option<&serde_json::Map<_, serde_json::Value>>, key: &str| {
        object.and_then(|object: &serde_json::Map<String, _>| object.get(key)?.as_f64()).map(|n| n as f32)
    };
    // transformers 5 writes one object in place of rope_theta and rope_scaling, of one rule or one per layer type.
    let parameters = config.object("rope_parameters")?;
    let by_type = |name: &str| parameters.and_then(|object| object.get(name)?.as_object());
    let main = by_type("full_attention").or(parameters);
    let windowed = by_type("sliding_attention");
    let scaling = config.object("rope_scaling")?.or(main);
    let freq_base = config.f32("rope_theta")?.or(number(main, "rope_theta")).unwrap_or(10_000.0);
    let freq_base_window = config.f32("rope_local_base_freq")?.or(number(windowed, "rope_theta"));
    let partial =
        config.f32("partial_rotary_factor")?.or(number(main, "partial_rotary_factor")).unwrap_or(1.0);
    let kind = scaling
        .and_then(|object| ["rope_type", "type"].into_iter().find_map(|key| object.get(key)?.as_str()));
    let kind = kind.filter(|&kind| kind != "default").map(str::to_owned);
    let original = scaling.and_then(|object| object.get("original_max_position_embeddings")?.as_u64());
    let original = original.and_then(|n| u32::try_from(n).ok());
    Ok(RopeInfo {
        freq_base,
        freq_base_window,
        n_rot: (layer.head_dim_k as f32 * partial.clamp(0.0, 1.0)) as u32,
        scaling: kind.map(|kind| RopeScaling {
            kind,
            factor: number(scaling, "factor"),
            original_context_length: original,
        }),
    })
}

fn tokenizer(dir: &Path) -> TokenizerKind {
    if dir.join("tokenizer.json").is_file() {
        TokenizerKind::HuggingFace
    } else if dir.join("tokenizer.model").is_file() {
        TokenizerKind::SentencePiece
    } else {
        TokenizerKind::Missing
    }
}
