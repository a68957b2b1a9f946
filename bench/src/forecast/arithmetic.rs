//! What a model's headers say about speed: bytes of a decode step, operations of a prompt, ceilings. Pure functions.

use duet_core::model::{LayerInfo, LayerKind, ModelInfo};

/// Weights that one decode step reads, in bytes: everything but the embedding table (unless the head is the same table),
/// and of the experts those that `n_sequences` tokens are expected to choose together.
pub fn decode_weight_bytes(info: &ModelInfo, n_sequences: u32) -> f64 {
    let split = &info.split;
    let embedding = if info.tied_embeddings { 0 } else { split.embedding_bytes };
    let all = info.weight_bytes.saturating_sub(embedding);
    let shared = all.saturating_sub(split.expert_bytes) as f64;
    match info.n_experts {
        0 => shared + split.expert_bytes as f64,
        n => {
            let each = split.expert_bytes as f64 / f64::from(n);
            shared + each * distinct_experts(n, info.n_experts_used, n_sequences)
        }
    }
}

/// Experts of a layer that `n_sequences` tokens choose together if each chooses `n_used` of `n_experts` at random:
/// E·(1 − (1 − k/E)^B). Text routes with locality and chooses fewer.
pub fn distinct_experts(n_experts: u32, n_used: u32, n_sequences: u32) -> f64 {
    if n_experts == 0 {
        return 0.0;
    }
    let n = f64::from(n_experts);
    let missed = (1.0 - f64::from(n_used.min(n_experts)) / n).powf(f64::from(n_sequences));
    n * (1.0 - missed)
}

/// Weights that take part in evaluating one token: of the experts those that are used, the embedding table not at all, the
/// head apart (see [`head_params`]).
pub fn active_params(info: &ModelInfo) -> f64 {
    let split = &info.split;
    let experts = match info.n_experts {
        0 => split.expert_params as f64,
        n => split.expert_params as f64 * f64::from(info.n_experts_used.min(n)) / f64::from(n),
    };
    let rest =
        info.n_params.saturating_sub(split.expert_params).saturating_sub(split.embedding_params) as f64;
    let head = if info.tied_embeddings { 0.0 } else { head_params(info) };
    (rest - head).max(0.0) + experts
}

/// Weights of the head, which a prompt needs once.
pub fn head_params(info: &ModelInfo) -> f64 {
    f64::from(info.vocab_size) * f64::from(info.hidden_size)
}

/// Operations of evaluating a prompt of `n_prompt` tokens from an empty cache: 2·active weights for each token, the head
/// once, and attention: 2·heads·head size·N² where all is seen, 4·heads·head size·(w·N − w²/2) within a window w < N.
pub fn prefill_flops(info: &ModelInfo, n_prompt: u64) -> f64 {
    let n = n_prompt as f64;
    let attention = |layer: &LayerInfo| {
        if !matches!(layer.kind, LayerKind::Attention | LayerKind::SharedKv) {
            return 0.0;
        }
        // Queries times keys and weights times values.
        let width =
            f64::from(layer.n_heads) * (f64::from(layer.head_dim_k) + f64::from(layer.head_dim_v)) / 2.0;
        match layer.window.map(f64::from) {
            Some(window) if window < n => 4.0 * width * (window * n - window * window / 2.0),
            _ => 2.0 * width * n * n,
        }
    };
    let head = 2.0 * head_params(info);
    2.0 * active_params(info) * n + head + info.layers.iter().map(attention).sum::<f64>()
}

/// Tokens per second that memory of this bandwidth allows: all sequences' tokens over the bytes of a step.
pub fn decode_ceiling(bytes_per_second: f64, step_bytes: f64, n_sequences: u32) -> f64 {
    f64::from(n_sequences) * bytes_per_second / step_bytes
}

/// Sequences from which on a dense model's decode steps are bound by computing instead of by reading weights.
pub fn compute_bound_from(flops_per_second: f64, bytes_per_second: f64, bits_per_weight: f64) -> f64 {
    flops_per_second / bytes_per_second * (bits_per_weight / 8.0) / 2.0
}
