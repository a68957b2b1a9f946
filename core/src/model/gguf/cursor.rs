//! A forward reader over the header of a GGUF file: every length is checked against what is left of the file before
//! anything is read or allocated for it. Reads with ordinary file reads, not through a mapping, so that a file that
//! shrinks meanwhile is an error and not a signal.

use std::fmt::Arguments;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use crate::model::ModelFileError;

/// More header than any real model has (the largest vocabularies make about 30 MB).
pub(super) const MAX_HEADER_BYTES: u64 = 128 << 20;
/// Longer than any chat template or token.
pub(super) const MAX_STRING_BYTES: u64 = 16 << 20;
/// The first read; later ones double what is there.
const FIRST_READ: u64 = 256 << 10;

/// The part of the file that has been read so far, and a position in it.
pub(super) struct Cursor<'a> {
    path: &'a Path,
    file: &'a File,
    file_len: u64,
    bytes: Vec<u8>,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the beginning of `file`, which is `file_len` bytes long.
    pub(super) fn new(path: &'a Path, file: &'a File, file_len: u64) -> Self {
        Self { path, file, file_len, bytes: Vec::new(), at: 0 }
    }

    /// The file's name, for errors.
    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// Bytes from the start of the file.
    pub(super) fn position(&self) -> u64 {
        self.at as u64
    }

    /// Bytes between the position and the end of the file.
    pub(super) fn remaining(&self) -> u64 {
        self.file_len - self.position()
    }

    /// Everything read so far, cut at the position.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.at);
        self.bytes.shrink_to_fit();
        self.bytes
    }

    /// Everything read so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was read at `range`.
    pub(super) fn slice(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }

    /// `Malformed` at the position.
    pub(super) fn malformed(&self, what: impl Into<String>) -> ModelFileError {
        self.malformed_at(self.position(), what)
    }

    /// `Malformed` at `offset`.
    pub(super) fn malformed_at(&self, offset: u64, what: impl Into<String>) -> ModelFileError {
        ModelFileError::Malformed { path: self.path.to_owned(), what: what.into(), offset: Some(offset) }
    }

    /// `LimitExceeded` unless `value` is at most `limit`.
    pub(super) fn check_limit(
        &self,
        what: Arguments<'_>,
        value: u64,
        limit: u64,
    ) -> Result<(), ModelFileError> {
        if value <= limit {
            return Ok(());
        }
        Err(ModelFileError::LimitExceeded {
            path: self.path.to_owned(),
            what: what.to_string(),
            value,
            limit,
        })
    }

    /// `Truncated` unless the file has `n` more bytes.
    pub(super) fn check_remaining(&self, n: u64) -> Result<(), ModelFileError> {
        self.check_file_len(self.position().saturating_add(n))
    }

    /// `Truncated` unless the file has `need_bytes` bytes.
    pub(super) fn check_file_len(&self, need_bytes: u64) -> Result<(), ModelFileError> {
        if need_bytes <= self.file_len {
            return Ok(());
        }
        Err(ModelFileError::Truncated { path: self.path.to_owned(), need_bytes, have_bytes: self.file_len })
    }

    /// Passes over `n` bytes and says where they lie.
    pub(super) fn take(&mut self, n: u64) -> Result<Range<usize>, ModelFileError> {
        self.check_remaining(n)?;
        let end = self.position() + n;
        self.check_limit(format_args!("the header's length"), end, MAX_HEADER_BYTES)?;
        self.fill(end)?;
        let start = self.at;
        self.at += n as usize;
        Ok(start..self.at)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ModelFileError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ModelFileError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length-prefixed string of at most `limit` bytes: where its bytes lie.
    pub(super) fn string(&mut self, what: Arguments<'_>, limit: u64) -> Result<Range<usize>, ModelFileError> {
        let len = self.u64()?;
        self.check_limit(what, len, limit)?;
        self.take(len)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ModelFileError> {
        let range = self.take(N as u64)?;
        let mut out = [0; N];
        out.copy_from_slice(self.slice(&range));
        Ok(out)
    }

    /// Makes the first `end` bytes of the file available; `end` is within the file.
    fn fill(&mut self, end: u64) -> Result<(), ModelFileError> {
        let have = self.bytes.len() as u64;
        if end <= have {
            return Ok(());
        }
        let goal = end.max(FIRST_READ).max(have * 2).min(self.file_len);
        self.bytes.reserve_exact((goal - have) as usize);
        let read = self.file.take(goal - have).read_to_end(&mut self.bytes);
        read.map_err(|source| ModelFileError::io(self.path, source))?;
        if (self.bytes.len() as u64) < end {
            // The file has shrunk since its length was asked for.
            return Err(ModelFileError::Truncated {
                path: self.path.to_owned(),
                need_bytes: end,
                have_bytes: self.bytes.len() as u64,
            });
        }
        Ok(())
    }
}
