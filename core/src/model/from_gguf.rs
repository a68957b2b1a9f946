//! A GGUF header as [`ModelInfo`].

use super::gguf::{GgufFile, Metadata, TensorInfo, Value};
use super::info::{
    GenerationDefaults, LayerInfo, LayerKind, ModelFormat, ModelInfo, RopeInfo, RopeScaling, TokenizerKind,
    WeightSplit, WindowPattern,
};
use super::windows::{self, Period};
use super::{ModelFileError, quantization};
use crate::embedding::Pooling;

/// As in llama.cpp, which stops the process beyond it.
const MAX_LAYERS: u32 = 512;

/// llama.cpp's number for models that score pairs of texts.
const RANK: u32 = 4;

/// Describes an opened file.
pub(super) fn describe(file: &GgufFile) -> Result<ModelInfo, ModelFileError> {
    let meta = file.metadata();
    let architecture = architecture(file)?;
    let keys = Keys { meta, architecture };
    let n_blocks = keys.require_u32("block_count")?;
    let n_layers = n_blocks.saturating_sub(keys.u32("nextn_predict_layers")?.unwrap_or(0));
    if n_layers == 0 {
        return Err(meta.malformed("it has no layers"));
    }
    if n_layers > MAX_LAYERS {
        let (what, value, limit) = ("the number of layers".to_owned(), n_layers.into(), MAX_LAYERS.into());
        return Err(ModelFileError::LimitExceeded { path: file.path().to_owned(), what, value, limit });
    }
    let hidden_size = keys.require_u32("embedding_length")?;
    let layers = layers(&keys, n_layers, hidden_size)?;
    let largest = |of: fn(&LayerInfo) -> u32| layers.iter().map(of).max().unwrap_or(0);
    let totals = Totals::of(file.tensors());
    let pooling_type = keys.u32("pooling_type")?;
    let tied_embeddings = file.tensor("output.weight").is_none();
    Ok(ModelInfo {
        path: file.path().to_owned(),
        format: ModelFormat::Gguf,
        name: meta.str("general.name")?.map(str::to_owned),
        architecture: architecture.to_owned(),
        n_params: totals.n_params,
        quantization: quantization::gguf_label(file),
        bits_per_weight: quantization::bits_per_weight(totals.bytes, totals.n_params),
        context_length: keys.require_u32("context_length")?,
        n_layers,
        hidden_size,
        intermediate_size: keys.largest_u32("feed_forward_length")?.unwrap_or(0),
        n_heads: largest(|layer| layer.n_heads),
        n_kv_heads: largest(|layer| layer.n_kv_heads),
        head_dim_k: largest(|layer| layer.head_dim_k),
        head_dim_v: largest(|layer| layer.head_dim_v),
        window: WindowPattern::of(&layers),
        layers,
        n_experts: keys.u32("expert_count")?.unwrap_or(0),
        n_experts_used: keys.largest_u32("expert_used_count")?.unwrap_or(0),
        vocab_size: vocab_size(file, &keys)?,
        tied_embeddings,
        rope: rope(file, &keys, hidden_size)?,
        tokenizer: tokenizer(meta)?,
        chat_template: meta.str("tokenizer.chat_template")?.map(str::to_owned),
        bos_token_id: meta.u32("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: eos_ids(meta)?,
        generation_defaults: generation_defaults(meta)?,
        pooling: match pooling_type {
            Some(1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::First),
            Some(3) => Some(Pooling::Last),
            _ => None,
        },
        encoder: is_encoder(&keys)?,
        ranks: pooling_type == Some(RANK)
            && ["cls.weight", "cls.output.weight"].iter().any(|name| file.tensor(name).is_some()),
        split: totals.split,
        file_bytes: file.file_bytes(),
        weight_bytes: totals.bytes,
        files: file.files(),
    })
}

/// The family, of files that hold a language model.
fn architecture(file: &GgufFile) -> Result<&str, ModelFileError> {
    let meta = file.metadata();
    let not_a_model = |why: String| ModelFileError::NotAModel { path: file.path().to_owned(), why };
    match meta.str("general.type")? {
        None | Some("model") => {}
        Some(other) => return Err(not_a_model(format!("a GGUF file of the type {other:?}"))),
    }
    match meta.require_str("general.architecture")? {
        "clip" => Err(not_a_model("a vision projector; name the language model it belongs to".to_owned())),
        "" => Err(meta.malformed("the key \"general.architecture\" is empty")),
        architecture => Ok(architecture),
    }
}

/// Keys that begin with the architecture's name.
struct Keys<'a> {
    meta: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn has(&self, name: &str) -> bool {
        self.meta.get(&self.key(name)).is_some()
    }

    fn u32(&self, name: &str) -> Result<Option<u32>, ModelFileError> {
        self.meta.u32(&self.key(name))
    }

    fn f32(&self, name: &str) -> Result<Option<f32>, ModelFileError> {
        self.meta.f32(&self.key(name))
    }

    fn require_u32(&self, name: &str) -> Result<u32, ModelFileError> {
        self.meta.require_u32(&self.key(name))
    }

    /// A value per layer, from a single integer or an array of at least `n` of them.
    fn per_layer(&self, name: &str, n: u32) -> Result<Option<Vec<u32>>, ModelFileError> {
        let key = self.key(name);
        let Some(Value::Array(array)) = self.meta.get(&key) else {
            return Ok(self.meta.u32(&key)?.map(|value| vec![value; n as usize]));
        };
        let wrong = || self.meta.malformed(format!("the key {key:?} is no array of {n} small integers"));
        if array.len() < n as usize {
            return Err(wrong());
        }
        let values = array.iter().take(n as usize).map(|value| value.as_u64()?.try_into().ok());
        values.collect::<Option<Vec<u32>>>().map(Some).ok_or_else(wrong)
    }

    /// A flag per layer, from an array of at least `n` of them.
    fn per_layer_flags(&self, name: &str, n: u32) -> Result<Vec<bool>, ModelFileError> {
        let key = self.key(name);
        let array = self.meta.array(&key)?;
        let flags = array.filter(|array| array.len() >= n as usize).and_then(|array| array.to_bools());
        flags.ok_or_else(|| self.meta.malformed(format!("the key {key:?} is no array of {n} booleans")))
    }

    /// The largest of a value per layer; a single integer is that.
    fn largest_u32(&self, name: &str) -> Result<Option<u32>, ModelFileError> {
        let key = self.key(name);
        let Some(Value::Array(array)) = self.meta.get(&key) else { return self.meta.u32(&key) };
        let largest = array.iter().map(|value| value.as_u64()).max().flatten();
        match largest.map(u32::try_from) {
            Some(Ok(value)) => Ok(Some(value)),
            _ => Err(self.meta.malformed(format!("the key {key:?} is no array of small integers"))),
        }
    }
}

fn layers(keys: &Keys<'_>, n_layers: u32, hidden_size: u32) -> Result<Vec<LayerInfo>, ModelFileError> {
    let heads = keys.per_layer("attention.head_count", n_layers)?;
    let heads = heads.unwrap_or_else(|| vec![0; n_layers as usize]);
    let kv_heads = keys.per_layer("attention.head_count_kv", n_layers)?.unwrap_or_else(|| heads.clone());
    // As in llama.cpp: the default head size is that of the first layer.
    let derived = hidden_size.checked_div(heads[0]).unwrap_or(0);
    let head_dim_k = keys.u32("attention.key_length")?.unwrap_or(derived);
    let head_dim_v = keys.u32("attention.value_length")?.unwrap_or(derived);
    let window_dim_k = keys.u32("attention.key_length_swa")?.unwrap_or(head_dim_k);
    let window_dim_v = keys.u32("attention.value_length_swa")?.unwrap_or(head_dim_v);
    let windows = windows(keys, n_layers)?;
    let kinds = Kinds::read(keys, n_layers)?;
    let layers = (0..n_layers as usize).map(|index| {
        let window = windows[index];
        let n_kv_heads = kv_heads[index];
        LayerInfo {
            kind: kinds.of(index, n_kv_heads),
            n_heads: heads[index],
            n_kv_heads,
            head_dim_k: if window.is_some() { window_dim_k } else { head_dim_k },
            head_dim_v: if window.is_some() { window_dim_v } else { head_dim_v },
            window,
        }
    });
    let layers: Vec<_> = layers.collect();
    let incomplete = |layer: &LayerInfo| layer.kind == LayerKind::Attention && layer.head_dim_k == 0;
    match layers.iter().any(incomplete) {
        true => Err(keys.meta.malformed("attention heads have no size")),
        false => Ok(layers),
    }
}

/// The window of each layer.
fn windows(keys: &Keys<'_>, n_layers: u32) -> Result<Vec<Option<u32>>, ModelFileError> {
    const PATTERN: &str = "attention.sliding_window_pattern";
    let none = Ok(vec![None; n_layers as usize]);
    let stated = keys.u32("attention.sliding_window")?;
    let window = match windows::fixed_window(keys.architecture) {
        Some(fixed) if stated != Some(0) => fixed,
        _ => stated.unwrap_or(0),
    };
    if window == 0 || windows::ignores_windows(keys.architecture) {
        return none;
    }
    let family = windows::family_period(keys.architecture, n_layers);
    let is_windowed: Vec<bool> = match keys.meta.get(&keys.key(PATTERN)) {
        Some(Value::Array(_)) => keys.per_layer_flags(PATTERN, n_layers)?,
        Some(_) => {
            let period = keys.u32(PATTERN)?.unwrap_or(1);
            let period = Period { period, full_first: family.is_some_and(|family| family.full_first) };
            (0..n_layers).map(|layer| period.is_windowed(layer)).collect()
        }
        None => match family {
            Some(period) => (0..n_layers).map(|layer| period.is_windowed(layer)).collect(),
            None => return none,
        },
    };
    let windows = is_windowed.into_iter().take(n_layers as usize);
    Ok(windows.map(|windowed| windowed.then_some(window)).collect())
}

/// What decides a layer's kind.
struct Kinds {
    /// Nothing is kept of any token.
    encoder: bool,
    latent: bool,
    /// Whether some layers keep a state of fixed size.
    hybrid: bool,
    /// Which ones, where that is stated.
    recurrent: Option<Vec<bool>>,
    /// Layers from here on use the keys and values of earlier ones.
    first_shared: usize,
}

impl Kinds {
    fn read(keys: &Keys<'_>, n_layers: u32) -> Result<Self, ModelFileError> {
        const STATE_KEYS: [&str; 5] =
            ["ssm.state_size", "ssm.conv_kernel", "wkv.head_size", "shortconv.l_cache", "kda.head_dim"];
        let shared = match keys.architecture {
            // llama.cpp has this number in its code.
            "gemma3n" => n_layers.saturating_sub(20),
            _ => keys.u32("attention.shared_kv_layers")?.unwrap_or(0),
        };
        let recurrent = match keys.has("attention.recurrent_layers") {
            true => Some(keys.per_layer_flags("attention.recurrent_layers", n_layers)?),
            false => keys
                .u32("full_attention_interval")?
                .filter(|&interval| interval > 0)
                .map(|interval| (1..=n_layers).map(|ordinal| ordinal % interval != 0).collect()),
        };
        Ok(Self {
            encoder: is_encoder(keys)?,
            latent: keys.has("attention.kv_lora_rank"),
            hybrid: STATE_KEYS.iter().any(|key| keys.has(key)),
            recurrent,
            first_shared: n_layers.saturating_sub(shared) as usize,
        })
    }

    fn of(&self, layer: usize, n_kv_heads: u32) -> LayerKind {
        if self.encoder {
            return LayerKind::Stateless;
        }
        let stated = self.recurrent.as_ref().map(|flags| flags[layer]);
        match (self.hybrid, stated, n_kv_heads) {
            (true, Some(false), _) => {}
            // Without a list, a hybrid's attention layers are those with heads where the number is given per layer;
            // a single number says nothing, and then no layer is taken for plain attention.
            (true, Some(true) | None, _) => return LayerKind::Recurrent,
            (false, _, 0) => return LayerKind::Stateless,
            (false, ..) => {}
        }
        match (self.latent, layer >= self.first_shared) {
            (true, _) => LayerKind::Latent,
            (false, true) => LayerKind::SharedKv,
            (false, false) => LayerKind::Attention,
        }
    }
}

/// Whether attention goes both ways. Diffusion models are so too, and generate; llama.cpp tells them by their names.
fn is_encoder(keys: &Keys<'_>) -> Result<bool, ModelFileError> {
    const DIFFUSION: [&str; 4] = ["dream", "llada", "llada-moe", "rnd1"];
    let causal = keys.meta.bool(&keys.key("attention.causal"))?.unwrap_or(true);
    Ok(!causal && !DIFFUSION.contains(&keys.architecture))
}

/// Sums over the tensor table.
#[derive(Default)]
struct Totals {
    n_params: u64,
    bytes: u64,
    split: WeightSplit,
}

impl Totals {
    fn of<'a>(tensors: impl Iterator<Item = &'a TensorInfo>) -> Self {
        let mut totals = Self::default();
        for tensor in tensors {
            // Saturating: bytes are bounded by the files' lengths, but zero-sized rows of many columns are not.
            let (n, bytes) = (tensor.n_elements(), tensor.n_bytes);
            totals.n_params = totals.n_params.saturating_add(n);
            totals.bytes = totals.bytes.saturating_add(bytes);
            let split = &mut totals.split;
            if tensor.name == "token_embd.weight" {
                (split.embedding_params, split.embedding_bytes) = (n, bytes);
            } else if tensor.name.contains("_exps.") {
                split.expert_params = split.expert_params.saturating_add(n);
                split.expert_bytes = split.expert_bytes.saturating_add(bytes);
            }
        }
        totals
    }
}

fn vocab_size(file: &GgufFile, keys: &Keys<'_>) -> Result<u32, ModelFileError> {
    let rows = file.tensor("token_embd.weight").and_then(|tensor| tensor.dims.get(1).copied());
    let rows = rows.and_then(|rows| u32::try_from(rows).ok());
    let tokens = file.metadata().array("tokenizer.ggml.tokens")?.map(|tokens| tokens.len() as u32);
    match rows.or(tokens) {
        Some(n) => Ok(n),
        None => Ok(keys.u32("vocab_size")?.unwrap_or(0)),
    }
}

fn rope(file: &GgufFile, keys: &Keys<'_>, hidden_size: u32) -> Result<RopeInfo, ModelFileError> {
    let heads = keys.largest_u32("attention.head_count")?.unwrap_or(0);
    let head_dim = keys.u32("attention.key_length")?.or(hidden_size.checked_div(heads)).unwrap_or(0);
    let kind = keys.meta.str(&keys.key("rope.scaling.type"))?.map(str::to_owned);
    let factor = match keys.f32("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.f32("rope.scale_linear")?,
    };
    let factor = factor.filter(|&factor| factor != 0.0);
    let has_factors = file.tensor("rope_freqs.weight").is_some();
    let kind = match kind.as_deref() {
        None | Some("none") if has_factors => Some("factors".to_owned()),
        Some("none") => None,
        None => factor.map(|_| "linear".to_owned()),
        Some(_) => kind,
    };
    let original_context_length = keys.u32("rope.scaling.original_context_length")?;
    Ok(RopeInfo {
        freq_base: keys.f32("rope.freq_base")?.unwrap_or(10_000.0),
        freq_base_window: keys.f32("rope.freq_base_swa")?,
        n_rot: keys.u32("rope.dimension_count")?.unwrap_or(head_dim),
        scaling: kind.map(|kind| RopeScaling { kind, factor, original_context_length }),
    })
}

fn tokenizer(meta: &Metadata) -> Result<TokenizerKind, ModelFileError> {
    let pre = meta.str("tokenizer.ggml.pre")?.map(str::to_owned);
    Ok(match meta.str("tokenizer.ggml.model")? {
        None | Some("none" | "no_vocab") => TokenizerKind::Missing,
        Some(model) => TokenizerKind::Gguf { model: model.to_owned(), pre },
    })
}

/// End of sequence, of turn and of message; llama.cpp finds more by the tokens' texts.
fn eos_ids(meta: &Metadata) -> Result<Vec<u32>, ModelFileError> {
    let mut ids = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ids.extend(meta.u32(&format!("tokenizer.ggml.{name}_token_id"))?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn generation_defaults(meta: &Metadata) -> Result<GenerationDefaults, ModelFileError> {
    // Written by newer converters only; a wrong type here is no reason to refuse a model that runs.
    let f32 = |name: &str| meta.f32(&format!("general.sampling.{name}")).ok().flatten();
    let top_k = meta.get("general.sampling.top_k").and_then(|value| value.as_u64()?.try_into().ok());
    Ok(GenerationDefaults {
        temperature: f32("temp"),
        top_p: f32("top_p"),
        top_k,
        min_p: f32("min_p"),
        repetition_penalty: f32("penalty_repeat"),
    })
}
