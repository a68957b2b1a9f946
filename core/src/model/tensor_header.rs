//! The JSON header of a safetensors file.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};

use super::ModelFileError;

/// The format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// More tensors than any real file has (some 100,000 where experts are not stacked).
const MAX_TENSORS: usize = 1 << 20;
const MAX_DIMS: usize = 8;

/// Checks the header's length field before anything is read for it.
pub(super) fn check_length(path: &Path, header_len: u64) -> Result<(), ModelFileError> {
    if header_len <= MAX_HEADER_BYTES {
        return Ok(());
    }
    // What an arbitrary file's first bytes come to; real headers are far smaller.
    let (what, limit) = ("the header's length".to_owned(), MAX_HEADER_BYTES);
    Err(ModelFileError::LimitExceeded { path: path.to_owned(), what, value: header_len, limit })
}

/// The tensors, in the order of their data, which is contiguous from 0.
pub(super) fn parse(path: &Path, header: &[u8]) -> Result<Vec<(String, TensorInfo)>, ModelFileError> {
    let malformed = |what: String| ModelFileError::Malformed { path: path.to_owned(), what, offset: Some(8) };
    let mut json = serde_json::Deserializer::from_slice(header);
    let tensors = json.deserialize_map(Tensors).and_then(|tensors| json.end().map(|()| tensors));
    let mut tensors = tensors.map_err(|error| malformed(format!("its header is not valid: {error}")))?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let checked = Metadata::new(None::<HashMap<String, String>>, tensors.clone());
    checked.map_err(|error| malformed(format!("its header is not valid: {error}")))?;
    Ok(tensors)
}

/// Collects the header's entries without the crate's intermediate tree, which multiplies a hostile header's size.
struct Tensors;

impl<'de> Visitor<'de> for Tensors {
    type Value = Vec<(String, TensorInfo)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("the name {name:?} occurs twice")));
            }
            if name == "__metadata__" {
                map.next_value::<HashMap<String, String>>()?;
                continue;
            }
            let info: TensorInfo = map.next_value()?;
            if info.shape.len() > MAX_DIMS {
                return Err(A::Error::custom(format!("{name:?} has {} dimensions", info.shape.len())));
            }
            if tensors.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("it has more than {MAX_TENSORS} tensors")));
            }
            tensors.push((name, info));
        }
        Ok(tensors)
    }
}
