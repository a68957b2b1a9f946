//! Which tokens a grammar allows next.

use toktrie::SimpleVob;

use crate::text::TokenId;

/// A set of token ids, one bit each.
#[derive(Debug, Clone)]
pub struct Mask(SimpleVob);

impl Mask {
    pub(super) fn new(bits: SimpleVob) -> Self {
        Self(bits)
    }

    /// Exactly these ids out of `vocab_size`; ids beyond it are left out.
    #[must_use]
    pub fn of(ids: &[TokenId], vocab_size: u32) -> Self {
        let mut bits = SimpleVob::alloc(vocab_size as usize);
        for &id in ids.iter().filter(|id| **id < vocab_size) {
            bits.allow_token(id);
        }
        Self(bits)
    }

    /// Whether `id` is in it; ids beyond the vocabulary are not.
    #[must_use]
    pub fn allows(&self, id: TokenId) -> bool {
        (id as usize) < self.0.len() && self.0.is_allowed(id)
    }

    /// Ids 64 · `index` to 64 · `index` + 63, lowest bit first; ids beyond the vocabulary are not in it.
    #[inline]
    pub(crate) fn word(&self, index: usize) -> u64 {
        let halves = self.0.as_slice();
        let half = |at: usize| u64::from(halves.get(at).copied().unwrap_or(0));
        half(2 * index) | half(2 * index + 1) << 32
    }

    pub(super) fn allow(&mut self, id: TokenId) {
        if (id as usize) < self.0.len() {
            self.0.allow_token(id);
        }
    }

    pub(super) fn forbid(&mut self, id: TokenId) {
        if (id as usize) < self.0.len() {
            self.0.disallow_token(id);
        }
    }
}
