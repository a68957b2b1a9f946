//! The safetensors files of a model directory as one table of tensors.
//!
//! The header's form (contiguous, sizes matching shapes, no overflow) is checked by the `safetensors` crate's
//! `Metadata`; what lies around it is checked here, because the crate's own `SafeTensors::deserialize` adds up lengths
//! unchecked (0.6.2: a panic in debug builds) and silently keeps the last of two equal names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;
pub use safetensors::Dtype;

use super::shards;
use super::{ModelFileError, tensor_header};

/// A tensor's place in a model directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Which of [`SafetensorsDir::files`] it lies in.
    pub file: usize,
    /// Its element type.
    pub dtype: Dtype,
    /// Its lengths, the last one varying fastest.
    pub shape: Vec<usize>,
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// Its length in bytes.
    pub n_bytes: u64,
}

impl TensorEntry {
    /// Number of elements: the product of the shape, which the reader has checked against overflow.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

/// All safetensors files of a directory. `Send + Sync`; any thread may read.
#[derive(Debug)]
pub struct SafetensorsDir {
    path: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, TensorEntry>,
}

impl SafetensorsDir {
    /// Reads and checks the headers of the model's weight files in the directory `path`: those that
    /// `model.safetensors.index.json` names if there is such an index (stray files beside them are left alone), else
    /// `model*.safetensors`, else `weight*.safetensors`.
    ///
    /// # Errors
    /// `NotAModel` without any such file, `MissingShard` for one that the index or the numbering of the others
    /// promises, `Malformed`, `Truncated`, `LimitExceeded`, `Io`.
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        let set = shards::find(path)?;
        let mut out = Self { path: path.to_owned(), shards: Vec::new(), tensors: BTreeMap::new() };
        for name in &set.files {
            out.add(path.join(name))?;
        }
        set.check(path, |tensor| out.tensors.get(tensor).map(|entry| entry.file))?;
        Ok(out)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|shard| shard.path.clone()).collect()
    }

    /// Bytes of all files on disk.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.len).sum()
    }

    /// All tensors with their names, in the order of the names.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &TensorEntry)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The tensor of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.get(name)
    }

    /// The tensor's bytes (little-endian, rows first), mapped from the file: pages are read as they are touched. Their
    /// address need not be a multiple of the element size.
    ///
    /// # Errors
    /// `NoSuchTensor`; `Io` if the file cannot be mapped; `Truncated` if it has shrunk since it was opened.
    pub fn data(&self, name: &str) -> Result<&[u8], ModelFileError> {
        let entry = self.get(name).ok_or_else(|| ModelFileError::NoSuchTensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
        })?;
        self.shards[entry.file].data(entry)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), ModelFileError> {
        let file = self.shards.len();
        let (shard, entries) = Shard::open(path, file)?;
        for (name, entry) in entries {
            if let Some(other) = self.tensors.get(&name) {
                let other = self.shards[other.file].path.display();
                let what = format!("the tensor {name:?} is in {other} as well");
                return Err(ModelFileError::malformed(&shard.path, what));
            }
            self.tensors.insert(name, entry);
        }
        self.shards.push(shard);
        Ok(())
    }
}

/// One safetensors file.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    len: u64,
    /// Kept open so that a later mapping is of the same file even if its name has been given to another.
    file: File,
    map: OnceLock<Mmap>,
}

impl Shard {
    fn open(path: PathBuf, index: usize) -> Result<(Self, Vec<(String, TensorEntry)>), ModelFileError> {
        let io = |source| ModelFileError::io(&path, source);
        let mut file = File::open(&path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let truncated =
            |need_bytes| ModelFileError::Truncated { path: path.clone(), need_bytes, have_bytes: len };
        if len < 8 {
            return Err(truncated(8));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let header_len = u64::from_le_bytes(length);
        tensor_header::check_length(&path, header_len)?;
        let data_start = 8 + header_len;
        if len < data_start {
            return Err(truncated(data_start));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(io)?;
        let tensors = tensor_header::parse(&path, &header)?;
        let end = tensors.iter().map(|(_, info)| info.data_offsets.1 as u64).max().unwrap_or(0);
        let Some(need) = data_start.checked_add(end) else {
            return Err(ModelFileError::malformed(&path, "its tensors end beyond all addresses"));
        };
        match need.cmp(&len) {
            std::cmp::Ordering::Greater => return Err(truncated(need)),
            std::cmp::Ordering::Less => {
                let what = format!("{} bytes follow its last tensor", len - need);
                return Err(ModelFileError::Malformed { path, what, offset: Some(need) });
            }
            std::cmp::Ordering::Equal => {}
        }
        let entries = tensors.into_iter().map(|(name, info)| {
            let (start, end) = info.data_offsets;
            let (offset, n_bytes) = (data_start + start as u64, (end - start) as u64);
            (name, TensorEntry { file: index, dtype: info.dtype, shape: info.shape, offset, n_bytes })
        });
        let entries = entries.collect();
        Ok((Self { path, len, file, map: OnceLock::new() }, entries))
    }

    fn data(&self, entry: &TensorEntry) -> Result<&[u8], ModelFileError> {
        let map = self.map()?;
        let end = entry.offset + entry.n_bytes;
        let range = usize::try_from(entry.offset).ok().zip(usize::try_from(end).ok());
        range.and_then(|(start, end)| map.get(start..end)).ok_or_else(|| ModelFileError::Truncated {
            path: self.path.clone(),
            need_bytes: end,
            have_bytes: map.len() as u64,
        })
    }

    fn map(&self) -> Result<&Mmap, ModelFileError> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        // SAFETY: the mapping is read-only and private to this process; that nobody rewrites or shortens a model file
        // while it is loaded is a condition of use that every mapping loader shares (llama.cpp and MLX included).
        let map = unsafe { Mmap::map(&self.file) };
        let map = map.map_err(|source| ModelFileError::io(&self.path, source))?;
        Ok(self.map.get_or_init(|| map))
    }
}
