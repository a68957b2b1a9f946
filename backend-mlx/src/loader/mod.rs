//! From a model's files to a [`Decoder`](crate::models::Decoder) on the engine's thread.
//!
//! Two kinds of checkpoint, MLX directories and GGUF files, under one set of names (those of the checkpoint that both were
//! made from). Every tensor that a decoder needs has to be there in the right shape, and every tensor that is there has
//! to be needed.

mod build;
mod gguf;
mod host;
mod safetensors;
mod upload;

use duet_core::BackendError;
use duet_core::model::{ModelFileError, ModelFormat, ModelInfo};

pub(crate) use build::{LoadPlan, Progress, build};
pub(crate) use gguf::{GgufCheckpoint, encodings};
pub(crate) use safetensors::MlxCheckpoint;
pub(crate) use upload::{Held, Placement, Uploaded};

use crate::convert::matrix::Matrix;
use crate::models::Family;
use crate::tensor::ElementType;

/// A model's tensors by the names of its original checkpoint.
pub(crate) trait Checkpoint {
    /// The weights of module `module` ("model.layers.0.mlp.down_proj"), `[rows, cols]`.
    ///
    /// # Errors
    /// `ModelFile` for a tensor that is missing, misshapen or of a type that cannot be read.
    fn matrix(&self, module: &str, rows: usize, cols: usize) -> Result<Matrix<'_>, BackendError>;

    /// The `n` values of tensor `name` ("model.norm.weight").
    ///
    /// # Errors
    /// As [`Checkpoint::matrix`].
    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, BackendError>;

    /// Tensors that nobody asked for, by the file's names.
    fn unused(&self) -> Vec<String>;
}

/// Opens the files of `model`.
///
/// # Errors
/// `ModelFile`; `Unsupported` for a quantisation of another library.
pub(crate) fn open(model: &ModelInfo, family: &Family) -> Result<Box<dyn Checkpoint>, BackendError> {
    Ok(match model.format {
        ModelFormat::MlxDirectory => Box::new(MlxCheckpoint::open(model)?),
        ModelFormat::Gguf => Box::new(GgufCheckpoint::open(model, family)?),
    })
}

/// The type that the checkpoint of an MLX directory was made to be computed in: that of its norms.
pub(crate) fn compute_type(model: &ModelInfo) -> ElementType {
    let norm = MlxCheckpoint::open(model).ok().and_then(|files| files.norm_type());
    norm.map_or(ElementType::Bf16, ElementType::from)
}

/// A contradiction within the files of `model`.
fn malformed(model: &ModelInfo, what: String) -> BackendError {
    ModelFileError::Malformed { path: model.path.clone(), what, offset: None }.into()
}
