//! Attention row by row, by libmlx's operations.

use super::Attention;
use crate::cache::LayerCache;
use crate::models::mask::{Block, Blocks, Mask};
use crate::models::rope::{Rope, Rotation};
use crate::models::step::{Step, StepRow};
use crate::tensor::{ElementType, FusedMask, Result, Tensor, concat};

/// Queries, keys and values of all of a step's tokens by heads.
pub(super) struct Heads {
    /// Queries and keys, `[n_heads + n_kv_heads, n_tokens, head_dim]`, turned already if `is_turned`.
    qk: Tensor,
    is_turned: bool,
    /// `[n_kv_heads, n_tokens, head_dim]`.
    values: Tensor,
}

impl Attention {
    /// The heads of `qkv`, `[n_tokens, (n_heads + 2 n_kv_heads) · head_dim]`.
    pub(super) fn heads(&self, qkv: &Tensor, step: &Step, rope: &Rope) -> Result<Heads> {
        let (n, dim) = (step.n_tokens, self.head_dim);
        let (n_q, n_k) = (self.n_heads, self.n_kv_heads);
        let all = qkv.reshape(&[n, n_q + 2 * n_k, dim])?;
        let mut qk = all.slice(&[0, 0, 0], &[n, n_q + n_k, dim])?;
        if let Some((weight, eps)) = &self.qk_norm {
            qk = qk.rms_norm(None, *eps)?.multiply(weight)?;
        }
        let qk = qk.transpose(&[1, 0, 2])?;
        let values = all.slice(&[0, n_q + n_k, 0], &[n, n_q + 2 * n_k, dim])?.transpose(&[1, 0, 2])?;
        // Tables hold the angles of all rows; a kernel wants each row's own.
        let is_turned = matches!(step.rotation, Rotation::Tables { .. }) || step.rows.len() == 1;
        let qk = match is_turned {
            true => rope.apply(&qk, &step.rotation, step.rows[0].position)?,
            false => qk,
        };
        Ok(Heads { qk, is_turned, values })
    }

    /// One row's attention, `[n, n_heads · head_dim]`, its keys and values appended to `cache`.
    pub(super) fn by_operations(
        &self,
        heads: &Heads,
        (index, row): (usize, &StepRow),
        step: &Step,
        rope: &Rope,
        cache: &mut dyn LayerCache,
    ) -> Result<Tensor> {
        let (n_q, n_k, dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        let part = |of: &Tensor, n: usize| of.slice(&[0, row.start, 0], &[n, row.start + row.n, dim]);
        let mut qk = part(&heads.qk, n_q + n_k)?;
        if !heads.is_turned {
            qk = rope.apply(&qk, &step.rotation, row.position)?;
        }
        let queries = qk.slice(&[0, 0, 0], &[n_q, row.n, dim])?;
        let keys = qk.slice(&[n_q, 0, 0], &[n_q + n_k, row.n, dim])?;
        let (keys, values) = cache.update(&keys, &part(&heads.values, n_k)?)?;
        match step.blocks(self.window, index)? {
            Blocks::Cpu(blocks) => self.in_blocks(&queries, &keys, &values, blocks),
            Blocks::Fused(mask) => self.fused(&queries, &keys, &values, mask),
        }
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
}
