//! Keys and values of every token, in buffers that grow by steps and are written in place.

use super::LayerCache;
use super::sequence::CacheShape;
use crate::tensor::{Result, Tensor};

/// Tokens by which a buffer grows. GPU attention kernels want lengths that are a multiple of 256.
const GROWTH: usize = 256;

/// A key/value cache that can be cut anywhere.
#[derive(Debug)]
pub(crate) struct KvCache {
    shape: CacheShape,
    /// Keys and values, `[n_kv_heads, capacity, head_dim]`.
    buffers: Option<[Tensor; 2]>,
    len: usize,
}

impl KvCache {
    /// An empty one, which allocates nothing yet.
    pub(crate) fn new(shape: CacheShape) -> Self {
        Self { shape, buffers: None, len: 0 }
    }

    fn capacity(&self) -> usize {
        self.buffers.as_ref().map_or(0, |[keys, _]| keys.len(1))
    }

    /// The first `len` tokens of a buffer; a view.
    fn view(&self, buffer: &Tensor, len: usize) -> Result<Tensor> {
        buffer.slice(&[0, 0, 0], &[self.shape.n_kv_heads, len, self.shape.head_dim])
    }

    /// Buffers for at least `needed` tokens that begin with the first `len` of this cache's.
    fn grown(&self, len: usize, needed: usize) -> Result<[Tensor; 2]> {
        let CacheShape { n_kv_heads, head_dim, ty } = self.shape;
        let capacity = needed.next_multiple_of(GROWTH);
        let grow = |side: usize| -> Result<Tensor> {
            let mut buffer = Tensor::zeros(&[n_kv_heads, capacity, head_dim], ty)?;
            if let Some(old) = self.buffers.as_ref().filter(|_| len > 0) {
                buffer.write(&self.view(&old[side], len)?, &[0, 0, 0], &[n_kv_heads, len, head_dim])?;
            }
            Ok(buffer)
        };
        Ok([grow(0)?, grow(1)?])
    }
}

impl LayerCache for KvCache {
    fn len(&self) -> usize {
        self.len
    }

    fn update(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let CacheShape { n_kv_heads, head_dim, ty } = self.shape;
        let end = self.len + keys.len(1);
        if end > self.capacity() {
            self.buffers = Some(self.grown(self.len, end)?);
        }
        let len = self.len;
        let [to_keys, to_values] = self.buffers.as_mut().expect("grown above");
        for (buffer, new) in [(to_keys, keys), (to_values, values)] {
            buffer.write(&new.cast(ty)?, &[0, len, 0], &[n_kv_heads, end, head_dim])?;
        }
        self.len = end;
        let [keys, values] = self.buffers.as_ref().expect("grown above");
        Ok((self.view(keys, end)?, self.view(values, end)?))
    }

    fn trim_to(&mut self, len: usize) -> bool {
        self.len = self.len.min(len);
        if self.len == 0 {
            self.buffers = None;
        }
        true
    }

    fn fork(&self, len: usize) -> Result<Option<Box<dyn LayerCache>>> {
        let len = len.min(self.len);
        let buffers = match len {
            0 => None,
            _ => Some(self.grown(len, len)?),
        };
        Ok(Some(Box::new(Self { shape: self.shape, buffers, len })))
    }

    fn export(&self) -> Result<Vec<(&'static str, Tensor)>> {
        let Some([keys, values]) = &self.buffers else { return Ok(Vec::new()) };
        let part = |buffer| self.view(buffer, self.len)?.contiguous();
        Ok(vec![("keys", part(keys)?), ("values", part(values)?)])
    }

    fn import(&mut self, len: usize, tensors: Vec<Tensor>) -> Result<()> {
        (self.buffers, self.len) = (None, 0);
        if let [keys, values] = tensors.as_slice() {
            self.update(keys, values)?;
            debug_assert_eq!(self.len, len, "as many tokens as the tensors have");
        }
        Ok(())
    }

    fn tensors(&self) -> Vec<&Tensor> {
        self.buffers.iter().flatten().collect()
    }

    fn n_bytes(&self) -> usize {
        self.tensors().into_iter().map(Tensor::n_bytes).sum()
    }
}
