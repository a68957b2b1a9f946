//! libmlx's lazy arrays, bound to the thread of their stream.
//!
//! The one module, beside [`crate::raw`], that knows mlx-rs. A [`Tensor`] is a node of a graph that is computed when it is
//! evaluated; operations only fail here for shapes and types, and all of them run on the stream of [`on_stream`].

mod exponential;
mod kernels;
mod memory;
mod ops;
mod stream;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use mlx_rs::{Array, Dtype};

pub(crate) use kernels::{AttentionInputs, AttentionRow, AttentionShape, attention_on_cpu};
pub(crate) use memory::{clear_cache, keep_resident, peak_bytes};
pub(crate) use ops::{FusedMask, Quantized, async_eval, concat, eval};
pub(crate) use stream::{Device, on_stream};

use crate::convert::matrix::DenseType;
use crate::raw::pages::Pages;
use crate::raw::{RawError, bytes};

/// An operation of libmlx failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {message}")]
pub(crate) struct MlxError {
    operation: &'static str,
    message: String,
}

pub(crate) type Result<T> = std::result::Result<T, MlxError>;

impl From<RawError> for MlxError {
    fn from(error: RawError) -> Self {
        Self { operation: error.operation, message: error.message }
    }
}

/// Names the operation of an mlx-rs error.
trait Named<T> {
    fn named(self, operation: &'static str) -> Result<T>;
}

impl<T> Named<T> for mlx_rs::error::Result<T> {
    fn named(self, operation: &'static str) -> Result<T> {
        self.map_err(|error| MlxError { operation, message: error.what().to_owned() })
    }
}

/// Element types that models compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ElementType {
    F32,
    F16,
    Bf16,
    U32,
}

impl ElementType {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::Float32,
            Self::F16 => Dtype::Float16,
            Self::Bf16 => Dtype::Bfloat16,
            Self::U32 => Dtype::Uint32,
        }
    }

    /// Bytes per element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::U32 => "u32",
        })
    }
}

impl From<DenseType> for ElementType {
    fn from(ty: DenseType) -> Self {
        match ty {
            DenseType::F32 => Self::F32,
            DenseType::F16 => Self::F16,
            DenseType::Bf16 => Self::Bf16,
        }
    }
}

/// An array of libmlx. A clone is a second handle on the same node, which keeps its buffer from being written in place.
#[derive(Clone)]
pub(crate) struct Tensor {
    array: Array,
    /// Streams belong to their thread (evaluating elsewhere fails), so handles stay there too: neither `Send` nor `Sync`.
    _thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor{:?} {:?}", self.array.shape(), self.array.dtype())
    }
}

/// A length as libmlx counts.
///
/// # Panics
/// Beyond 2^31 − 1, which no axis of a model has.
fn length(n: usize) -> i32 {
    i32::try_from(n).expect("axes are shorter than 2^31")
}

/// A shape as libmlx takes it, on the stack.
struct Shape {
    axes: [i32; 8],
    n: usize,
}

impl Shape {
    fn of(axes: &[usize]) -> Self {
        let mut shape = Self { axes: [0; 8], n: axes.len() };
        for (to, from) in shape.axes.iter_mut().zip(axes) {
            *to = length(*from);
        }
        shape
    }
}

impl std::ops::Deref for Shape {
    type Target = [i32];

    fn deref(&self) -> &[i32] {
        &self.axes[..self.n]
    }
}

impl Tensor {
    fn new(array: Array) -> Self {
        Self { array, _thread: PhantomData }
    }

    /// A copy of `values`.
    ///
    /// # Panics
    /// If the shape does not hold as many values.
    pub(crate) fn from_f32(values: &[f32], shape: &[usize]) -> Self {
        Self::new(Array::from_slice(values, &Shape::of(shape)))
    }

    /// A copy of `values`.
    ///
    /// # Panics
    /// If the shape does not hold as many values.
    pub(crate) fn from_u32(values: &[u32], shape: &[usize]) -> Self {
        Self::new(Array::from_slice(values, &Shape::of(shape)))
    }

    /// An f32 tensor of this shape in memory that is good to read weights from, filled by `fill`, which gets zeros. Other
    /// devices than CPUs may copy it.
    pub(crate) fn weights(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Result<Self> {
        let mut pages = Pages::new(shape.iter().product())?;
        fill(pages.values());
        Ok(Self::new(pages.into_array(&Shape::of(shape))?))
    }

    /// A copy of little-endian `bytes`.
    ///
    /// # Panics
    /// If the shape does not hold as many bytes.
    pub(crate) fn from_le_bytes(ty: ElementType, bytes: &[u8], shape: &[usize]) -> Self {
        Self::new(bytes::array(bytes, &Shape::of(shape), ty.dtype(), ty.size()))
    }

    /// Length of axis `axis`.
    pub(crate) fn len(&self, axis: usize) -> usize {
        self.array.shape()[axis] as usize
    }

    /// Its element type.
    ///
    /// # Panics
    /// For a type that no tensor of this module is made with.
    pub(crate) fn element_type(&self) -> ElementType {
        match self.array.dtype() {
            Dtype::Float32 => ElementType::F32,
            Dtype::Float16 => ElementType::F16,
            Dtype::Bfloat16 => ElementType::Bf16,
            Dtype::Uint32 => ElementType::U32,
            other => panic!("a tensor of {other:?}"),
        }
    }

    /// Bytes of its elements.
    pub(crate) fn n_bytes(&self) -> usize {
        self.array.nbytes()
    }

    /// Its values, evaluated; it has to be `F32` and contiguous.
    pub(crate) fn as_f32(&self) -> Result<&[f32]> {
        self.array.try_as_slice().map_err(|error| MlxError { operation: "read", message: error.to_string() })
    }

    /// Its values, evaluated; it has to be `U32` and contiguous.
    pub(crate) fn as_u32(&self) -> Result<&[u32]> {
        self.array.try_as_slice().map_err(|error| MlxError { operation: "read", message: error.to_string() })
    }

    /// Its values as little-endian bytes, evaluated; it has to be contiguous.
    pub(crate) fn as_le_bytes(&self) -> Result<&[u8]> {
        Ok(bytes::of(&self.array)?)
    }
}
