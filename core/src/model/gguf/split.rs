//! GGUF models in several files: `NAME-00001-of-0000N.gguf`, each with its own tensor table, the first one with the
//! model's metadata.

use std::path::{Path, PathBuf};

use super::part::Part;
use crate::model::ModelFileError;

/// More shards than any real model has.
const MAX_SHARDS: u32 = 4096;
const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// The shards after the first; empty for a model in one file.
///
/// # Errors
/// `NotAModel` (naming the first shard) if `path` is a later one, `MissingShard`, `Malformed`, `LimitExceeded`.
pub(super) fn further_shards(path: &Path, first: &Part) -> Result<Vec<PathBuf>, ModelFileError> {
    let count = first.metadata.u32(SPLIT_COUNT)?.unwrap_or(1);
    if count <= 1 {
        return Ok(Vec::new());
    }
    if count > MAX_SHARDS {
        let (what, value, limit) = (SPLIT_COUNT.to_owned(), count.into(), MAX_SHARDS.into());
        return Err(ModelFileError::LimitExceeded { path: path.to_owned(), what, value, limit });
    }
    let Some(name) = ShardName::parse(path).filter(|name| name.count == count) else {
        let what = format!("it is one of {count} shards by its header, and not so by its name");
        return Err(ModelFileError::malformed(path, what));
    };
    if name.number != 1 || first.metadata.u32(SPLIT_NO)?.unwrap_or(0) != 0 {
        let why = format!("shard {} of {count}; name the first one, {}", name.number, name.file_name(1));
        return Err(ModelFileError::NotAModel { path: path.to_owned(), why });
    }
    (2..=count).map(|number| name.existing(path, number)).collect()
}

/// Checks that `part` is the shard it should be, counted from 0.
pub(super) fn check_shard(first: &Part, part: &Part, index: usize) -> Result<(), ModelFileError> {
    let number = part.metadata.u32(SPLIT_NO)?;
    if number.map(|number| number as usize) != Some(index) {
        let what = format!("{SPLIT_NO:?} is {number:?}, not {index}");
        return Err(ModelFileError::malformed(&part.path, what));
    }
    let (expected, count) = (first.metadata.u32(SPLIT_COUNT)?, part.metadata.u32(SPLIT_COUNT)?);
    if count != expected {
        let what = format!("{SPLIT_COUNT:?} is {count:?}, and {expected:?} in the first shard");
        return Err(ModelFileError::malformed(&part.path, what));
    }
    Ok(())
}

/// Checks the number of tensors in all shards together, where the first one states it.
pub(super) fn check_total(first: &Part, n_tensors: usize) -> Result<(), ModelFileError> {
    match first.metadata.u64(SPLIT_TENSORS)? {
        Some(stated) if stated != n_tensors as u64 => {
            let what = format!("{SPLIT_TENSORS:?} is {stated}, and the shards have {n_tensors} tensors");
            Err(ModelFileError::malformed(&first.path, what))
        }
        _ => Ok(()),
    }
}

/// A file name of the form `STEM-00002-of-00005.gguf`.
struct ShardName {
    stem: String,
    number: u32,
    count: u32,
}

impl ShardName {
    fn parse(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| match text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse().ok(),
            false => None,
        };
        Some(Self { stem: stem.to_owned(), number: digits(number)?, count: digits(count)? })
    }

    fn file_name(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count)
    }

    fn existing(&self, first: &Path, number: u32) -> Result<PathBuf, ModelFileError> {
        let shard = self.file_name(number);
        let path = first.with_file_name(&shard);
        match path.is_file() {
            true => Ok(path),
            false => Err(ModelFileError::MissingShard { path: first.to_owned(), shard }),
        }
    }
}
