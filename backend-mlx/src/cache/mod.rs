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

    /// Makes sure that `n` more tokens can be written in place, which [`LayerCache::update`] else does itself. `true`: by a
    /// copy of what it shares with another cache, to be evaluated before that one is written to, lest libmlx copies again.
    fn make_room(&mut self, n: usize) -> Result<bool>;

    /// Appends keys and values, `[n_kv_heads, n, head_dim]` each, and gives views of all of them, oldest first,
    /// `[n_kv_heads, len, head_dim]`.
    fn update(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)>;

    /// Its buffers, `[n_kv_heads, capacity, head_dim]` f32, with room for `n` more tokens, for a kernel that writes them
    /// itself; the caller then hands them to [`LayerCache::written`]. `None` where only [`LayerCache::update`] will do.
    fn buffers(&mut self, n: usize) -> Result<Option<[Tensor; 2]>>;

    /// Takes over the buffers that `n` more tokens were written to.
    fn written(&mut self, buffers: [Tensor; 2], n: usize);

    /// Goes back to the first `len` tokens. `false`: it cannot go back that far, and nothing has changed.
    fn trim_to(&mut self, len: usize) -> bool;

    /// A cache with the first `len` tokens, which shares this one's buffers or has a copy to be evaluated by the caller;
    /// `None` where it cannot go back.
    fn fork(&self, len: usize) -> Result<Option<Box<dyn LayerCache>>>;

    /// Whether another cache holds the same buffers.
    fn is_shared(&self) -> bool;

    /// Appends what it holds to `state`. It has to be evaluated.
    fn save(&self, state: &mut Vec<u8>) -> Result<()>;

    /// Replaces its content by what a cache of this shape with `len` tokens, at least one, has saved.
    fn load(&mut self, len: usize, state: &[u8]);

    /// The tensors that evaluating it computes.
    fn tensors(&self) -> Vec<&Tensor>;
}
