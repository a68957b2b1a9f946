//! Attention with shared key/value heads.

use super::linear::{Linear, Projection};
use super::mask::{Block, Blocks, Mask};
use super::rope::Rope;
use super::step::Step;
use crate::cache::LayerCache;
use crate::tensor::{ElementType, FusedMask, Result, Tensor, concat};

/// One layer's attention.
#[derive(Debug)]
pub(crate) struct Attention {
    /// Q above K above V.
    pub(crate) qkv: Projection,
    pub(crate) out: Linear,
    /// Per-head norms of queries and keys, `[n_heads + n_kv_heads, head_dim]`, and their epsilon.
    pub(crate) qk_norm: Option<(Tensor, f32)>,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) window: Option<usize>,
    /// 1 / sqrt(head_dim), in the type of the activations.
    pub(crate) scale: Tensor,
}

impl Attention {
    /// `[n_tokens, hidden]` to `[n_tokens, hidden]`; `caches` has this layer's cache of each of the step's rows.
    pub(crate) fn forward<'a>(
        &self,
        x: &Tensor,
        step: &Step,
        rope: &Rope,
        caches: impl Iterator<Item = &'a mut dyn LayerCache>,
    ) -> Result<Tensor> {
        let (n, dim) = (step.n_tokens, self.head_dim);
        let (n_q, n_k) = (self.n_heads, self.n_kv_heads);
        let all = self.qkv.forward(x)?.reshape(&[n, n_q + 2 * n_k, dim])?;
        let mut qk = all.slice(&[0, 0, 0], &[n, n_q + n_k, dim])?;
        if let Some((weight, eps)) = &self.qk_norm {
            qk = qk.rms_norm(None, *eps)?.multiply(weight)?;
        }
        let qk = qk.transpose(&[1, 0, 2])?;
        let values = all.slice(&[0, n_q + n_k, 0], &[n, n_q + 2 * n_k, dim])?.transpose(&[1, 0, 2])?;
        let per_row = step.rows.len() > 1;
        // Tables hold the angles of all rows; a kernel wants each row's own.
        let turned = match (&step.rotation, per_row) {
            (super::rope::Rotation::Kernel, true) => None,
            _ => Some(rope.apply(&qk, &step.rotation, step.rows[0].position)?),
        };
        let mut outputs = Vec::with_capacity(step.rows.len());
        for ((index, row), cache) in step.rows.iter().enumerate().zip(caches) {
            let (from, to) = (row.start, row.start + row.n);
            let part =
                |of: &Tensor, heads: (usize, usize)| of.slice(&[heads.0, from, 0], &[heads.1, to, dim]);
            let own;
            let (turned, shift) = match &turned {
                Some(turned) => (turned, 0),
                None => {
                    own = rope.apply(&part(&qk, (0, n_q + n_k))?, &step.rotation, row.position)?;
                    (&own, row.start)
                }
            };
            let head_part = |heads: (usize, usize)| {
                turned.slice(&[heads.0, from - shift, 0], &[heads.1, to - shift, dim])
            };
            let (keys, values) = cache.update(&head_part((n_q, n_q + n_k))?, &part(&values, (0, n_k))?)?;
            let queries = head_part((0, n_q))?;
            outputs.push(match step.blocks(self.window, index) {
                Blocks::Cpu(blocks) => self.in_blocks(&queries, &keys, &values, blocks)?,
                Blocks::Fused(mask) => self.fused(&queries, &keys, &values, mask)?,
            });
        }
        self.out.forward(&concat(&outputs, 0)?)
    }

    /// Queries `[n_heads, n, head_dim]` over keys and values `[n_kv_heads, len, head_dim]`: `[n, n_heads · head_dim]`.
    fn in_blocks(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        blocks: &[Block],
    ) -> Result<Tensor> {
        let (n, dim) = (queries.len(1), self.head_dim);
        let ty = queries.element_type();
        // The product of a half type with f32 would be computed in neither's fast path.
        let (keys, values) = (keys.cast(ty)?, values.cast(ty)?);
        let queries = queries.multiply(&self.scale)?;
        let parts = blocks.iter().map(|block| self.block(&queries, &keys, &values, block));
        let output = concat(&parts.collect::<Result<Vec<_>>>()?, 1)?;
        output.transpose(&[1, 0, 2])?.reshape(&[n, self.n_heads * dim])
    }

    /// `[n_heads, n_queries of the block, head_dim]`.
    fn block(&self, queries: &Tensor, keys: &Tensor, values: &Tensor, block: &Block) -> Result<Tensor> {
        let (heads, groups, dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let n = block.queries.1 - block.queries.0;
        let n_keys = block.keys.1 - block.keys.0;
        let queries = match n == queries.len(1) {
            true => queries.clone(),
            false => queries.slice(&[0, block.queries.0, 0], &[heads, block.queries.1, dim])?,
        };
        let seen = |of: &Tensor| match n_keys == of.len(1) {
            true => Ok(of.clone()),
            false => of.slice(&[0, block.keys.0, 0], &[groups, block.keys.1, dim]),
        };
        // Heads that share keys are rows of one product.
        let stacked = queries.reshape(&[groups, heads / groups * n, dim])?;
        let mut scores = stacked.matmul(&seen(keys)?.transpose(&[0, 2, 1])?)?;
        if let Some(mask) = &block.mask {
            scores = scores.reshape(&[heads, n, n_keys])?.add(mask)?.reshape(&[
                groups,
                heads / groups * n,
                n_keys,
            ])?;
        }
        scores.softmax_on_cpu()?.matmul(&seen(values)?)?.reshape(&[heads, n, dim])
    }

    fn fused(&self, queries: &Tensor, keys: &Tensor, values: &Tensor, mask: &Mask) -> Result<Tensor> {
        let (n, dim) = (queries.len(1), self.head_dim);
        let batched = |of: &Tensor| of.reshape(&[1, of.len(0), of.len(1), dim]);
        let ty = queries.element_type();
        let (keys, values) = (batched(&keys.cast(ty)?)?, batched(&values.cast(ty)?)?);
        let mask = match mask {
            Mask::None => FusedMask::All,
            Mask::Causal => FusedMask::Causal,
            Mask::Added(mask) => FusedMask::Added(mask),
        };
        let scale = 1.0 / (dim as f32).sqrt();
        let output = batched(queries)?.fused_attention(&keys, &values, scale, mask)?;
        output.transpose(&[0, 2, 1, 3])?.reshape(&[n, self.n_heads * dim])
    }

    /// 1 / sqrt(head_dim) as [`Attention::scale`] wants it.
    pub(crate) fn scale_for(head_dim: usize, ty: ElementType) -> Result<Tensor> {
        Tensor::from_f32(&[1.0 / (head_dim as f32).sqrt()], &[]).cast(ty)
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.qkv.n_bytes()
            + self.out.n_bytes()
            + self.qk_norm.as_ref().map_or(0, |(weight, _)| weight.n_bytes())
    }
}
