//! Weights, cache and compute buffers together.

use std::fmt;

use super::kv::{KvAllocation, KvType, per_cell};
use super::{MemoryError, kv_bytes};
use crate::model::ModelInfo;

/// What a loaded model takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryPlan {
    /// The weights as they are loaded.
    pub weights_bytes: u64,
    /// The KV cache as the engine allocates it.
    pub kv_bytes: u64,
    /// Scratch space of the forward pass: an estimate, meant to err upwards.
    pub compute_bytes: u64,
    /// All three.
    pub total: u64,
}

impl MemoryPlan {
    /// The sum of its parts.
    pub fn new(weights_bytes: u64, kv_bytes: u64, compute_bytes: u64) -> Self {
        let total = weights_bytes.saturating_add(kv_bytes).saturating_add(compute_bytes);
        Self { weights_bytes, kv_bytes, compute_bytes, total }
    }
}

/// Estimated scratch space of a forward pass over `n_rows` tokens with a cache of `n_cells`: logits, the residual
/// stream and its copies, the widest feed-forward part, queries, keys and values in f32, and an attention mask.
pub fn compute_bytes(info: &ModelInfo, n_rows: u32, n_cells: u64) -> u64 {
    let attention = u64::from(info.n_heads) * u64::from(info.head_dim_k.max(info.head_dim_v));
    let per_row = [
        u64::from(info.vocab_size),
        u64::from(info.hidden_size) * 4,
        u64::from(info.intermediate_size) * 3,
        attention.saturating_mul(4),
    ];
    let per_row = per_row.into_iter().fold(0, u64::saturating_add).saturating_mul(4);
    let mask = n_cells.saturating_mul(2);
    u64::from(n_rows).saturating_mul(per_row.saturating_add(mask))
}

/// Bytes as "11.3 GiB", "96.0 MiB", "512 B".
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (size, unit) in UNITS {
            // From a tenth of the next unit on, so that sums in one line share theirs.
            if self.0 >= size || (unit == "GiB" && self.0 >= size / 10) {
                return write!(f, "{:.1} {unit}", self.0 as f64 / size as f64);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// How the cache of one sequence of `n_tokens` comes about: "12 full layers x 2048 B x 131072 + 12 windowed layers x
/// 2048 B x 128".
pub(super) fn kv_terms(info: &ModelInfo, n_tokens: u64, kv_type: KvType) -> String {
    /// Layers of equal size and window: how many, bytes per cell, window.
    type Group = (usize, u64, Option<u64>);
    let mut groups: Vec<Group> = Vec::new();
    for layer in &info.layers {
        let (bytes, window) = (per_cell(layer, kv_type), layer.window.map(u64::from));
        match groups.iter_mut().find(|group| (group.1, group.2) == (bytes, window)) {
            Some(group) => group.0 += 1,
            None => groups.push((1, bytes, window)),
        }
    }
    groups.retain(|group| group.1 > 0);
    groups.sort_by_key(|group| group.2.unwrap_or(0));
    let terms = groups.into_iter().map(|(n, bytes, window)| match window {
        Some(window) => format!("{n} windowed layers x {bytes} B x {}", n_tokens.min(window)),
        None => format!("{n} full layers x {bytes} B x {n_tokens}"),
    });
    terms.collect::<Vec<_>>().join(" + ")
}

/// One line: "needs 14.3 GiB = weights 11.3 GiB + KV 3.0 GiB (…) + compute 0.2 GiB; 8.0 GiB free".
pub(super) fn arithmetic(
    info: &ModelInfo,
    plan: &MemoryPlan,
    n_tokens: u64,
    n_sequences: u32,
    kv_type: KvType,
    allocation: KvAllocation,
    available_bytes: u64,
) -> Result<String, MemoryError> {
    let resident = kv_bytes(info, n_tokens, kv_type)?;
    let sharing = match n_sequences {
        1 => String::new(),
        n => format!(" shared by {n} sequences"),
    };
    let padded = match allocation {
        KvAllocation::Resident => String::new(),
        _ if Bytes(plan.kv_bytes).to_string() == Bytes(resident).to_string() => String::new(),
        _ => format!(", allocated with padding and room for batches; bare {}", Bytes(resident)),
    };
    let terms = kv_terms(info, n_tokens, kv_type);
    Ok(format!(
        "needs {} = weights {} + KV {} in {kv_type} at {n_tokens} tokens{sharing} ({terms}{padded}) \
         + compute about {}; {} free",
        Bytes(plan.total),
        Bytes(plan.weights_bytes),
        Bytes(plan.kv_bytes),
        Bytes(plan.compute_bytes),
        Bytes(available_bytes),
    ))
}
