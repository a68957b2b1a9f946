//! Counting the weights of an MLX directory through their packing.

use std::collections::BTreeMap;

use super::ModelFileError;
use super::config::ModelConfig;
use super::info::WeightSplit;
use super::quant_config::{QuantMode, QuantSpec};
use super::safetensors::{Dtype, SafetensorsDir, TensorEntry};

/// Sums over all tensors.
pub(super) struct Weights {
    pub(super) n_params: u64,
    pub(super) bytes: u64,
    pub(super) label: String,
    pub(super) split: WeightSplit,
    pub(super) has_head: bool,
    pub(super) embedding_rows: Option<u32>,
}

impl Weights {
    /// Counts a packed module's values, not its words; its scales and biases count as bytes only.
    ///
    /// # Errors
    /// `Malformed` for a module whose words and scales cannot belong together.
    pub(super) fn of(files: &SafetensorsDir, config: &ModelConfig) -> Result<Self, ModelFileError> {
        let quantization = config.quantization()?;
        let mut out = Self {
            n_params: 0,
            bytes: 0,
            label: String::new(),
            split: WeightSplit::default(),
            has_head: false,
            embedding_rows: None,
        };
        let mut by_label: BTreeMap<String, u64> = BTreeMap::new();
        for (name, tensor) in files.tensors() {
            let module = name.strip_suffix(".weight");
            let scales = module.and_then(|module| files.get(&format!("{module}.scales")));
            let n_params = match (scales, module) {
                (Some(scales), Some(module)) => {
                    let rule = quantization.as_ref().and_then(|quantization| quantization.for_module(module));
                    let (n, spec) = unpack(tensor, scales, rule).ok_or_else(|| {
                        let what = format!("the words and scales of {module:?} do not belong together");
                        ModelFileError::malformed(files.path(), what)
                    })?;
                    *by_label.entry(spec.to_string()).or_default() += n;
                    n
                }
                _ if is_scale(files, name) => 0,
                _ => {
                    let n = tensor.n_elements();
                    if tensor.shape.len() > 1 {
                        *by_label.entry(tensor.dtype.to_string()).or_default() += n;
                    }
                    n
                }
            };
            out.n_params += n_params;
            out.bytes += tensor.n_bytes;
            out.note_place(name, tensor, n_params);
        }
        out.label = match config.foreign_quantization() {
            Some(foreign) => foreign.to_string(),
            None => dominating(by_label),
        };
        Ok(out)
    }

    fn note_place(&mut self, name: &str, tensor: &TensorEntry, n_params: u64) {
        if is_embedding(name) {
            self.split.embedding_params += n_params;
            self.split.embedding_bytes += tensor.n_bytes;
            if name.ends_with(".weight") {
                self.embedding_rows = tensor.shape.first().and_then(|&rows| u32::try_from(rows).ok());
            }
        } else if name.contains(".experts.") || name.contains(".switch_mlp.") {
            self.split.expert_params += n_params;
            self.split.expert_bytes += tensor.n_bytes;
        }
        self.has_head |= name.ends_with("lm_head.weight");
    }
}

/// Whether `name` is a part of a packed module beside its words.
fn is_scale(files: &SafetensorsDir, name: &str) -> bool {
    let module = name.strip_suffix(".scales").or_else(|| name.strip_suffix(".biases"));
    module.is_some_and(|module| {
        let part = |part: &str| files.get(&format!("{module}.{part}")).is_some();
        part("weight") && part("scales")
    })
}

fn is_embedding(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(module, _)| {
        module.ends_with("embed_tokens") || module.ends_with("tok_embeddings") || module.ends_with(".wte")
    })
}

/// Number of values in a packed module, and how they are packed. The shapes decide: words fix bits times group size, so
/// where the rule does not fit them its group size is kept and the bits follow.
fn unpack(words: &TensorEntry, scales: &TensorEntry, rule: Option<QuantSpec>) -> Option<(u64, QuantSpec)> {
    let (words_per_row, groups_per_row) = (*words.shape.last()? as u64, *scales.shape.last()? as u64);
    let same_rows = words.shape[..words.shape.len() - 1] == scales.shape[..scales.shape.len() - 1];
    if words.dtype != Dtype::U32 || !same_rows || groups_per_row == 0 {
        return None;
    }
    let bits_per_row = words_per_row.checked_mul(32)?;
    let with_group = |group_size: u32| {
        let values = groups_per_row.checked_mul(group_size.into())?;
        let bits = [2u32, 3, 4, 5, 6, 8]
            .into_iter()
            .find(|&bits| values.checked_mul(bits.into()) == Some(bits_per_row))?;
        match rule {
            Some(rule) if (rule.group_size, rule.bits) == (group_size, bits) => Some(rule),
            _ => Some(QuantSpec { mode: QuantMode::Affine, group_size, bits }),
        }
    };
    let stated = rule.map(|rule| rule.group_size);
    let spec = stated.into_iter().chain([64, 32, 128, 16]).find_map(with_group)?;
    let n = scales.n_elements().checked_mul(spec.group_size.into())?;
    Some((n, spec))
}

/// The label that most weights have; "(mixed)" follows where others are packed otherwise.
fn dominating(by_label: BTreeMap<String, u64>) -> String {
    let packed = by_label.keys().filter(|label| label.contains(|c: char| c.is_ascii_lowercase())).count();
    match by_label.into_iter().max_by_key(|&(_, n)| n) {
        Some((label, _)) if packed > 1 => format!("{label} (mixed)"),
        Some((label, _)) => label,
        None => "none".to_owned(),
    }
}
