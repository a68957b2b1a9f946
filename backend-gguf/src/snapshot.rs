//! What surrounds a sequence's state: llama.cpp believes the sizes that it reads, so foreign bytes must not reach it.

use sha2::{Digest, Sha256};

/// Binds snapshots to one model, library version and cache layout.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SnapshotKey([u8; 32]);

/// Bytes in front of the state.
pub(crate) const DIGEST: usize = 32;

impl SnapshotKey {
    /// A key over everything that has to be the same.
    pub(crate) fn new<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    fn digest(&self, n_tokens: u32, state: &[u8]) -> [u8; DIGEST] {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(n_tokens.to_le_bytes());
        hash.update(state);
        hash.finalize().into()
    }

    /// Writes the digest into the first [`DIGEST`] bytes, which must be there.
    pub(crate) fn seal(&self, n_tokens: u32, bytes: &mut [u8]) {
        let digest = self.digest(n_tokens, &bytes[DIGEST..]);
        bytes[..DIGEST].copy_from_slice(&digest);
    }

    /// The state in `bytes`, if it is unchanged and from the same model and settings.
    pub(crate) fn open<'a>(&self, n_tokens: u32, bytes: &'a [u8]) -> Result<&'a [u8], &'static str> {
        let (digest, state) = bytes.split_at_checked(DIGEST).ok_or("the snapshot is too short")?;
        if digest == self.digest(n_tokens, state) {
            Ok(state)
        } else {
            Err("the snapshot is damaged or from another model, version or cache type")
        }
    }
}

impl std::fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SnapshotKey")
    }
}

#[cfg(test)]
mod tests {
    use super::SnapshotKey;

    #[test]
    fn only_the_same_state_under_the_same_key_opens() {
        let key = SnapshotKey::new(["model", "f16"]);
        let mut sealed = [&[0; 32][..], b"state"].concat();
        key.seal(3, &mut sealed);
        assert_eq!(key.open(3, &sealed), Ok(&b"state"[..]));
        assert!(key.open(4, &sealed).is_err(), "another length");
        assert!(SnapshotKey::new(["model", "f32"]).open(3, &sealed).is_err(), "another cache type");
        assert!(SnapshotKey::new(["modelf", "16"]).open(3, &sealed).is_err(), "parts do not run together");
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert!(key.open(3, &broken).is_err(), "byte {at}");
            assert!(key.open(3, &sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
