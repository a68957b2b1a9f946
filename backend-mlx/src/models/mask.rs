//! Which keys which queries see.
//!
//! On a CPU attention is computed in blocks of queries, so that keys after a block's last query are not multiplied only to
//! be masked: for a whole prompt that is almost half of the work.

use crate::tensor::{Device, ElementType, Result, Tensor};

/// Queries per block.
const BLOCK: usize = 128;

/// The queries of one row in blocks.
#[derive(Debug)]
pub(crate) enum Blocks {
    /// One after another.
    Cpu(Vec<Block>),
    /// All at once, for a fused kernel.
    Fused(Mask),
}

/// Consecutive queries and the keys they see.
#[derive(Debug)]
pub(crate) struct Block {
    /// First and last + 1, counted in the row.
    pub(crate) queries: (usize, usize),
    /// First and last + 1, counted in the sequence.
    pub(crate) keys: (usize, usize),
    /// Added to the scores, `[n_queries, n_keys]`: 0 or minus infinity; `None` where all queries see all these keys.
    pub(crate) mask: Option<Tensor>,
}

/// A fused kernel's mask.
#[derive(Debug)]
pub(crate) enum Mask {
    /// One query that sees all keys of its view.
    None,
    /// Each query sees the keys up to its own.
    Causal,
    /// Added to the scores, `[n, n_keys]`.
    Added(Tensor),
}

impl Blocks {
    /// For `n` queries from `position` on; with a window, a query sees that many keys, its own included. Masks are of the
    /// type `compute`: one of f32 would promote everything after it.
    pub(crate) fn new(
        position: usize,
        n: usize,
        window: Option<usize>,
        (device, compute): (Device, ElementType),
    ) -> Result<Self> {
        let end = position + n;
        let binding = window.filter(|window| end > *window);
        if device == Device::Gpu {
            return Ok(Self::Fused(match binding {
                None if n == 1 => Mask::None,
                None => Mask::Causal,
                Some(_) => Mask::Added(mask(position, n, 0, end, binding).cast(compute)?),
            }));
        }
        let blocks = (0..n).step_by(BLOCK).map(|from| {
            let to = (from + BLOCK).min(n);
            let first_key = binding.map_or(0, |window| (position + from + 1).saturating_sub(window));
            let keys = (first_key, position + to);
            let mask = (to - from > 1)
                .then(|| mask(position + from, to - from, keys.0, keys.1, binding).cast(compute))
                .transpose()?;
            Ok(Block { queries: (from, to), keys, mask })
        });
        Ok(Self::Cpu(blocks.collect::<Result<_>>()?))
    }
}

fn mask(position: usize, n: usize, first_key: usize, end_key: usize, window: Option<usize>) -> Tensor {
    let width = end_key - first_key;
    let mut values = vec![f32::NEG_INFINITY; n * width];
    for (query, row) in values.chunks_exact_mut(width).enumerate() {
        let position = position + query;
        let seen_from = window.map_or(0, |window| (position + 1).saturating_sub(window)).max(first_key);
        row[seen_from - first_key..=position - first_key].fill(0.0);
    }
    Tensor::from_f32(&values, &[n, width])
}
