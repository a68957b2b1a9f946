//! The sequences of a runner by their ids.

use std::collections::HashSet;

use duet_core::{SeqId, SequenceSnapshot, StepPlan, Want};

use super::LazyToken;
use crate::cache::{CacheShape, SequenceCache};
use crate::tensor::{MlxError, Tensor};

/// A sequence that exists.
#[derive(Debug)]
struct Sequence {
    cache: SequenceCache,
    /// What the step before sampled for it on the device.
    last: Option<LazyToken>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Sequences {
    slots: Vec<Option<Sequence>>,
    n_layers: usize,
    shape: CacheShape,
}

impl Sequences {
    pub(super) fn new(n: usize, n_layers: usize, shape: CacheShape) -> Self {
        Self { slots: (0..n).map(|_| None).collect(), n_layers, shape }
    }

    fn get(&self, seq: SeqId) -> Option<&Sequence> {
        self.slots.get(seq.0 as usize)?.as_ref()
    }

    fn empty(&self) -> Sequence {
        Sequence { cache: SequenceCache::new(self.n_layers, self.shape), last: None }
    }

    /// A cache of no sequence.
    pub(super) fn fresh_cache(&self) -> SequenceCache {
        self.empty().cache
    }

    /// Tokens of `seq`; 0 if it does not exist.
    pub(super) fn len(&self, seq: SeqId) -> usize {
        self.get(seq).map_or(0, |sequence| sequence.cache.len())
    }

    /// Tokens of all of them.
    pub(super) fn n_tokens(&self) -> usize {
        self.slots.iter().flatten().map(|sequence| sequence.cache.len()).sum()
    }

    /// Bytes allocated for all of them, buffers that several share counted once.
    pub(super) fn n_bytes(&self) -> usize {
        let tensors = self.slots.iter().flatten().flat_map(|sequence| sequence.cache.tensors());
        let mut seen = HashSet::new();
        tensors.filter(|tensor| seen.insert(std::ptr::from_ref(*tensor))).map(Tensor::n_bytes).sum()
    }

    /// The token that the step before sampled for `seq` on the device.
    pub(super) fn last_token(&self, seq: SeqId) -> Option<&LazyToken> {
        self.get(seq)?.last.as_ref()
    }

    /// Sets or forgets it.
    pub(super) fn set_last_token(&mut self, seq: SeqId, token: Option<LazyToken>) {
        if let Some(Some(sequence)) = self.slots.get_mut(seq.0 as usize) {
            sequence.last = token;
        }
    }

    /// The caches of the plan's rows, which are in rising order; those that do not exist begin to.
    pub(super) fn caches(&mut self, plan: StepPlan<'_>) -> Vec<&mut SequenceCache> {
        for row in plan.rows {
            let index = row.seq.0 as usize;
            if self.slots[index].is_none() {
                self.slots[index] = Some(self.empty());
            }
        }
        let wanted = |index: usize| plan.rows.binary_search_by_key(&(index as u32), |row| row.seq.0).is_ok();
        let slots = self.slots.iter_mut().enumerate().filter(|(index, _)| wanted(*index));
        slots.filter_map(|(_, slot)| slot.as_mut()).map(|sequence| &mut sequence.cache).collect()
    }

    /// What has to be computed of rows that give no output, whose caches therefore nothing else asks for.
    pub(super) fn tensors_without_output<'a>(
        &'a self,
        plan: StepPlan<'a>,
    ) -> impl Iterator<Item = &'a Tensor> {
        let silent = plan.rows.iter().filter(|row| row.want == Want::Nothing);
        silent.filter_map(|row| self.get(row.seq)).flat_map(|sequence| sequence.cache.tensors())
    }

    /// A value that is computed after the caches of the plan's rows, in a buffer of its own.
    pub(super) fn marker(&self, plan: StepPlan<'_>) -> Result<Option<Tensor>, MlxError> {
        let last = plan.rows.last().and_then(|row| self.get(row.seq));
        let Some(newest) = last.and_then(|sequence| sequence.cache.tensors().last()) else { return Ok(None) };
        let end = self.len(plan.rows[plan.rows.len() - 1].seq);
        let one = newest.slice(&[0, end - 1, 0], &[1, end, 1])?;
        one.add(&one).map(Some)
    }

    /// Where all buffers of `seq` lie, evaluated.
    #[cfg(test)]
    pub(super) fn addresses(&self, seq: SeqId) -> Vec<*const f32> {
        let tensors = self.get(seq).into_iter().flat_map(|sequence| sequence.cache.tensors());
        tensors.map(|tensor| tensor.as_f32().expect("an f32 cache").as_ptr()).collect()
    }

    /// Whether there is such an id.
    pub(super) fn has_id(&self, seq: SeqId) -> bool {
        (seq.0 as usize) < self.slots.len()
    }

    /// Makes `to` begin with the first `n` tokens of `from`; `false` if its cache cannot go back that far.
    pub(super) fn fork(&mut self, from: SeqId, to: SeqId, n: usize) -> Result<bool, MlxError> {
        let Some(source) = self.get(from) else { return Ok(true) };
        let Some(cache) = source.cache.fork(n)? else { return Ok(false) };
        self.slots[to.0 as usize] = Some(Sequence { cache, last: None });
        Ok(true)
    }

    /// Cuts `seq` to `n` tokens; `false` if its cache cannot go back that far.
    pub(super) fn truncate(&mut self, seq: SeqId, n: usize) -> bool {
        match self.slots.get_mut(seq.0 as usize) {
            Some(Some(sequence)) => {
                sequence.last = None;
                sequence.cache.trim_to(n)
            }
            _ => true,
        }
    }

    pub(super) fn release(&mut self, seq: SeqId) {
        if let Some(slot) = self.slots.get_mut(seq.0 as usize) {
            *slot = None;
        }
    }

    pub(super) fn snapshot(&self, seq: SeqId, fingerprint: u64) -> Result<Vec<u8>, MlxError> {
        match self.get(seq) {
            Some(sequence) => sequence.cache.snapshot(fingerprint),
            None => self.empty().cache.snapshot(fingerprint),
        }
    }

    /// `false`: the bytes are not for this runner.
    pub(super) fn restore(&mut self, seq: SeqId, fingerprint: u64, snapshot: &SequenceSnapshot) -> bool {
        let mut sequence = self.empty();
        let fits = sequence.cache.restore(fingerprint, snapshot.n_tokens as usize, &snapshot.bytes);
        if fits {
            self.slots[seq.0 as usize] = Some(sequence);
        }
        fits
    }
}
