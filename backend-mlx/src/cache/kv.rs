//! Keys and values of every token, in buffers that grow by steps, are written in place and can be shared.

use std::rc::Rc;

use super::LayerCache;
use super::sequence::CacheShape;
use crate::tensor::{ElementType, Result, Tensor, concat};

/// Buffers are a multiple of so many tokens. GPU attention kernels want lengths that are.
pub(super) const GROWTH: usize = 256;

/// A key/value cache that can be cut anywhere.
#[derive(Debug)]
pub(crate) struct KvCache {
    shape: CacheShape,
    /// Keys and values, `[n_kv_heads, capacity, head_dim]`. Forks hold the same ones until either side writes: the writer
    /// then takes a copy of its own, of no more than its own tokens.
    buffers: Option<Rc<[Tensor; 2]>>,
    len: usize,
}

impl KvCache {
    /// An empty one, which allocates nothing yet.
    pub(crate) fn new(shape: CacheShape) -> Self {
        Self { shape, buffers: None, len: 0 }
    }

    fn capacity(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers[0].len(1))
    }

    /// The first `len` tokens of a buffer; a view.
    fn view(&self, buffer: &Tensor, len: usize) -> Result<Tensor> {
        buffer.slice(&[0, 0, 0], &[self.shape.n_kv_heads, len, self.shape.head_dim])
    }

    /// New buffers of this capacity that begin with the first `len` of this cache's tokens.
    fn copied(&self, len: usize, capacity: usize) -> Result<Rc<[Tensor; 2]>> {
        let CacheShape { n_kv_heads, head_dim, ty } = self.shape;
        let copy = |side: usize| -> Result<Tensor> {
            let rest = Tensor::zeros(&[n_kv_heads, capacity - len, head_dim], ty)?;
            match self.buffers.as_ref().filter(|_| len > 0) {
                Some(old) => concat(&[self.view(&old[side], len)?, rest], 1),
                None => Ok(rest),
            }
        };
        Ok(Rc::new([copy(0)?, copy(1)?]))
    }
}

/// Capacity of a buffer for `len` tokens and the next one.
fn capacity_for(len: usize) -> usize {
    (len + 1).next_multiple_of(GROWTH)
}

impl LayerCache for KvCache {
    fn len(&self) -> usize {
        self.len
    }

    fn make_room(&mut self, n: usize) -> Result<bool> {
        let (needed, capacity) = (self.len + n, self.capacity());
        let is_copy = self.is_shared() && self.len > 0;
        if self.is_shared() {
            self.buffers = Some(self.copied(self.len, needed.next_multiple_of(GROWTH))?);
        } else if needed > capacity {
            // By an eighth at least, so that a long prompt is not copied at every chunk.
            let capacity = needed.max(capacity + capacity / 8).next_multiple_of(GROWTH);
            self.buffers = Some(self.copied(self.len, capacity)?);
        }
        Ok(is_copy)
    }

    fn update(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let CacheShape { n_kv_heads, head_dim, ty } = self.shape;
        let (len, end) = (self.len, self.len + keys.len(1));
        self.make_room(end - len)?;
        let buffers = self.buffers.as_mut().and_then(Rc::get_mut).expect("made its own above");
        for (buffer, new) in buffers.iter_mut().zip([keys, values]) {
            buffer.write(&new.cast(ty)?, &[0, len, 0], &[n_kv_heads, end, head_dim])?;
        }
        self.len = end;
        let [keys, values] = self.buffers.as_deref().expect("as above");
        Ok((self.view(keys, end)?, self.view(values, end)?))
    }

    fn buffers(&mut self, n: usize) -> Result<Option<[Tensor; 2]>> {
        if self.shape.ty != ElementType::F32 {
            return Ok(None);
        }
        self.make_room(n)?;
        Ok(self.buffers.as_deref().cloned())
    }

    fn written(&mut self, buffers: [Tensor; 2], n: usize) {
        self.buffers = Some(Rc::new(buffers));
        self.len += n;
    }

    fn trim_to(&mut self, len: usize) -> bool {
        self.len = self.len.min(len);
        if self.len == 0 {
            self.buffers = None;
        }
        true
    }

    /// Much shorter forks get a copy at once: sharing would keep the whole of a long buffer alive for a short prefix.
    fn fork(&self, len: usize) -> Result<Option<Box<dyn LayerCache>>> {
        let len = len.min(self.len);
        let buffers = match &self.buffers {
            Some(shared) if 2 * capacity_for(len) > self.capacity() => Some(shared.clone()),
            Some(_) if len > 0 => Some(self.copied(len, capacity_for(len))?),
            _ => None,
        };
        Ok(Some(Box::new(Self { shape: self.shape, buffers: buffers.filter(|_| len > 0), len })))
    }

    fn is_shared(&self) -> bool {
        self.buffers.as_ref().is_some_and(|buffers| Rc::strong_count(buffers) > 1)
    }

    fn save(&self, state: &mut Vec<u8>) -> Result<()> {
        for buffer in self.tensors() {
            let token = self.shape.n_bytes(1) / self.shape.n_kv_heads;
            for head in buffer.as_le_bytes()?.chunks_exact(self.capacity() * token) {
                state.extend_from_slice(&head[..self.len * token]);
            }
        }
        Ok(())
    }

    fn load(&mut self, len: usize, state: &[u8]) {
        let CacheShape { n_kv_heads, head_dim, ty } = self.shape;
        let capacity = capacity_for(len);
        let side = |state: &[u8]| {
            let mut padded = vec![0; self.shape.n_bytes(capacity)];
            let heads = padded.chunks_exact_mut(self.shape.n_bytes(capacity) / n_kv_heads);
            for (to, from) in heads.zip(state.chunks_exact(state.len() / n_kv_heads)) {
                to[..from.len()].copy_from_slice(from);
            }
            Tensor::from_le_bytes(ty, &padded, &[n_kv_heads, capacity, head_dim])
        };
        let (keys, values) = state.split_at(state.len() / 2);
        self.buffers = Some(Rc::new([side(keys), side(values)]));
        self.len = len;
    }

    fn tensors(&self) -> Vec<&Tensor> {
        self.buffers.iter().flat_map(|buffers| buffers.iter()).collect()
    }
}
