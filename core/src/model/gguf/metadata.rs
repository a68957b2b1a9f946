//! GGUF metadata: keys and typed access to their values.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::cursor::{Cursor, MAX_STRING_BYTES};
use super::value::{Array, StoredValue, Value};
use crate::model::ModelFileError;

/// More keys than any real model has (about 50).
const MAX_KEYS: u64 = 1 << 16;
/// Length field of the key, one byte of it, type, and a value of one byte.
const LEAST_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;
/// From the format's specification.
const MAX_KEY_BYTES: u64 = 65_535;

/// The keys and values of a GGUF file, in its order.
#[derive(Debug)]
pub struct Metadata {
    path: PathBuf,
    /// The file from its start to the end of the tensor table, which the values point into.
    header: Vec<u8>,
    entries: Vec<(String, StoredValue)>,
    by_key: HashMap<String, usize>,
}

impl Metadata {
    /// The keys, in the file's order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|(key, _)| key.as_str())
    }

    /// The value under `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let (_, value) = &self.entries[*self.by_key.get(key)?];
        value.view(&self.header)
    }

    /// The integer under `key`, of any width or sign in the file.
    ///
    /// # Errors
    /// `Malformed` if it is something else, negative, or too large for 32 bits. The same holds for the others below.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, ModelFileError> {
        self.typed(key, "an integer of 32 bits", |value| value.as_u64()?.try_into().ok())
    }

    /// The integer under `key`.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, ModelFileError> {
        self.typed(key, "an unsigned integer", |value| value.as_u64())
    }

    /// The finite number under `key`.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, ModelFileError> {
        self.typed(key, "a finite number", |value| {
            let value = value.as_f64()? as f32;
            value.is_finite().then_some(value)
        })
    }

    /// The flag under `key`.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ModelFileError> {
        self.typed(key, "a boolean", |value| value.as_bool())
    }

    /// The text under `key`.
    pub fn str(&self, key: &str) -> Result<Option<&str>, ModelFileError> {
        self.typed(key, "a string of UTF-8", |value| match value {
            Value::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// The array under `key`.
    pub fn array(&self, key: &str) -> Result<Option<Array<'_>>, ModelFileError> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    /// As [`u32`](Self::u32), with a missing key being `Malformed` as well.
    pub fn require_u32(&self, key: &str) -> Result<u32, ModelFileError> {
        self.u32(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`str`](Self::str), with a missing key being `Malformed` as well.
    pub fn require_str(&self, key: &str) -> Result<&str, ModelFileError> {
        self.str(key)?.ok_or_else(|| self.missing(key))
    }

    /// `Malformed` about this file.
    pub(crate) fn malformed(&self, what: impl Into<String>) -> ModelFileError {
        ModelFileError::malformed(&self.path, what)
    }

    fn missing(&self, key: &str) -> ModelFileError {
        self.malformed(format!("the key {key:?} is missing"))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, ModelFileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.malformed(format!("the key {key:?} is {}, not {expected}", value.kind()))),
        }
    }
}

/// Keys and values as they are read, before the header's bytes are complete.
pub(super) struct MetadataReader {
    entries: Vec<(String, StoredValue)>,
    by_key: HashMap<String, usize>,
}

impl MetadataReader {
    /// Reads `n` entries at the cursor.
    pub(super) fn read(cursor: &mut Cursor<'_>, n: u64) -> Result<Self, ModelFileError> {
        cursor.check_limit(format_args!("the number of metadata keys"), n, MAX_KEYS)?;
        cursor.check_remaining(n * LEAST_ENTRY_BYTES)?;
        let mut out = Self { entries: Vec::new(), by_key: HashMap::new() };
        for index in 0..n as usize {
            let start = cursor.position();
            let key = cursor.string(format_args!("the length of key {index}"), MAX_KEY_BYTES)?;
            let key = match std::str::from_utf8(cursor.slice(&key)) {
                Ok("") => return Err(cursor.malformed_at(start, format!("key {index} is empty"))),
                Ok(key) => key.to_owned(),
                Err(_) => return Err(cursor.malformed_at(start, format!("key {index} is not UTF-8"))),
            };
            let value = StoredValue::read(cursor, &key)?;
            if out.by_key.insert(key.clone(), index).is_some() {
                return Err(cursor.malformed_at(start, format!("the key {key:?} occurs twice")));
            }
            out.entries.push((key, value));
        }
        Ok(out)
    }

    /// The alignment of tensor data in bytes, given what the cursor has read.
    pub(super) fn alignment(&self, cursor: &Cursor<'_>) -> Result<u64, ModelFileError> {
        const KEY: &str = "general.alignment";
        let Some(&index) = self.by_key.get(KEY) else { return Ok(32) };
        let value = self.entries[index].1.view(cursor.bytes());
        match value.and_then(|value| value.as_u64()) {
            Some(n) if n.is_power_of_two() && n <= MAX_STRING_BYTES => Ok(n),
            _ => Err(cursor.malformed(format!("{KEY:?} is not a power of two"))),
        }
    }

    /// The finished metadata over the header's bytes.
    pub(super) fn finish(self, path: &Path, header: Vec<u8>) -> Metadata {
        Metadata { path: path.to_owned(), header, entries: self.entries, by_key: self.by_key }
    }
}
