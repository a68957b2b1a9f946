//! Models on disk: what they are, from their headers alone, and what memory they will take.
//!
//! Knows nothing about engines. Answers in milliseconds; reads no weights; whatever the bytes are, the answer is a
//! description or a typed error, never a panic or an allocation beyond a small multiple of the header.

pub mod config;
mod error;
mod fingerprint;
mod from_gguf;
mod from_mlx;
pub mod gguf;
mod info;
mod json_file;
pub mod memory;
mod mlx_extras;
mod mlx_weights;
mod quant_config;
mod quantization;
pub mod safetensors;
mod shards;
mod tensor_header;
#[cfg(test)]
mod tests;
mod windows;

use std::path::Path;

pub use error::ModelFileError;
pub use fingerprint::fingerprint;
pub(crate) use fingerprint::sample as sample_file;
pub use info::{
    GenerationDefaults, LayerInfo, LayerKind, ModelFormat, ModelInfo, RopeInfo, RopeScaling, TokenizerKind,
    WeightSplit, WindowPattern,
};
pub use memory::{Fit, FitRequest, KvAllocation, KvLayout, KvType, MemoryError, MemoryPlan, fit, kv_bytes};
pub use quant_config::{ForeignQuantization, QuantMode, QuantSpec, Quantization};

/// Describes the model at `path`: a .gguf file (of a split model its first shard) or a directory with config.json and
/// safetensors files. Reads headers only; any thread may call; milliseconds.
///
/// # Errors
/// Every variant of [`ModelFileError`] but `NoSuchTensor`, each naming the file that is at fault.
pub fn inspect(path: &Path) -> Result<ModelInfo, ModelFileError> {
    let stat = std::fs::metadata(path).map_err(|source| ModelFileError::io(path, source))?;
    if stat.is_dir() {
        return from_mlx::describe(path);
    }
    if let Some(why) = belongs_to_a_directory(path) {
        return Err(ModelFileError::NotAModel { path: path.to_owned(), why });
    }
    from_gguf::describe(&gguf::GgufFile::open(path)?)
}

/// Describes a GGUF file that is already open; as [`inspect`] otherwise.
///
/// # Errors
/// `NotAModel`, `Malformed`, `LimitExceeded`.
pub fn describe_gguf(file: &gguf::GgufFile) -> Result<ModelInfo, ModelFileError> {
    from_gguf::describe(file)
}

/// Why a file is not the thing to name, for parts of an MLX directory.
fn belongs_to_a_directory(path: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?;
    let dir = path.parent()?.display();
    matches!(extension, "safetensors" | "json")
        .then(|| format!("a part of an MLX model; name its directory, {dir}"))
}
