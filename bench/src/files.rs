//! Hashes of what was measured.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use duet_core::text::TokenId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A file, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileHash {
    /// Where it was.
    pub path: PathBuf,
    /// Its length.
    pub n_bytes: u64,
    /// SHA-256, in hex.
    pub sha256: String,
}

/// Reads and hashes a file; `advanced` is told the bytes of each piece. Blocks; bounded memory.
///
/// # Errors
/// What the system says to opening or reading it.
pub fn hash_file(path: &Path, mut advanced: impl FnMut(u64)) -> std::io::Result<FileHash> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut n_bytes = 0;
    loop {
        let n = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&piece[..n]);
        n_bytes += n as u64;
        advanced(n as u64);
    }
    Ok(FileHash { path: path.to_owned(), n_bytes, sha256: hex(&hasher.finalize()) })
}

/// SHA-256 of token ids, each as four bytes, lowest first; in hex.
pub fn hash_ids(ids: &[TokenId]) -> String {
    let mut hasher = Sha256::new();
    for id in ids {
        hasher.update(id.to_le_bytes());
    }
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String does not fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_hashed_by_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        let mut told = 0;
        let found = hash_file(&path, |n| told += n).unwrap();
        assert_eq!(found.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((found.n_bytes, told), (3, 3));
        assert!(hash_file(&dir.path().join("y"), |_| {}).is_err());
    }

    #[test]
    fn ids_are_hashed_as_little_endian_words() {
        // printf '\x01\0\0\0\xff\0\x01\0' | sha256sum
        let expected = "1c18a85b574951e361110b66cf57ee614100bb8e876517b1ec8eb077a27de24c";
        let found = hash_ids(&[1, 0x0001_00ff]);
        assert_eq!(found, expected);
        assert_ne!(found, hash_ids(&[0x0001_00ff, 1]), "the order counts");
    }
}
