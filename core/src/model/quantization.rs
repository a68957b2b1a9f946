//! Labels for how weights are stored.

use super::gguf::{GgmlType, GgufFile};

/// `bytes · 8 / n_params`; 0 for a model without parameters.
pub(super) fn bits_per_weight(bytes: u64, n_params: u64) -> f64 {
    match n_params {
        0 => 0.0,
        _ => bytes as f64 * 8.0 / n_params as f64,
    }
}

/// The type that most weights of matrices have, or the name of the file's mixture ("Q4_K_M") if that is built on it.
pub(super) fn gguf_label(file: &GgufFile) -> String {
    let mut weights: Vec<(GgmlType, u64)> = Vec::new();
    for tensor in file.tensors().filter(|tensor| tensor.dims.len() > 1) {
        match weights.iter_mut().find(|(ty, _)| *ty == tensor.ggml_type) {
            Some((_, n)) => *n = n.saturating_add(tensor.n_elements()),
            None => weights.push((tensor.ggml_type, tensor.n_elements())),
        }
    }
    let Some((dominating, _)) = weights.into_iter().max_by_key(|&(_, n)| n) else { return "none".to_owned() };
    let file_type = file.metadata().u32("general.file_type").ok().flatten();
    match file_type.and_then(mixture) {
        Some((base, label)) if base == dominating => label.to_owned(),
        _ => dominating.name().to_owned(),
    }
}

/// llama.cpp's file types that mix several tensor types, with the one that prevails.
fn mixture(file_type: u32) -> Option<(GgmlType, &'static str)> {
    Some(match file_type {
        10 => (GgmlType::Q2_K, "Q2_K"),
        11 => (GgmlType::Q3_K, "Q3_K_S"),
        12 => (GgmlType::Q3_K, "Q3_K_M"),
        13 => (GgmlType::Q3_K, "Q3_K_L"),
        14 => (GgmlType::Q4_K, "Q4_K_S"),
        15 => (GgmlType::Q4_K, "Q4_K_M"),
        16 => (GgmlType::Q5_K, "Q5_K_S"),
        17 => (GgmlType::Q5_K, "Q5_K_M"),
        21 => (GgmlType::Q2_K, "Q2_K_S"),
        22 => (GgmlType::IQ3_XXS, "IQ3_XS"),
        27 => (GgmlType::IQ3_S, "IQ3_M"),
        29 => (GgmlType::IQ2_S, "IQ2_M"),
        _ => return None,
    })
}
