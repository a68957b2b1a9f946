//! A row of logits seen in blocks, with a few entries replaced, without copying the row.

use super::SampleError;
use crate::constraint::Mask;
use crate::text::TokenId;

/// Entries looked at together: small enough that few blocks hold a top-k set, large enough for wide vectors.
pub(super) const BLOCK: usize = 64;
const N_LANES: usize = 16;

/// Logits [vocab_size] and what takes the place of some of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    logits: &'a [f32],
    /// By rising id, all within the row.
    overlay: &'a [(TokenId, f32)],
    /// Everything outside of it counts as minus infinity.
    mask: Option<&'a Mask>,
}

impl<'a> Row<'a> {
    pub(super) fn new(logits: &'a [f32], overlay: &'a [(TokenId, f32)], mask: Option<&'a Mask>) -> Self {
        Self { logits, overlay, mask }
    }

    /// Which of a block's entries the mask leaves, lowest id first.
    #[inline]
    fn allowed(&self, index: usize) -> u64 {
        self.mask.map_or(u64::MAX, |mask| mask.word(index))
    }

    /// Block `index` as it counts: the row's own memory, or a copy in `scratch` if something in it is replaced.
    #[inline]
    pub(super) fn block<'s>(&self, index: usize, scratch: &'s mut [f32; BLOCK]) -> &'s [f32]
    where
        'a: 's,
    {
        let start = index * BLOCK;
        let end = self.logits.len().min(start + BLOCK);
        let plain = &self.logits[start..end];
        let allowed = self.allowed(index);
        if self.overlay.is_empty() && allowed == u64::MAX {
            return plain;
        }
        let from = self.overlay.partition_point(|&(id, _)| (id as usize) < start);
        let n = self.overlay[from..].iter().take_while(|&&(id, _)| (id as usize) < end).count();
        with_replaced(plain, start, &self.overlay[from..from + n], allowed, scratch)
    }

    /// Calls `visit` with every block in order.
    #[inline]
    pub(super) fn for_each_block(&self, mut visit: impl FnMut(&[f32])) {
        let mut scratch = [0.0; BLOCK];
        let mut rest = self.overlay;
        for (index, plain) in self.logits.chunks(BLOCK).enumerate() {
            let start = index * BLOCK;
            let n = rest.iter().take_while(|&&(id, _)| (id as usize) < start + BLOCK).count();
            let (replaced, later) = rest.split_at(n);
            rest = later;
            visit(with_replaced(plain, start, replaced, self.allowed(index), &mut scratch));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.logits.len()
    }

    /// One pass over the row: each block's highest logit into `maxima`, the highest of all as the result.
    ///
    /// # Errors
    /// [`SampleError`] for a row from which nothing can be chosen.
    pub(super) fn scan(&self, maxima: &mut Vec<f32>) -> Result<f32, SampleError> {
        maxima.clear();
        let mut has_nan = false;
        self.for_each_block(|block| {
            let (max, nan) = block_max(block);
            has_nan |= nan;
            maxima.push(max);
        });
        let max = maxima.iter().copied().fold(f32::NEG_INFINITY, greater);
        if has_nan {
            Err(SampleError::NotANumber)
        } else if max == f32::INFINITY {
            Err(SampleError::Infinite)
        } else if max == f32::NEG_INFINITY {
            Err(SampleError::NothingAllowed)
        } else {
            Ok(max)
        }
    }

    /// Calls `visit` with id and logit of everything that is at least `floor` and not minus infinity, by rising id;
    /// `maxima` is what [`Row::scan`] found.
    pub(super) fn for_each_from(&self, floor: f32, maxima: &[f32], mut visit: impl FnMut(TokenId, f32)) {
        let floor = floor.max(f32::MIN);
        let mut scratch = [0.0; BLOCK];
        for (index, &max) in maxima.iter().enumerate() {
            if max < floor {
                continue;
            }
            for (at, &logit) in self.block(index, &mut scratch).iter().enumerate() {
                if logit >= floor {
                    visit((index * BLOCK + at) as TokenId, logit);
                }
            }
        }
    }

    /// The logit `n` standard deviations below the highest one; minus infinities take no part.
    pub(super) fn sigma_floor(&self, max: f32, n: f32) -> f32 {
        let (mut count, mut sum, mut squares) = (0u32, 0.0f64, 0.0f64);
        self.for_each_block(|block| {
            for &logit in block.iter().filter(|logit| logit.is_finite()) {
                // Relative to the highest, so that little is lost in the difference of squares.
                let below = f64::from(max - logit);
                count += 1;
                sum += below;
                squares += below * below;
            }
        });
        let mean = sum / f64::from(count);
        let variance = (squares / f64::from(count) - mean * mean).max(0.0);
        max - (f64::from(n) * variance.sqrt()) as f32
    }

    /// The lowest id whose logit is `max`.
    pub(super) fn first_of(&self, max: f32, maxima: &[f32]) -> TokenId {
        let mut scratch = [0.0; BLOCK];
        let index = maxima.iter().position(|&block| block == max).unwrap_or(0);
        let at = self.block(index, &mut scratch).iter().position(|&logit| logit == max).unwrap_or(0);
        (index * BLOCK + at) as TokenId
    }
}

/// `plain`, which begins at id `start`, or a copy of it in `scratch` with the entries of `replaced` in their places and
/// minus infinity where `allowed` has no bit.
#[inline]
fn with_replaced<'s>(
    plain: &'s [f32],
    start: usize,
    replaced: &[(TokenId, f32)],
    allowed: u64,
    scratch: &'s mut [f32; BLOCK],
) -> &'s [f32] {
    if replaced.is_empty() && allowed == u64::MAX {
        return plain;
    }
    let copy = &mut scratch[..plain.len()];
    if allowed == 0 {
        copy.fill(f32::NEG_INFINITY);
        return copy;
    }
    copy.copy_from_slice(plain);
    for &(id, logit) in replaced {
        copy[id as usize - start] = logit;
    }
    if allowed != u64::MAX {
        for (at, logit) in copy.iter_mut().enumerate() {
            // Without a branch, so that it is done for several at once.
            *logit = if allowed >> at & 1 == 1 { *logit } else { f32::NEG_INFINITY };
        }
    }
    copy
}

/// `f32::max` without its care for NaN, which costs instructions: a NaN on the left is dropped.
#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The highest value that is a number, and whether there is one that is not.
#[inline]
pub(super) fn block_max(block: &[f32]) -> (f32, bool) {
    let mut lanes = [f32::NEG_INFINITY; N_LANES];
    let mut nans = [0u32; N_LANES];
    let (chunks, rest) = block.as_chunks::<N_LANES>();
    for chunk in chunks {
        for lane in 0..N_LANES {
            lanes[lane] = greater(chunk[lane], lanes[lane]);
            nans[lane] |= u32::from(chunk[lane].is_nan());
        }
    }
    let mut max = f32::NEG_INFINITY;
    let mut nan = 0;
    for lane in 0..N_LANES {
        max = greater(lanes[lane], max);
        nan |= nans[lane];
    }
    for &value in rest {
        max = greater(value, max);
        nan |= u32::from(value.is_nan());
    }
    (max, nan != 0)
}
