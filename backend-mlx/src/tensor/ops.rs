//! The operations that decoders are made of.

use mlx_rs::{Array, fast, ops, transforms};

use super::{ElementType, Named, Result, Shape, Tensor, length};
use crate::convert::matrix::PackedForm;
use crate::raw::slices;

/// A packed matrix on the device: `[rows, cols]` in MLX's affine form.
#[derive(Debug)]
pub(crate) struct Quantized {
    /// `[rows, cols · bits / 32]` u32.
    pub(crate) words: Tensor,
    /// `[rows, cols / group_size]`.
    pub(crate) scales: Tensor,
    /// `[rows, cols / group_size]`.
    pub(crate) biases: Tensor,
    /// How it is packed.
    pub(crate) form: PackedForm,
}

impl Quantized {
    fn group_size(&self) -> i32 {
        length(self.form.group_size)
    }

    fn bits(&self) -> i32 {
        self.form.bits.cast_signed()
    }

    /// Its values, `[rows, cols]`, in the type of its scales.
    pub(crate) fn dequantize(&self) -> Result<Tensor> {
        let (words, scales, biases) = (&self.words.array, &self.scales.array, &self.biases.array);
        ops::dequantize(words, scales, biases, self.group_size(), self.bits())
            .named("dequantize")
            .map(Tensor::new)
    }

    /// Its rows `ids`, dequantised.
    pub(crate) fn take_rows(&self, ids: &Tensor) -> Result<Tensor> {
        let part = |tensor: &Tensor| tensor.take_rows(ids);
        let (words, scales, biases) = (part(&self.words)?, part(&self.scales)?, part(&self.biases)?);
        Self { words, scales, biases, form: self.form }.dequantize()
    }

    /// `x · Wᵀ` over the packed values: `[n, cols]` to `[n, rows]`.
    pub(crate) fn matmul(&self, x: &Tensor) -> Result<Tensor> {
        let (words, scales, biases) = (&self.words.array, &self.scales.array, &self.biases.array);
        ops::quantized_matmul(&x.array, words, scales, biases, true, self.group_size(), self.bits())
            .named("quantised product")
            .map(Tensor::new)
    }

    /// Bytes of words, scales and biases.
    pub(crate) fn n_bytes(&self) -> usize {
        self.words.n_bytes() + self.scales.n_bytes() + self.biases.n_bytes()
    }
}

/// Which keys a query may see, for [`Tensor::fused_attention`].
pub(crate) enum FusedMask<'a> {
    All,
    Causal,
    Added(&'a Tensor),
}

impl Tensor {
    /// Zeros.
    pub(crate) fn zeros(shape: &[usize], ty: ElementType) -> Result<Self> {
        ops::zeros_dtype(&Shape::of(shape), ty.dtype()).named("zeros").map(Self::new)
    }

    /// The matrix product over the last two axes.
    pub(crate) fn matmul(&self, other: &Self) -> Result<Self> {
        ops::matmul(&self.array, &other.array).named("product").map(Self::new)
    }

    /// Element by element, with broadcasting.
    pub(crate) fn add(&self, other: &Self) -> Result<Self> {
        ops::add(&self.array, &other.array).named("sum").map(Self::new)
    }

    /// Element by element, with broadcasting.
    pub(crate) fn subtract(&self, other: &Self) -> Result<Self> {
        ops::subtract(&self.array, &other.array).named("difference").map(Self::new)
    }

    /// Element by element, with broadcasting.
    pub(crate) fn multiply(&self, other: &Self) -> Result<Self> {
        ops::multiply(&self.array, &other.array).named("element product").map(Self::new)
    }

    /// Element by element, with broadcasting.
    pub(crate) fn divide(&self, other: &Self) -> Result<Self> {
        ops::divide(&self.array, &other.array).named("quotient").map(Self::new)
    }

    /// x · sigmoid(x).
    pub(crate) fn silu(&self) -> Result<Self> {
        ops::sigmoid(&self.array).named("sigmoid").map(Self::new)?.multiply(self)
    }

    /// Over the last axis: x / sqrt(mean(x²) + eps), times `weight` if there is one.
    pub(crate) fn rms_norm(&self, weight: Option<&Self>, eps: f32) -> Result<Self> {
        fast::rms_norm(&self.array, weight.map(|weight| &weight.array), eps).named("norm").map(Self::new)
    }

    /// Softmax over the last axis, computed in f32.
    pub(crate) fn softmax(&self) -> Result<Self> {
        ops::softmax_axis(&self.array, -1, true).named("softmax").map(Self::new)
    }

    /// Sums over the last axis up to and including each element.
    pub(crate) fn cumulative_sum(&self) -> Result<Self> {
        ops::cumsum(&self.array, -1, false, true).named("cumulative sum").map(Self::new)
    }

    /// How many elements of the last axis are at most `limit`, which is broadcast: u32, the last axis gone.
    pub(crate) fn count_at_most(&self, limit: &Self) -> Result<Self> {
        let hits = ops::le(&self.array, &limit.array).named("comparison")?;
        let hits = hits.as_dtype(mlx_rs::Dtype::Uint32).named("conversion")?;
        hits.sum_axis(-1, false).named("count").map(Self::new)
    }

    /// As [`count_at_most`](Self::count_at_most), strictly below.
    pub(crate) fn count_below(&self, limit: &Self) -> Result<Self> {
        let hits = ops::lt(&self.array, &limit.array).named("comparison")?;
        let hits = hits.as_dtype(mlx_rs::Dtype::Uint32).named("conversion")?;
        hits.sum_axis(-1, false).named("count").map(Self::new)
    }

    /// Element by element.
    pub(crate) fn minimum(&self, other: &Self) -> Result<Self> {
        ops::minimum(&self.array, &other.array).named("minimum").map(Self::new)
    }

    /// Index of the largest element of the last axis, the first of equal ones: u32, the last axis gone.
    pub(crate) fn argmax(&self) -> Result<Self> {
        ops::indexing::argmax_axis(&self.array, -1, false).named("argmax").map(Self::new)
    }

    /// The rows (first axis) named by `ids`. Out-of-range ids give garbage in silence: the caller has checked them.
    pub(crate) fn take_rows(&self, ids: &Self) -> Result<Self> {
        self.array.take_axis(&ids.array, 0).named("gather").map(Self::new)
    }

    /// The same elements in another shape.
    pub(crate) fn reshape(&self, shape: &[usize]) -> Result<Self> {
        self.array.reshape(&Shape::of(shape)).named("reshape").map(Self::new)
    }

    /// A view with its axes in another order.
    pub(crate) fn transpose(&self, axes: &[usize]) -> Result<Self> {
        self.array.transpose_axes(&Shape::of(axes)).named("transpose").map(Self::new)
    }

    /// The elements `start..stop` along every axis; a view.
    pub(crate) fn slice(&self, start: &[usize], stop: &[usize]) -> Result<Self> {
        Ok(Self::new(slices::slice(&self.array, &Shape::of(start), &Shape::of(stop))?))
    }

    /// Replaces its elements `start..stop` by `update`: in place when evaluated, if this is the buffer's only handle.
    pub(crate) fn write(&mut self, update: &Self, start: &[usize], stop: &[usize]) -> Result<()> {
        self.array = slices::slice_update(&self.array, &update.array, &Shape::of(start), &Shape::of(stop))?;
        Ok(())
    }

    /// The same values in another type.
    pub(crate) fn cast(&self, ty: ElementType) -> Result<Self> {
        self.array.as_dtype(ty.dtype()).named("conversion").map(Self::new)
    }

    /// The same values in row-major order.
    pub(crate) fn contiguous(&self) -> Result<Self> {
        self.array.contiguous().named("copy").map(Self::new)
    }

    /// Rotary embedding of `[batch, heads, n, head_dim]` from position `offset` on, by the device's own kernel. `periods`
    /// holds the reciprocal frequency of each of the head_dim/2 pairs.
    pub(crate) fn fused_rope(&self, head_dim: usize, offset: usize, periods: &Self) -> Result<Self> {
        fast::rope(&self.array, length(head_dim), false, None, 1.0, length(offset), &periods.array)
            .named("rope")
            .map(Self::new)
    }

    /// Attention by the device's own kernel: queries `[batch, heads, n, head_dim]` over keys and values `[batch,
    /// kv_heads, len, head_dim]`.
    pub(crate) fn fused_attention(
        &self,
        keys: &Self,
        values: &Self,
        scale: f32,
        mask: FusedMask<'_>,
    ) -> Result<Self> {
        use fast::ScaledDotProductAttentionMask as Mask;
        let mask = match mask {
            FusedMask::All => None,
            FusedMask::Causal => Some(Mask::Causal),
            FusedMask::Added(mask) => Some(Mask::Array(&mask.array)),
        };
        fast::scaled_dot_product_attention(&self.array, &keys.array, &values.array, scale, mask, None)
            .named("attention")
            .map(Self::new)
    }
}

/// The parts one after another along `axis`.
pub(crate) fn concat(parts: &[Tensor], axis: usize) -> Result<Tensor> {
    if let [only] = parts {
        return Ok(only.clone());
    }
    let arrays: Vec<&Array> = parts.iter().map(|part| &part.array).collect();
    ops::concatenate(&arrays, length(axis)).named("concatenation").map(Tensor::new)
}

/// Computes the tensors and waits for them.
pub(crate) fn eval<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
    transforms::eval(tensors.into_iter().map(|tensor| &tensor.array)).named("evaluation")
}

/// Starts computing the tensors.
pub(crate) fn async_eval<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
    transforms::async_eval(tensors.into_iter().map(|tensor| &tensor.array)).named("evaluation")
}
