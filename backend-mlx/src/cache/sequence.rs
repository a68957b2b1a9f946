//! All layers' caches of one sequence, and its state as bytes.

use super::{KvCache, LayerCache};
use crate::tensor::{ElementType, Result, Tensor, eval};

/// The shape of one layer's keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheShape {
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Type of the elements.
    pub(crate) ty: ElementType,
}

impl CacheShape {
    /// Bytes of one layer's keys, or values, of `len` tokens.
    pub(super) fn n_bytes(self, len: usize) -> usize {
        self.n_kv_heads * self.head_dim * self.ty.size() * len
    }
}

/// One sequence's memory in all layers.
#[derive(Debug)]
pub(crate) struct SequenceCache {
    shape: CacheShape,
    layers: Vec<Box<dyn LayerCache>>,
}

/// Says what the bytes of a snapshot are, and of which version of this format.
const MAGIC: &[u8; 8] = b"duetmlx1";

impl SequenceCache {
    /// An empty one.
    pub(crate) fn new(n_layers: usize, shape: CacheShape) -> Self {
        let layer = |_| Box::new(KvCache::new(shape)) as Box<dyn LayerCache>;
        Self { shape, layers: (0..n_layers).map(layer).collect() }
    }

    /// The cache of layer `index`.
    pub(crate) fn layer(&mut self, index: usize) -> &mut dyn LayerCache {
        self.layers[index].as_mut()
    }

    /// Tokens in it.
    pub(crate) fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.len())
    }

    /// Goes back to the first `len` tokens, or leaves everything as it is and gives `false`.
    pub(crate) fn trim_to(&mut self, len: usize) -> bool {
        // All kinds that exist can be cut anywhere; the first one that cannot refuses before any has changed.
        self.layers.iter_mut().all(|layer| layer.trim_to(len))
    }

    /// Makes sure that `n` more tokens can be written in place. What has to be copied for that of buffers that another
    /// sequence shares is evaluated here, so that this one no longer holds them.
    pub(crate) fn make_room(&mut self, n: usize) -> Result<()> {
        let mut copies = Vec::new();
        for layer in &mut self.layers {
            if layer.make_room(n)? {
                copies.extend(layer.tensors());
            }
        }
        match copies.is_empty() {
            true => Ok(()),
            false => eval(copies),
        }
    }

    /// A sequence with the first `len` tokens, whose buffers are this one's until either is written to; `None` where a
    /// layer cannot go back.
    pub(crate) fn fork(&self, len: usize) -> Result<Option<Self>> {
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            match layer.fork(len)? {
                Some(layer) => layers.push(layer),
                None => return Ok(None),
            }
        }
        // Now, and not when the fork is first used: until then copies would hold the source's buffers.
        let copies: Vec<&Tensor> =
            layers.iter().filter(|layer| !layer.is_shared()).flat_map(|layer| layer.tensors()).collect();
        if !copies.is_empty() {
            eval(copies)?;
        }
        Ok(Some(Self { shape: self.shape, layers }))
    }

    /// The tensors that evaluating all layers computes.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.layers.iter().flat_map(|layer| layer.tensors())
    }

    /// Its state as bytes, for [`SequenceCache::restore`] of a cache with the same layers and shape, `fingerprint` being
    /// the caller's.
    pub(crate) fn snapshot(&self, fingerprint: u64) -> Result<Vec<u8>> {
        let header = self.header(fingerprint, self.len());
        let mut bytes =
            Vec::with_capacity(header.len() + 2 * self.layers.len() * self.shape.n_bytes(self.len()));
        bytes.extend_from_slice(&header);
        eval(self.tensors())?;
        for layer in &self.layers {
            layer.save(&mut bytes)?;
        }
        Ok(bytes)
    }

    fn header(&self, fingerprint: u64, len: usize) -> Vec<u8> {
        let CacheShape { n_kv_heads, head_dim, ty } = self.shape;
        let ty = match ty {
            ElementType::F32 => 0,
            ElementType::F16 => 1,
            ElementType::Bf16 => 2,
            ElementType::U32 => 3,
        };
        let mut header = MAGIC.to_vec();
        for number in
            [fingerprint, self.layers.len() as u64, n_kv_heads as u64, head_dim as u64, ty, len as u64]
        {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header
    }

    /// Puts the state in `bytes`, of `len` tokens, into this empty cache. `false`: the bytes are not a state of such a
    /// cache under this fingerprint, and nothing has changed.
    pub(crate) fn restore(&mut self, fingerprint: u64, len: usize, bytes: &[u8]) -> bool {
        let header = self.header(fingerprint, len);
        let part = 2 * self.shape.n_bytes(len);
        let whole = part.checked_mul(self.layers.len()).and_then(|n| n.checked_add(header.len()));
        if !bytes.starts_with(&header) || whole != Some(bytes.len()) {
            return false;
        }
        if len > 0 {
            for (layer, state) in self.layers.iter_mut().zip(bytes[header.len()..].chunks_exact(part)) {
                layer.load(len, state);
            }
        }
        true
    }
}
