//! GGUF files, by duet's own reader and exact regrouping. (libmlx's own loader reads some types wrongly and drops others.)

use std::cell::RefCell;
use std::collections::HashSet;

use duet_core::BackendError;
use duet_core::model::gguf::{GgmlType, GgufFile, TensorInfo};
use duet_core::model::{ModelFileError, ModelInfo};

use super::{Checkpoint, malformed};
use crate::convert::dequantize::is_supported;
use crate::convert::matrix::{Matrix, Source};
use crate::convert::permute::gguf_row;
use crate::models::Family;

/// The tensors of a GGUF file under the names of the checkpoint that it was made from.
pub(crate) struct GgufCheckpoint {
    model: ModelInfo,
    file: GgufFile,
    permutes: bool,
    used: RefCell<HashSet<String>>,
}

impl GgufCheckpoint {
    /// Opens the file of `model`.
    ///
    /// # Errors
    /// `ModelFile`, with the tensor's name for a type that cannot be read.
    pub(crate) fn open(model: &ModelInfo, family: &Family) -> Result<Self, BackendError> {
        let file = GgufFile::open(&model.path)?;
        if let Some(tensor) = file.tensors().find(|tensor| !is_supported(tensor.ggml_type)) {
            return Err(ModelFileError::UnsupportedTensorType {
                path: model.path.clone(),
                tensor: tensor.name.clone(),
                type_name: format!("{} (for the {} engine)", tensor.ggml_type.name(), crate::ID),
            }
            .into());
        }
        Ok(Self { model: model.clone(), file, permutes: family.gguf_permutes, used: RefCell::default() })
    }

    /// The file.
    pub(crate) fn file(&self) -> &GgufFile {
        &self.file
    }

    /// The head size, if the rows of `tensor` are in GGUF's own order.
    pub(crate) fn permuted(&self, tensor: &TensorInfo) -> Option<usize> {
        let mut parts = tensor.name.split('.').skip(2);
        let permuted = self.permutes && matches!(parts.next(), Some("attn_q" | "attn_k"));
        permuted.then_some(self.model.head_dim_k as usize)
    }

    /// The matrix in `tensor`, which has two dimensions.
    ///
    /// # Errors
    /// `ModelFile`.
    pub(crate) fn as_matrix(&self, tensor: &TensorInfo) -> Result<Matrix<'_>, BackendError> {
        let [cols, rows] = [tensor.dims[0], tensor.dims[1]].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let permuted = self.permuted(tensor);
        if permuted.is_some_and(|head_dim| head_dim == 0 || !rows.is_multiple_of(head_dim)) {
            return Err(malformed(&self.model, format!("the tensor {:?} has no whole heads", tensor.name)));
        }
        let bytes = self.file.tensor_data(tensor)?;
        let source = Source::Ggml { ty: tensor.ggml_type, bytes, permuted };
        Matrix::new(rows, cols, source).map_err(|error| malformed(&self.model, error.to_string()))
    }

    /// The tensor with this name and these lengths, the last one varying fastest.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo, BackendError> {
        let tensor = self.file.require(&gguf_name(name))?;
        self.used.borrow_mut().insert(tensor.name.clone());
        let same =
            tensor.dims.iter().rev().map(|&n| usize::try_from(n).ok()).eq(shape.iter().map(|&n| Some(n)));
        if same {
            return Ok(tensor);
        }
        let found: Vec<_> = tensor.dims.iter().rev().collect();
        Err(malformed(&self.model, format!("the tensor {:?} is {found:?}, not {shape:?}", tensor.name)))
    }
}

impl Checkpoint for GgufCheckpoint {
    fn matrix(&self, module: &str, rows: usize, cols: usize) -> Result<Matrix<'_>, BackendError> {
        self.as_matrix(self.tensor(&format!("{module}.weight"), &[rows, cols])?)
    }

    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, BackendError> {
        let tensor = self.tensor(name, &[n])?;
        let mut stored = vec![0.0; n];
        crate::convert::dequantize::dequantize(tensor.ggml_type, self.file.tensor_data(tensor)?, &mut stored)
            .map_err(|error| malformed(&self.model, error.to_string()))?;
        Ok(match self.permuted(tensor).filter(|_| name.ends_with("_proj.bias")) {
            Some(head_dim) => (0..n).map(|row| stored[gguf_row(row, head_dim)]).collect(),
            None => stored,
        })
    }

    fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        // The rotary embedding has read its factors itself.
        let unused =
            self.file.tensors().map(|tensor| &tensor.name).filter(|name| *name != "rope_freqs.weight");
        unused.filter(|name| !used.contains(*name)).cloned().collect()
    }
}

/// GGUF's name of the tensor that checkpoints call `name`.
fn gguf_name(name: &str) -> String {
    let (module, part) = name.rsplit_once('.').unwrap_or((name, ""));
    let module = match module {
        "model.embed_tokens" => "token_embd".to_owned(),
        "model.norm" => "output_norm".to_owned(),
        "lm_head" => "output".to_owned(),
        _ => {
            let (layer, module) = module
                .strip_prefix("model.layers.")
                .and_then(|rest| rest.split_once('.'))
                .unwrap_or(("", module));
            let module = match module {
                "input_layernorm" => "attn_norm",
                "post_attention_layernorm" => "ffn_norm",
                "self_attn.q_proj" => "attn_q",
                "self_attn.k_proj" => "attn_k",
                "self_attn.v_proj" => "attn_v",
                "self_attn.o_proj" => "attn_output",
                "self_attn.q_norm" => "attn_q_norm",
                "self_attn.k_norm" => "attn_k_norm",
                "mlp.gate_proj" => "ffn_gate",
                "mlp.up_proj" => "ffn_up",
                "mlp.down_proj" => "ffn_down",
                other => other,
            };
            format!("blk.{layer}.{module}")
        }
    };
    format!("{module}.{part}")
}

/// How many weights of which encodings the matrices of `file` have.
pub(crate) fn encodings(file: &GgufFile) -> Vec<(GgmlType, u64)> {
    let mut found: Vec<(GgmlType, u64)> = Vec::new();
    for tensor in file.tensors().filter(|tensor| tensor.dims.len() == 2) {
        match found.iter_mut().find(|(ty, _)| *ty == tensor.ggml_type) {
            Some((_, n)) => *n += tensor.n_elements(),
            None => found.push((tensor.ggml_type, tensor.n_elements())),
        }
    }
    found
}
