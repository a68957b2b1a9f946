//! One .gguf file: magic, counts, metadata, tensor table, and the mapping of its data.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;

use super::TensorInfo;
use super::cursor::Cursor;
use super::ggml_type::GgmlType;
use super::metadata::{Metadata, MetadataReader};
use crate::model::ModelFileError;

/// More tensors than any real model has (a few thousand).
const MAX_TENSORS: u64 = 1 << 18;
/// Length field of the name, number of dimensions, type, offset.
const LEAST_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;
/// ggml keeps names in 64 bytes, with a closing zero.
const MAX_NAME_BYTES: u64 = 63;
const MAX_DIMS: u32 = 4;

/// One file of a GGUF model.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) version: u32,
    pub(super) len: u64,
    pub(super) metadata: Metadata,
    /// Kept open so that a later mapping is of the same file even if its name has been given to another.
    file: File,
    map: OnceLock<Mmap>,
}

impl Part {
    /// Reads and checks the header; the tensors' offsets are counted from the start of the file.
    pub(super) fn open(path: &Path, shard: usize) -> Result<(Self, Vec<TensorInfo>), ModelFileError> {
        let io = |source| ModelFileError::io(path, source);
        let file = File::open(path).map_err(io)?;
        let stat = file.metadata().map_err(io)?;
        if !stat.is_file() {
            let why = "neither a file nor a directory".to_owned();
            return Err(ModelFileError::NotAModel { path: path.to_owned(), why });
        }
        let len = stat.len();
        let mut cursor = Cursor::new(path, &file, len);
        let version = read_version(&mut cursor, path)?;
        let n_tensors = cursor.u64()?;
        let n_keys = cursor.u64()?;
        let reader = MetadataReader::read(&mut cursor, n_keys)?;
        let alignment = reader.alignment(&cursor)?;
        let mut tensors = read_tensors(&mut cursor, n_tensors, shard)?;
        place_tensors(&cursor, &mut tensors, alignment)?;
        let metadata = reader.finish(path, cursor.into_bytes());
        Ok((Self { path: path.to_owned(), version, len, metadata, file, map: OnceLock::new() }, tensors))
    }

    /// The tensor's bytes; it is known to be one of this file's.
    pub(super) fn tensor_data(&self, tensor: &TensorInfo) -> Result<&[u8], ModelFileError> {
        let map = self.map()?;
        let end = tensor.offset.saturating_add(tensor.n_bytes);
        let range = usize::try_from(tensor.offset).ok().zip(usize::try_from(end).ok());
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

fn read_version(cursor: &mut Cursor<'_>, path: &Path) -> Result<u32, ModelFileError> {
    let not_a_model = |why: &str| ModelFileError::NotAModel { path: path.to_owned(), why: why.to_owned() };
    if cursor.remaining() < 4 {
        return Err(not_a_model("shorter than a GGUF file's first four bytes"));
    }
    let magic = cursor.take(4)?;
    match cursor.slice(&magic) {
        b"GGUF" => {}
        b"lmgg" | b"fmgg" | b"tjgg" | b"algg" => {
            return Err(not_a_model("a GGML file from before GGUF; convert it anew"));
        }
        b"PK\x03\x04" => return Err(not_a_model("a zip archive (a PyTorch checkpoint?)")),
        _ => return Err(not_a_model("it does not begin with \"GGUF\"")),
    }
    let version = cursor.u32()?;
    match version {
        2 | 3 => Ok(version),
        // ggml's own test: the version of a file of the other byte order has its low half empty.
        _ if version != 0 && version & 0xffff == 0 => {
            Err(ModelFileError::BigEndian { path: path.to_owned() })
        }
        _ => Err(ModelFileError::UnsupportedVersion { path: path.to_owned(), version }),
    }
}

fn read_tensors(cursor: &mut Cursor<'_>, n: u64, shard: usize) -> Result<Vec<TensorInfo>, ModelFileError> {
    cursor.check_limit(format_args!("the number of tensors"), n, MAX_TENSORS)?;
    cursor.check_remaining(n * LEAST_TENSOR_BYTES)?;
    let mut names = HashSet::new();
    let mut tensors = Vec::new();
    for index in 0..n {
        let start = cursor.position();
        let tensor = read_tensor(cursor, index, shard)?;
        if !names.insert(tensor.name.clone()) {
            return Err(cursor.malformed_at(start, format!("two tensors are named {:?}", tensor.name)));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

/// One entry of the table, its offset as in the file.
fn read_tensor(cursor: &mut Cursor<'_>, index: u64, shard: usize) -> Result<TensorInfo, ModelFileError> {
    let start = cursor.position();
    let name = cursor.string(format_args!("the length of the name of tensor {index}"), MAX_NAME_BYTES)?;
    let name = match std::str::from_utf8(cursor.slice(&name)) {
        Ok(name) => name.to_owned(),
        Err(_) => return Err(cursor.malformed_at(start, format!("the name of tensor {index} is not UTF-8"))),
    };
    let malformed = |cursor: &Cursor<'_>, what: String| {
        Err(cursor.malformed_at(start, format!("tensor {name:?} {what}")))
    };
    let n_dims = cursor.u32()?;
    if n_dims > MAX_DIMS {
        return malformed(cursor, format!("has {n_dims} dimensions, more than {MAX_DIMS}"));
    }
    let mut dims = Vec::with_capacity(n_dims as usize);
    for _ in 0..n_dims {
        dims.push(cursor.u64()?);
    }
    let type_id = cursor.u32()?;
    let offset = cursor.u64()?;
    let Some(ggml_type) = GgmlType::from_id(type_id) else {
        let type_name = match type_id {
            4 | 5 | 31..=33 | 36..=38 => format!("{type_id} (withdrawn from the format)"),
            _ => format!("{type_id} (unknown)"),
        };
        let path = cursor.path().to_owned();
        return Err(ModelFileError::UnsupportedTensorType { path, tensor: name, type_name });
    };
    // As in ggml: the count fits i64, so that every product of it with a block's size can be checked in u64.
    let n_elements =
        dims.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim)).filter(|&n| n <= i64::MAX as u64);
    let Some(n_elements) = n_elements else {
        return malformed(cursor, format!("has impossible dimensions {dims:?}"));
    };
    if dims.iter().any(|&dim| dim > i64::MAX as u64) {
        return malformed(cursor, format!("has impossible dimensions {dims:?}"));
    }
    let row = dims.first().copied().unwrap_or(1);
    let n_bytes = match ggml_type.bytes_for(row) {
        Some(_) => ggml_type.bytes_for(n_elements),
        None => {
            let block = ggml_type.block_len();
            return malformed(
                cursor,
                format!("has rows of {row}, not a multiple of {block} for {ggml_type}"),
            );
        }
    };
    let Some(n_bytes) = n_bytes else {
        return malformed(cursor, format!("has impossible dimensions {dims:?}"));
    };
    Ok(TensorInfo { name, dims, ggml_type, shard, offset, n_bytes })
}

/// Checks that the tensors follow each other, padded to the alignment, within the file; makes offsets absolute.
fn place_tensors(
    cursor: &Cursor<'_>,
    tensors: &mut [TensorInfo],
    alignment: u64,
) -> Result<(), ModelFileError> {
    let data_start = cursor.position().next_multiple_of(alignment);
    let mut expected = 0u64;
    let mut need = 0u64;
    for tensor in tensors {
        if tensor.offset != expected {
            let what = format!("tensor {:?} is at offset {}, not at {expected}", tensor.name, tensor.offset);
            return Err(cursor.malformed(what));
        }
        let end = expected.checked_add(tensor.n_bytes);
        let padded = end.and_then(|end| end.checked_next_multiple_of(alignment));
        let total = end.and_then(|end| data_start.checked_add(end));
        let (Some(padded), Some(total)) = (padded, total) else {
            return Err(cursor.malformed(format!("tensor {:?} ends beyond all addresses", tensor.name)));
        };
        tensor.offset += data_start;
        expected = padded;
        need = total;
    }
    cursor.check_file_len(need)
}
