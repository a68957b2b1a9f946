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

impl Weights {
    /// Rows and columns.
    pub(crate) fn shape(&self) -> (usize, usize) {
        match self {
            Self::Dense(matrix) => (matrix.len(1), matrix.len(0)),
            Self::Packed(matrix) => (matrix.scales.len(0), matrix.scales.len(1) * matrix.form.group_size),
        }
    }

    /// The operation that multiplies one row with it: "quantized_matmul, 4-bit g32 1536 × 576".
    pub(crate) fn name(&self) -> String {
        let (rows, columns) = self.shape();
        match self {
            Self::Dense(matrix) => format!("matmul, {} {rows} × {columns}", matrix.element_type()),
            Self::Packed(matrix) => {
                let form = matrix.form;
                format!("quantized_matmul, {}-bit g{} {rows} × {columns}", form.bits, form.group_size)
            }
        }
    }

    /// `[cols, rows]` of floats: itself where it is dense.
    pub(crate) fn unpacked(&self) -> Result<Tensor> {
        match self {
            Self::Dense(matrix) => Ok(matrix.clone()),
            Self::Packed(matrix) => matrix.dequantize()?.transpose(&[1, 0]),
        }
    }

    /// `[n, cols]` to `[n, rows]`, as it is held.
    pub(crate) fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(matrix) => x.matmul(matrix),
            Self::Packed(matrix) => matrix.matmul(x),
        }
    }

    /// Its bytes.
    pub(crate) fn n_bytes(&self) -> usize {
        match self {
            Self::Dense(matrix) => matrix.n_bytes(),
            Self::Packed(matrix) => matrix.n_bytes(),
        }
    }
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

    /// Its weights.
    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// `[n, cols]` to `[n, rows]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = match self.device {
            Device::Cpu if x.len(0) >= UNPACK_FROM_ROWS => x.matmul(&self.weights.unpacked()?)?,
            _ => self.weights.multiply(x)?,
        };
        match &self.bias {
            Some(bias) => product.add(bias),
            None => Ok(product),
        }
    }

    /// Bytes that a product reads.
    pub(crate) fn n_bytes(&self) -> usize {
        self.weights.n_bytes() + self.bias.as_ref().map_or(0, Tensor::n_bytes)
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

    /// Its matrices.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.parts.iter()
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
