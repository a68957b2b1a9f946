//! What a model's headers say, in one shape for both formats.
//!
//! Knows nothing about engines: whether one of them can run the model is for its `probe` to say.

use std::path::PathBuf;

use crate::embedding::Pooling;

/// How a model lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelFormat {
    /// One .gguf file, or a set of `-00001-of-0000N.gguf` shards.
    Gguf,
    /// A directory with config.json and safetensors files.
    MlxDirectory,
}

impl ModelFormat {
    /// "gguf" or "mlx".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::MlxDirectory => "mlx",
        }
    }
}

/// A model as its headers describe it; no weight is read for any of this.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// What was inspected: the (first) .gguf file, or the MLX directory.
    pub path: PathBuf,
    /// How it lies on disk.
    pub format: ModelFormat,
    /// The name the model gives itself (`general.name`, `_name_or_path`), if any.
    pub name: Option<String>,
    /// The family in the format's own words: GGUF `general.architecture` ("llama", "qwen3", "gpt-oss"), MLX
    /// `model_type` ("llama", "qwen3", "gpt_oss"); of nested configurations the text part's.
    pub architecture: String,
    /// Weights, counted before quantisation; scales, biases of groups and the like are not counted.
    pub n_params: u64,
    /// How most weights are stored: "Q4_1", "Q4_K_M", "MXFP4", "affine 4-bit g32", "F32", "BF16", "awq".
    pub quantization: String,
    /// `weight_bytes · 8 / n_params`, group scales included.
    pub bits_per_weight: f64,
    /// The context the model was trained for, in tokens.
    pub context_length: u32,
    /// Transformer blocks (extra multi-token-prediction blocks not counted).
    pub n_layers: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Width of the (dense) feed-forward part; 0 if it is not stated.
    pub intermediate_size: u32,
    /// Query heads; the largest over the layers where they differ (see `layers`).
    pub n_heads: u32,
    /// Key/value heads; the largest over the layers where they differ (see `layers`).
    pub n_kv_heads: u32,
    /// Size of a key head; the largest over the layers where they differ.
    pub head_dim_k: u32,
    /// Size of a value head; the largest over the layers where they differ.
    pub head_dim_v: u32,
    /// Each block for itself; `layers.len() == n_layers`.
    pub layers: Vec<LayerInfo>,
    /// The attention windows in short; the layers say it one by one.
    pub window: WindowPattern,
    /// Routed experts per block; 0 for dense models.
    pub n_experts: u32,
    /// Routed experts used per token; 0 for dense models.
    pub n_experts_used: u32,
    /// Rows of the embedding table.
    pub vocab_size: u32,
    /// Whether the head is the embedding table.
    pub tied_embeddings: bool,
    /// Rotary position embedding.
    pub rope: RopeInfo,
    /// Where the tokenizer comes from.
    pub tokenizer: TokenizerKind,
    /// The chat template's Jinja text, if the model brings one.
    pub chat_template: Option<String>,
    /// Beginning-of-sequence id.
    pub bos_token_id: Option<u32>,
    /// Ids that end a generation, as far as headers state them; ascending, without doubles. For MLX directories those
    /// of generation_config.json where it has any, else of config.json.
    pub eos_token_ids: Vec<u32>,
    /// The sampling the model's author recommends.
    pub generation_defaults: GenerationDefaults,
    /// How its author pools states into embeddings; `None`: not stated.
    pub pooling: Option<Pooling>,
    /// Each token sees all others: texts go in whole, nothing is cached and nothing is generated (BERT and its kin).
    pub encoder: bool,
    /// A classifier on top scores pairs of texts (rerankers); the states below are of no use then.
    pub ranks: bool,
    /// How the weights divide; see [`WeightSplit`].
    pub split: WeightSplit,
    /// Bytes of all weight files on disk.
    pub file_bytes: u64,
    /// Bytes of all tensors.
    pub weight_bytes: u64,
    /// The weight files: all GGUF shards, or all safetensors files, in order.
    pub files: Vec<PathBuf>,
}

impl ModelInfo {
    /// Whether some layers see only a window of the context.
    pub fn has_windows(&self) -> bool {
        matches!(self.window, WindowPattern::Sliding { .. })
    }

    /// Whether blocks route tokens to experts.
    pub fn is_moe(&self) -> bool {
        self.n_experts > 0
    }
}

/// One transformer block, as far as its cache is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerInfo {
    /// What the block remembers between tokens.
    pub kind: LayerKind,
    /// Query heads.
    pub n_heads: u32,
    /// Key/value heads; 0 in blocks without attention.
    pub n_kv_heads: u32,
    /// Size of a key head.
    pub head_dim_k: u32,
    /// Size of a value head.
    pub head_dim_v: u32,
    /// The last so many tokens are all that the block attends to; `None`: all of them.
    pub window: Option<u32>,
}

/// What a block remembers between tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// Keys and values per token.
    Attention,
    /// Attends to the keys and values of an earlier block (gemma3n, gemma4): nothing of its own.
    SharedKv,
    /// Nothing (a block without attention).
    Stateless,
    /// Multi-head latent attention: a compressed vector per token, for which the key/value rule does not hold.
    Latent,
    /// A state of fixed size (Mamba, DeltaNet, RWKV, short convolution), or attention beside one.
    Recurrent,
}

/// The attention windows of a model in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowPattern {
    /// All blocks attend to the whole context.
    Full,
    /// Some blocks, or all, attend to a window.
    Sliding {
        /// Its length, in tokens (the widest, should they differ).
        window: u32,
        /// How many blocks have it.
        n_windowed: u32,
        /// How many attend to everything.
        n_full: u32,
    },
}

impl WindowPattern {
    /// The summary of these layers.
    pub fn of(layers: &[LayerInfo]) -> Self {
        let window = layers.iter().filter_map(|layer| layer.window).max();
        let count = |windowed: bool| {
            let n = layers.iter().filter(|layer| layer.window.is_some() == windowed).count();
            u32::try_from(n).unwrap_or(u32::MAX)
        };
        match window {
            Some(window) => Self::Sliding { window, n_windowed: count(true), n_full: count(false) },
            None => Self::Full,
        }
    }
}

/// Rotary position embedding, as the header states it.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeInfo {
    /// Base of the frequencies.
    pub freq_base: f32,
    /// Base in windowed blocks, where it is another (Gemma 3).
    pub freq_base_window: Option<f32>,
    /// How many values of a head are rotated.
    pub n_rot: u32,
    /// Context extension: "linear", "yarn", "llama3", "longrope", "dynamic"; `None` for plain rotation.
    pub scaling: Option<RopeScaling>,
}

/// Context extension of the rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeScaling {
    /// Its kind, in the format's own word. GGUF files with llama3 scaling carry factors in the tensor
    /// `rope_freqs.weight` and no word; they are reported as "factors".
    pub kind: String,
    /// The extension factor, where there is a single one.
    pub factor: Option<f32>,
    /// The context before extension, in tokens.
    pub original_context_length: Option<u32>,
}

/// Where a model's tokenizer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerKind {
    /// The vocabulary inside a GGUF file.
    Gguf {
        /// `tokenizer.ggml.model`: "gpt2" (byte-level BPE), "llama" (SentencePiece), "bert", "t5", "rwkv", …
        model: String,
        /// `tokenizer.ggml.pre`: the pre-tokenizer's name.
        pre: Option<String>,
    },
    /// tokenizer.json, for the `tokenizers` crate.
    HuggingFace,
    /// tokenizer.model alone (SentencePiece).
    SentencePiece,
    /// None that is known.
    Missing,
}

/// The sampling the model's author recommends; `None`: not stated.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GenerationDefaults {
    /// Temperature; 0 where the author asks for greedy decoding (`do_sample: false` is *not* read as that: it is
    /// the library's default value and found in most files).
    pub temperature: Option<f32>,
    /// Nucleus mass.
    pub top_p: Option<f32>,
    /// Candidates kept; 0: all.
    pub top_k: Option<u32>,
    /// Least probability relative to the best.
    pub min_p: Option<f32>,
    /// Multiplicative repetition penalty; 1: none.
    pub repetition_penalty: Option<f32>,
}

/// How the weights divide, for what a decode step has to read: everything but the embedding table (unless it is
/// tied and so is the head), and of the experts only those that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightSplit {
    /// Bytes of the token embedding table.
    pub embedding_bytes: u64,
    /// Weights in the token embedding table.
    pub embedding_params: u64,
    /// Bytes of all routed experts together.
    pub expert_bytes: u64,
    /// Weights of all routed experts together.
    pub expert_params: u64,
}
