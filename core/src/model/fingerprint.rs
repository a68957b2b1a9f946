//! What a model's files hold, in milliseconds: lengths and samples, not every byte.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Places of a file that are looked at; a model of 100 GB is not read for this.
const N_SAMPLES: u64 = 16;
const SAMPLE_BYTES: u64 = 64 << 10;

/// SHA-256 in hex over the length of each file and sixteen pieces of it, evenly spread, wherever the files lie. Tells
/// models and quantisations apart; not made to resist somebody who changes single bytes between the pieces.
///
/// # Errors
/// What the system says to a file that cannot be read.
pub fn fingerprint(files: &[PathBuf]) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    for path in files {
        sample(path, &mut hash)?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Adds a file's length and its pieces to `hash`.
pub(crate) fn sample(path: &Path, hash: &mut Sha256) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    hash.update(len.to_le_bytes());
    let mut part = Vec::with_capacity(SAMPLE_BYTES as usize);
    for index in 0..N_SAMPLES {
        part.clear();
        let last = len.saturating_sub(SAMPLE_BYTES);
        file.seek(SeekFrom::Start(last * index / (N_SAMPLES - 1)))?;
        file.by_ref().take(SAMPLE_BYTES).read_to_end(&mut part)?;
        hash.update(&part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_and_the_place_does_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("a file");
            path
        };
        let long = vec![7; 3 << 20];
        let mut other = long.clone();
        *other.last_mut().expect("it is long") = 8;
        let [a, b, c, d] = [("a", &long), ("b", &long), ("c", &other), ("d", &long[1..].to_vec())]
            .map(|(name, bytes)| fingerprint(&[write(name, bytes)]).expect("a readable file"));
        assert_eq!((a.len(), &a), (64, &b));
        assert!(a != c && a != d && c != d);
        assert!(fingerprint(&[dir.path().join("missing")]).is_err());
        let empty = fingerprint(&[write("empty", b"")]).expect("an empty file is one");
        assert_ne!(empty, fingerprint(&[]).expect("no file"));
    }
}
