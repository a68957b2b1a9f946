//! The size of the KV cache: per layer `n_kv_heads · (head_dim_k + head_dim_v) · bytes per element · cells`. Never query
//! heads, never the hidden size.

use super::MemoryError;
use crate::model::{LayerInfo, LayerKind, ModelInfo};

/// How a stored key or value element is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    /// 4 bytes; MLX on CPUs, llama.cpp on request.
    F32,
    /// 2 bytes.
    #[default]
    F16,
    /// 2 bytes.
    Bf16,
    /// llama.cpp, 34 bytes per 32.
    Q8_0,
    /// llama.cpp, 24 bytes per 32.
    Q5_1,
    /// llama.cpp, 22 bytes per 32.
    Q5_0,
    /// llama.cpp, 20 bytes per 32.
    Q4_1,
    /// llama.cpp, 18 bytes per 32.
    Q4_0,
    /// MLX: packed values, and a scale and bias of 2 bytes each per group.
    Affine {
        /// Bits per value.
        bits: u8,
        /// Values per group.
        group_size: u16,
    },
}

impl KvType {
    /// Bytes of `n` elements, rounded up to whole blocks.
    pub fn bytes_for(self, n: u64) -> u64 {
        let (block, bytes) = self.block();
        n.div_ceil(block).saturating_mul(bytes)
    }

    /// Elements and bytes per block.
    fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q5_1 => (32, 24),
            Self::Q5_0 => (32, 22),
            Self::Q4_1 => (32, 20),
            Self::Q4_0 => (32, 18),
            Self::Affine { bits, group_size } => {
                let group = u64::from(group_size).max(1);
                (group, (group * u64::from(bits)).div_ceil(8) + 4)
            }
        }
    }
}

impl std::fmt::Display for KvType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::F16 => f.write_str("f16"),
            Self::Bf16 => f.write_str("bf16"),
            Self::Q8_0 => f.write_str("q8_0"),
            Self::Q5_1 => f.write_str("q5_1"),
            Self::Q5_0 => f.write_str("q5_0"),
            Self::Q4_1 => f.write_str("q4_1"),
            Self::Q4_0 => f.write_str("q4_0"),
            Self::Affine { bits, group_size } => write!(f, "affine {bits}-bit g{group_size}"),
        }
    }
}

/// Who lays the cache out, which decides how many cells there are for a number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvAllocation {
    /// What is needed and no more: every layer's tokens, within its window.
    #[default]
    Resident,
    /// llama.cpp, which allocates everything when the context is created: contexts padded to 256 cells, windowed layers
    /// with room for a micro-batch more.
    LlamaCpp {
        /// Rows of a micro-batch.
        n_ubatch: u32,
        /// One pool of cells for all sequences (`kv_unified`), or an equal share for each.
        unified: bool,
        /// Whether windowed layers get as many cells as the others (`swa_full`).
        swa_full: bool,
    },
    /// MLX, as the cache stands when it has grown to the tokens given, in steps of 256. Windowed layers keep all tokens
    /// like the others: a window saves time and no memory.
    Mlx,
}

impl KvAllocation {
    /// The same engine's layout with what a load asks for: one pool or several where the engine has the choice.
    pub fn for_load(self, kv_unified: Option<bool>) -> Self {
        match self {
            Self::Resident | Self::Mlx => self,
            Self::LlamaCpp { n_ubatch, unified, swa_full } => {
                Self::LlamaCpp { n_ubatch, unified: kv_unified.unwrap_or(unified), swa_full }
            }
        }
    }
}

/// How an engine lays out a KV cache: enough to predict its bytes from a model's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvLayout {
    /// How elements are stored.
    pub kv_type: KvType,
    /// How many cells there are.
    pub allocation: KvAllocation,
}

impl KvLayout {
    /// Bytes of the cache of a load with room for `kv_tokens` over `n_sequences`, when `used_tokens` are in it: all of it
    /// from the start, or as far as it has grown.
    ///
    /// # Errors
    /// As [`KvAllocation::bytes`].
    pub fn bytes(
        self,
        info: &ModelInfo,
        kv_tokens: u64,
        used_tokens: u64,
        n_sequences: u32,
    ) -> Result<u64, MemoryError> {
        let n_tokens = match self.allocation {
            KvAllocation::LlamaCpp { .. } => kv_tokens,
            KvAllocation::Resident | KvAllocation::Mlx => used_tokens,
        };
        self.allocation.bytes(info, n_tokens, n_sequences, self.kv_type)
    }
}

/// Both engines grow or pad caches to multiples of this.
pub(super) const STEP: u64 = 256;

impl KvAllocation {
    /// Bytes for `n_tokens` in all, divided over `n_sequences`.
    ///
    /// # Errors
    /// `UnknownCache` if a layer keeps something else than keys and values.
    pub fn bytes(
        self,
        info: &ModelInfo,
        n_tokens: u64,
        n_sequences: u32,
        kv_type: KvType,
    ) -> Result<u64, MemoryError> {
        check(info)?;
        let n_sequences = u64::from(n_sequences).max(1);
        let layer_bytes = |layer: &LayerInfo| {
            let window = layer.window.map(u64::from);
            let cells = self.cells(window, n_tokens, n_sequences);
            per_cell(layer, kv_type).saturating_mul(cells)
        };
        Ok(info.layers.iter().map(layer_bytes).fold(0, u64::saturating_add))
    }

    /// Cells of a layer, over all sequences.
    fn cells(self, window: Option<u64>, n_tokens: u64, n_sequences: u64) -> u64 {
        let pad = |n: u64| n.div_ceil(STEP).saturating_mul(STEP);
        match (self, window) {
            (Self::Resident, None) => n_tokens,
            (Self::Resident, Some(window)) => n_tokens.min(window.saturating_mul(n_sequences)),
            (Self::LlamaCpp { n_ubatch, unified, swa_full }, window) => {
                // As llama_context pads: the total, then, without a common pool, each sequence's share of it.
                let (streams, size) = match unified {
                    true => (1, pad(n_tokens)),
                    false => (n_sequences, pad(pad(n_tokens) / n_sequences)),
                };
                let cells = match window {
                    Some(window) if !swa_full => {
                        let sharing = if unified { n_sequences } else { 1 };
                        let wanted = window.saturating_mul(sharing).saturating_add(n_ubatch.into());
                        pad(size.min(wanted))
                    }
                    _ => size,
                };
                cells.saturating_mul(streams)
            }
            (Self::Mlx, _) => pad(n_tokens.div_ceil(n_sequences)).saturating_mul(n_sequences),
        }
    }
}

/// Bytes that one sequence of `n_tokens` keeps, windows honoured: Σ over layers of
/// `n_kv_heads · (head_dim_k + head_dim_v) · element · min(n_tokens, window)`.
///
/// # Errors
/// `UnknownCache` if a layer keeps something else than keys and values.
pub fn kv_bytes(info: &ModelInfo, n_tokens: u64, kv_type: KvType) -> Result<u64, MemoryError> {
    KvAllocation::Resident.bytes(info, n_tokens, 1, kv_type)
}

/// Bytes that one more token adds while no window is full, over all layers.
///
/// # Errors
/// As [`kv_bytes`].
pub fn kv_bytes_per_token(info: &ModelInfo, kv_type: KvType) -> Result<u64, MemoryError> {
    check(info)?;
    Ok(info.layers.iter().map(|layer| per_cell(layer, kv_type)).fold(0, u64::saturating_add))
}

/// Bytes per token in one layer. Keys and values are separate buffers, so each is rounded to blocks by itself.
pub(super) fn per_cell(layer: &LayerInfo, kv_type: KvType) -> u64 {
    if layer.kind != LayerKind::Attention {
        return 0;
    }
    let elements = |head_dim: u32| u64::from(layer.n_kv_heads) * u64::from(head_dim);
    let (k, v) = (elements(layer.head_dim_k), elements(layer.head_dim_v));
    kv_type.bytes_for(k).saturating_add(kv_type.bytes_for(v))
}

fn check(info: &ModelInfo) -> Result<(), MemoryError> {
    let unknown = |layer: &LayerInfo| matches!(layer.kind, LayerKind::Latent | LayerKind::Recurrent);
    match info.layers.iter().position(unknown) {
        Some(layer) => Err(MemoryError::UnknownCache { layer, kind: info.layers[layer].kind }),
        None => Ok(()),
    }
}
