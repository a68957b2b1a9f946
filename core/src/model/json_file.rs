//! The small JSON and text files beside a model, read whole and bounded.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::ModelFileError;

/// Reads a file of at most `limit` bytes; `None` if there is none of this name.
pub(super) fn read_bytes(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ModelFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ModelFileError::io(path, source)),
    };
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    let len = read.map_err(|source| ModelFileError::io(path, source))? as u64;
    if len > limit {
        let (path, what) = (path.to_owned(), "the file's length".to_owned());
        return Err(ModelFileError::LimitExceeded { path, what, value: len, limit });
    }
    Ok(Some(bytes))
}

/// As [`read_bytes`], for text.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<Option<String>, ModelFileError> {
    let Some(bytes) = read_bytes(path, limit)? else { return Ok(None) };
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| ModelFileError::malformed(path, "it is not UTF-8"))
}

/// As [`read_bytes`], for a JSON object.
pub(super) fn read_object(path: &Path, limit: u64) -> Result<Option<Value>, ModelFileError> {
    let Some(bytes) = read_bytes(path, limit)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(ModelFileError::malformed(path, "it is no JSON object")),
        Err(error) => Err(ModelFileError::malformed(path, format!("it is no JSON: {error}"))),
    }
}
