//! Which safetensors files make up a model directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::{ModelFileError, json_file};

const INDEX: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// More shards than any real model has.
const MAX_SHARDS: usize = 4096;

/// The weight files of a directory, by name.
pub(super) struct ShardSet {
    /// In order; never empty.
    pub(super) files: Vec<String>,
    /// Tensor to file name, where there is an index.
    index: BTreeMap<String, String>,
}

impl ShardSet {
    /// Checks the index against what the headers say: `file_of` gives a tensor's position in `files`.
    pub(super) fn check(
        &self,
        dir: &Path,
        file_of: impl Fn(&str) -> Option<usize>,
    ) -> Result<(), ModelFileError> {
        for (tensor, file) in &self.index {
            let found = file_of(tensor).map(|position| self.files[position].as_str());
            if found != Some(file) {
                let what = format!("it places the tensor {tensor:?} in {file}, which does not have it");
                return Err(ModelFileError::malformed(&dir.join(INDEX), what));
            }
        }
        Ok(())
    }
}

/// Finds the model's weight files; see [`SafetensorsDir::open`](super::safetensors::SafetensorsDir::open).
pub(super) fn find(dir: &Path) -> Result<ShardSet, ModelFileError> {
    let present = list(dir)?;
    let index_path = dir.join(INDEX);
    let index = match json_file::read_object(&index_path, MAX_INDEX_BYTES)? {
        Some(index) => weight_map(&index_path, index)?,
        None => BTreeMap::new(),
    };
    let files: Vec<String> = match index.is_empty() {
        false => {
            let named: BTreeSet<&String> = index.values().collect();
            named.into_iter().cloned().collect()
        }
        true => {
            let with = |prefix: &str| -> Vec<String> {
                present.iter().filter(|name| name.starts_with(prefix)).cloned().collect()
            };
            let files = with("model");
            if files.is_empty() { with("weight") } else { files }
        }
    };
    if files.is_empty() {
        let why = "the directory has no model*.safetensors".to_owned();
        return Err(ModelFileError::NotAModel { path: dir.to_owned(), why });
    }
    if files.len() > MAX_SHARDS {
        let (what, value, limit) =
            ("the number of weight files".to_owned(), files.len() as u64, MAX_SHARDS as u64);
        return Err(ModelFileError::LimitExceeded { path: dir.to_owned(), what, value, limit });
    }
    let numberings: BTreeSet<_> = files.iter().filter_map(|file| Numbering::of(file)).collect();
    let promised = numberings.into_iter().flat_map(Numbering::names);
    if let Some(shard) = files.iter().cloned().chain(promised).find(|shard| !present.contains(shard)) {
        return Err(ModelFileError::MissingShard { path: dir.to_owned(), shard });
    }
    Ok(ShardSet { files, index })
}

/// The names of all safetensors files in the directory.
fn list(dir: &Path) -> Result<BTreeSet<String>, ModelFileError> {
    let io = |source| ModelFileError::io(dir, source);
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        if let Ok(name) = entry.map_err(io)?.file_name().into_string()
            && name.ends_with(".safetensors")
        {
            names.insert(name);
        }
    }
    Ok(names)
}

/// The index's `weight_map`.
fn weight_map(path: &Path, mut index: Value) -> Result<BTreeMap<String, String>, ModelFileError> {
    let Some(Value::Object(map)) = index.get_mut("weight_map").map(Value::take) else {
        return Err(ModelFileError::malformed(path, "it has no object \"weight_map\""));
    };
    let pairs = map.into_iter().map(|(tensor, file)| match file {
        Value::String(file) if is_plain_name(&file) => Ok((tensor, file)),
        other => {
            let what =
                format!("it places the tensor {tensor:?} in {other}, which is no name of a safetensors file");
            Err(ModelFileError::malformed(path, what))
        }
    });
    pairs.collect()
}

/// Whether this is the name of a safetensors file in the directory itself, and nowhere else.
fn is_plain_name(file: &str) -> bool {
    file.ends_with(".safetensors") && Path::new(file).file_name().is_some_and(|name| name == file)
}

/// The common part of names like `STEM-00002-of-00003.safetensors`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Numbering<'a> {
    stem: &'a str,
    count: &'a str,
}

impl<'a> Numbering<'a> {
    fn of(file: &'a str) -> Option<Self> {
        let (rest, count) = file.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let five_digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        (five_digits(number) && five_digits(count)).then_some(Self { stem, count })
    }

    /// All names of the set.
    fn names(self) -> impl Iterator<Item = String> + use<'a> {
        let n: usize = self.count.parse().unwrap_or(0);
        (1..=n).map(move |number| format!("{}-{number:05}-of-{}.safetensors", self.stem, self.count))
    }
}
