//! Reading GGUF files: metadata, tensor table and, by mapping, the tensors' bytes.
//!
//! The header is read by bounded file reads; nothing is mapped until tensor data is asked for. Refuses all that ggml's own
//! reader refuses, so that a header that opens here does not fail in llama.cpp for its form; beyond that, names that are
//! not UTF-8, files shorter than their tensors, and lengths above the limits stated beside each reader.
//! Why not a crate: docs/decisions/model-headers.md.

mod cursor;
mod ggml_type;
mod metadata;
mod part;
mod split;
mod value;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use ggml_type::GgmlType;
pub use metadata::Metadata;
use part::Part;
pub use value::{Array, Value};

use crate::model::ModelFileError;

/// A tensor's entry in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, such as "blk.0.attn_q.weight".
    pub name: String,
    /// Its lengths in ggml's order: `dims[0]` varies fastest (a row), so a matrix of `[n_out, n_in]` in the usual
    /// notation is `[n_in, n_out]` here. At most four.
    pub dims: Vec<u64>,
    /// How its values are stored.
    pub ggml_type: GgmlType,
    /// Which shard it lies in; 0 for single files.
    pub shard: usize,
    /// Where it begins, in bytes from the start of that shard.
    pub offset: u64,
    /// Its length in bytes.
    pub n_bytes: u64,
}

impl TensorInfo {
    /// Number of values: the product of the dimensions, which the reader has checked against overflow.
    pub fn n_elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Length of a row: `dims[0]`, 1 for a scalar.
    pub fn row_len(&self) -> u64 {
        self.dims.first().copied().unwrap_or(1)
    }
}

/// An opened GGUF model: one file, or all shards of a split one. `Send + Sync`; any thread may read.
#[derive(Debug)]
pub struct GgufFile {
    parts: Vec<Part>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl GgufFile {
    /// Reads and checks the headers of the file at `path`, and of its further shards if it is the first of several.
    ///
    /// # Errors
    /// All variants of [`ModelFileError`] but `NoSuchTensor`. No input makes this panic, and no allocation exceeds a
    /// small multiple of the header's own length.
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        let (first, mut tensors) = Part::open(path, 0)?;
        let mut parts = vec![first];
        for (index, shard) in split::further_shards(path, &parts[0])?.into_iter().enumerate() {
            let (part, more) = Part::open(&shard, index + 1)?;
            split::check_shard(&parts[0], &part, index + 1)?;
            parts.push(part);
            tensors.extend(more);
        }
        split::check_total(&parts[0], tensors.len())?;
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), index).is_some() {
                let what = format!("two tensors are named {:?}", tensor.name);
                return Err(ModelFileError::malformed(&parts[tensor.shard].path, what));
            }
        }
        Ok(Self { parts, tensors, by_name })
    }

    /// The (first) file.
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// All shards, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.path.clone()).collect()
    }

    /// Bytes of all shards on disk.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len).sum()
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.parts[0].version
    }

    /// The metadata (of the first shard, which alone describes the model).
    pub fn metadata(&self) -> &Metadata {
        &self.parts[0].metadata
    }

    /// All tensors, in the order of the files.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor of this name, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// `NoSuchTensor`.
    pub fn require(&self, name: &str) -> Result<&TensorInfo, ModelFileError> {
        self.tensor(name).ok_or_else(|| ModelFileError::NoSuchTensor {
            path: self.path().to_owned(),
            tensor: name.to_owned(),
        })
    }

    /// The tensor's bytes, `n_bytes` of them, mapped from the file: pages are read as they are touched. Their address
    /// is a multiple of the file's alignment (32 unless it says otherwise).
    ///
    /// # Errors
    /// `Io` if the file cannot be mapped, `Truncated` if it has shrunk since it was opened, `NoSuchTensor` for an entry
    /// that is not from this file.
    pub fn tensor_data(&self, tensor: &TensorInfo) -> Result<&[u8], ModelFileError> {
        match self.parts.get(tensor.shard) {
            Some(part) if self.tensor(&tensor.name) == Some(tensor) => part.tensor_data(tensor),
            _ => Err(ModelFileError::NoSuchTensor {
                path: self.path().to_owned(),
                tensor: tensor.name.clone(),
            }),
        }
    }
}
