//! The form of one file: a header, the tokens, the payload. Little-endian; docs/decisions/prefix-cache.md has the table.
//!
//! Nothing is believed before it was checked: lengths against the file's own size and the limits, contents against their
//! checksums. Memory is asked for only after that, and a refusal is an error.

use std::io::{self, Read};
use std::ops::Range;

use twox_hash::XxHash3_64;

use super::ModelKey;
use super::error::{PrefixFileError, io_error};
use crate::runner::SequenceSnapshot;
use crate::text::TokenId;

const MAGIC: [u8; 8] = *b"duet-kv\n";
const VERSION: u32 = 1;
/// Bytes before the tokens.
pub(super) const HEADER_BYTES: u64 = 80;
/// More tokens than any model's context; a bound for what reading the tokens may ask for.
pub(super) const MAX_TOKENS: u32 = 1 << 24;

const AT_VERSION: Range<usize> = 8..12;
const AT_N_TOKENS: Range<usize> = 12..16;
const AT_KEY: Range<usize> = 16..48;
const AT_PAYLOAD_BYTES: Range<usize> = 48..56;
const AT_TOKENS_SUM: Range<usize> = 56..64;
const AT_PAYLOAD_SUM: Range<usize> = 64..72;
const AT_HEADER_SUM: Range<usize> = 72..80;

/// What a header promises, once it has been checked against the file's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) n_tokens: u32,
    pub(super) payload_bytes: u64,
    tokens_sum: u64,
    payload_sum: u64,
}

/// Header and tokens: all that lies before the payload. At most [`MAX_TOKENS`] tokens.
pub(super) fn head(key: &ModelKey, tokens: &[TokenId], payload: &[u8]) -> Vec<u8> {
    let token_bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let mut head = vec![0; HEADER_BYTES as usize];
    head[..8].copy_from_slice(&MAGIC);
    head[AT_VERSION].copy_from_slice(&VERSION.to_le_bytes());
    head[AT_N_TOKENS].copy_from_slice(&(tokens.len() as u32).to_le_bytes());
    head[AT_KEY].copy_from_slice(key.bytes());
    head[AT_PAYLOAD_BYTES].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    head[AT_TOKENS_SUM].copy_from_slice(&XxHash3_64::oneshot(&token_bytes).to_le_bytes());
    head[AT_PAYLOAD_SUM].copy_from_slice(&XxHash3_64::oneshot(payload).to_le_bytes());
    let sum = XxHash3_64::oneshot(&head[..AT_HEADER_SUM.start]);
    head[AT_HEADER_SUM].copy_from_slice(&sum.to_le_bytes());
    head.extend(token_bytes);
    head
}

/// Reads and checks the header of a file of `file_bytes` bytes.
pub(super) fn read_header(
    from: &mut impl Read,
    key: &ModelKey,
    file_bytes: u64,
) -> Result<Header, PrefixFileError> {
    if file_bytes < HEADER_BYTES {
        return Err(PrefixFileError::WrongLength { expected: HEADER_BYTES, found: file_bytes });
    }
    let mut raw = [0; HEADER_BYTES as usize];
    from.read_exact(&mut raw).map_err(io_error("read"))?;
    if raw[..8] != MAGIC {
        return Err(PrefixFileError::Foreign);
    }
    let version = u32_at(&raw, AT_VERSION);
    if version != VERSION {
        return Err(PrefixFileError::OtherVersion { version });
    }
    if u64_at(&raw, AT_HEADER_SUM) != XxHash3_64::oneshot(&raw[..AT_HEADER_SUM.start]) {
        return Err(PrefixFileError::Checksum { part: "header" });
    }
    if raw[AT_KEY] != key.bytes()[..] {
        return Err(PrefixFileError::OtherModel);
    }
    let header = Header {
        n_tokens: u32_at(&raw, AT_N_TOKENS),
        payload_bytes: u64_at(&raw, AT_PAYLOAD_BYTES),
        tokens_sum: u64_at(&raw, AT_TOKENS_SUM),
        payload_sum: u64_at(&raw, AT_PAYLOAD_SUM),
    };
    header.check_lengths(file_bytes)?;
    Ok(header)
}

impl Header {
    fn check_lengths(&self, file_bytes: u64) -> Result<(), PrefixFileError> {
        if self.n_tokens == 0 || self.n_tokens > MAX_TOKENS {
            return Err(PrefixFileError::TooManyTokens { n_tokens: self.n_tokens });
        }
        let payload_at = HEADER_BYTES + u64::from(self.n_tokens) * 4;
        match payload_at.checked_add(self.payload_bytes) {
            Some(expected) if expected == file_bytes => Ok(()),
            expected => Err(PrefixFileError::WrongLength {
                expected: expected.unwrap_or(u64::MAX),
                found: file_bytes,
            }),
        }
    }

    /// Reads and checks the tokens, which come next in the file.
    pub(super) fn read_tokens(&self, from: &mut impl Read) -> Result<Vec<TokenId>, PrefixFileError> {
        let bytes = read_exactly(from, u64::from(self.n_tokens) * 4)?;
        if XxHash3_64::oneshot(&bytes) != self.tokens_sum {
            return Err(PrefixFileError::Checksum { part: "tokens" });
        }
        let token = |bytes: &[u8]| TokenId::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok(bytes.chunks_exact(4).map(token).collect())
    }

    /// Reads and checks the payload, which comes after the tokens.
    pub(super) fn read_payload(&self, from: &mut impl Read) -> Result<SequenceSnapshot, PrefixFileError> {
        let bytes = read_exactly(from, self.payload_bytes)?;
        if XxHash3_64::oneshot(&bytes) != self.payload_sum {
            return Err(PrefixFileError::Checksum { part: "payload" });
        }
        Ok(SequenceSnapshot { n_tokens: self.n_tokens, bytes })
    }
}

/// `n_bytes` bytes in a vector of just that size. The caller knows that the file has as many.
fn read_exactly(from: &mut impl Read, n_bytes: u64) -> Result<Vec<u8>, PrefixFileError> {
    let too_big = || PrefixFileError::NoMemory { n_bytes };
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(n_bytes).map_err(|_| too_big())?).map_err(|_| too_big())?;
    // Unlike `read_exact`, this does not have to zero the vector first.
    from.take(n_bytes).read_to_end(&mut bytes).map_err(io_error("read"))?;
    if bytes.len() as u64 != n_bytes {
        return Err(io_error("read")(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(bytes)
}

fn u32_at(raw: &[u8], at: Range<usize>) -> u32 {
    u32::from_le_bytes(raw[at].try_into().expect("the range has four bytes"))
}

fn u64_at(raw: &[u8], at: Range<usize>) -> u64 {
    u64::from_le_bytes(raw[at].try_into().expect("the range has eight bytes"))
}
