//! What layers remember of a sequence.
//!
//! One interface for all kinds: a plain key/value cache now; windows that forget, quantised values and states later.
//! Callers never keep a tensor of a cache beyond the step it was given for: a second handle on a buffer at its next write
//! turns a write of one token into a copy of the whole cache.

mod kv;
mod sequence;
#[cfg(test)]
mod tests;

pub(crate) use kv::KvCache;
pub(crate) use sequence::{CacheShape, SequenceCache};

use crate::tensor::{Result, Tensor};

/// One layer's memory of one sequence.
pub(crate) trait LayerCache: std::fmt::Debug {
    /// Tokens in it.
    fn len(&self) -> usize;

    /// Appends keys and values, `[n_kv_heads, n, head_dim]` each, and gives views of all of them, oldest first,
    /// `[n_kv_heads, len, head_dim]`.
    fn update(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)>;

    /// Goes back to the first `len` tokens. `false`: it cannot go back that far, and nothing has changed.
    fn trim_to(&mut self, len: usize) -> bool;

    /// A cache of its own with the first `len` tokens, to be evaluated by the caller; `None` where it cannot go back.
    fn fork(&self, len: usize) -> Result<Option<Box<dyn LayerCache>>>;

    /// What it holds, contiguous and by name: all that [`LayerCache::import`] needs besides its length.
    fn export(&self) -> Result<Vec<(&'static str, Tensor)>>;

    /// Replaces its content by exported tensors of `len` tokens.
    fn import(&mut self, len: usize, tensors: Vec<Tensor>) -> Result<()>;

    /// The tensors that evaluating it computes.
    fn tensors(&self) -> Vec<&Tensor>;

    /// Bytes allocated.
    fn n_bytes(&self) -> usize;
}
