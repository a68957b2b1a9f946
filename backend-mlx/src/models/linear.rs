//! Matrices of weights as layers use them.

use crate::tensor::{Device, ElementType, Quantized, Result, Tensor, concat};

/// From so many rows of input on, a CPU is faster if it unpacks the matrix first and multiplies with BLAS.
const UNPACK_FROM_ROWS: usize = 8;

/// The weights of a matrix `[rows, cols]`.
#[derive(Debug)]
pub(crate) enum Weights {
    /// A view `[cols, rows]` of the row-major matrix, which is how BLAS wants it.
    Dense(Tensor),
    /// Packed as in the file.
    Packed(Quantized),
}

/// `x · Wᵀ + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Weights,
    bias: Option<Tensor>,
    device: Device,
}

impl Linear {
    /// From a dense matrix `[rows, cols]`.
    pub(crate) fn dense(matrix: &Tensor, bias: Option<Tensor>, device: Device) -> Result<Self> {
        Ok(Self { weights: Weights::Dense(matrix.transpose(&[1, 0])?), bias, device })
    }

    /// From a packed matrix.
    pub(crate) fn packed(matrix: Quantized, bias: Option<Tensor>, device: Device) -> Self {
        Self { weights: Weights::Packed(matrix), bias, device }
    }

    /// `[n, cols]` to `[n, rows]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = match &self.weights {
            Weights::Dense(matrix) => x.matmul(matrix)?,
            Weights::Packed(matrix) if self.device == Device::Cpu && x.len(0) >= UNPACK_FROM_ROWS => {
                x.matmul(&matrix.dequantize()?.transpose(&[1, 0])?)?
            }
            Weights::Packed(matrix) => matrix.matmul(x)?,
        };
        match &self.bias {
            Some(bias) => product.add(bias),
            None => Ok(product),
        }
    }

    /// Bytes that a product reads.
    pub(crate) fn n_bytes(&self) -> usize {
        let weights = match &self.weights {
            Weights::Dense(matrix) => matrix.n_bytes(),
            Weights::Packed(matrix) => matrix.n_bytes(),
        };
        weights + self.bias.as_ref().map_or(0, Tensor::n_bytes)
    }
}

/// Several matrices over the same input, side by side in one where their forms agree.
#[derive(Debug)]
pub(crate) struct Projection {
    parts: Vec<Linear>,
}

impl Projection {
    pub(crate) fn new(parts: Vec<Linear>) -> Self {
        Self { parts }
    }

    /// `[n, cols]` to `[n, rows of all]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let outputs = self.parts.iter().map(|part| part.forward(x));
        concat(&outputs.collect::<Result<Vec<_>>>()?, 1)
    }

    /// Bytes that a product reads.
    pub(crate) fn n_bytes(&self) -> usize {
        self.parts.iter().map(Linear::n_bytes).sum()
    }
}

/// The embedding table.
#[derive(Debug)]
pub(crate) enum Embedding {
    /// `[vocab, hidden]`, of any type.
    Dense(Tensor),
    /// Packed as in the file.
    Packed(Quantized),
}

impl Embedding {
    /// `[n]` ids to `[n, hidden]` of type `ty`.
    pub(crate) fn forward(&self, ids: &Tensor, ty: ElementType) -> Result<Tensor> {
        let rows = match self {
            Self::Dense(table) => table.take_rows(ids)?,
            Self::Packed(table) => table.take_rows(ids)?,
        };
        rows.cast(ty)
    }

    /// Bytes of the table.
    pub(crate) fn n_bytes(&self) -> usize {
        match self {
            Self::Dense(table) => table.n_bytes(),
            Self::Packed(table) => table.n_bytes(),
        }
    }
}
