//! Weights from the host to tensors, in the form that the device computes with.

use duet_core::WeightsMode;

use super::host::{packed_values, write_values};
use crate::convert::matrix::Matrix;
use crate::models::{Embedding, Linear, Projection};
use crate::tensor::{Device, ElementType, Quantized, Result, Tensor, eval};

/// How quantised weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// As packed integers, where they have such a form.
    Packed,
    /// As numbers of the compute type.
    Dense,
}

impl Held {
    /// What `mode` means on `device`. On x86 libmlx's packed products are scalar code, about ten times slower than BLAS on
    /// the dequantised matrix.
    pub(crate) fn of(mode: WeightsMode, device: Device) -> Self {
        match mode {
            WeightsMode::Packed => Self::Packed,
            WeightsMode::Dense => Self::Dense,
            WeightsMode::Auto if device == Device::Cpu && cfg!(target_arch = "x86_64") => Self::Dense,
            WeightsMode::Auto => Self::Packed,
        }
    }
}

/// Where weights go, and as what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    pub(crate) device: Device,
    /// Type of activations, norms and scales. f32 on CPUs: libmlx's half types are up to 40 times slower there.
    pub(crate) compute: ElementType,
    pub(crate) held: Held,
}

/// A matrix on the device.
pub(crate) enum Uploaded {
    Dense(Tensor),
    Packed(Quantized),
}

impl Placement {
    /// `values` in the compute type, evaluated.
    pub(crate) fn vector(&self, values: &[f32]) -> Result<Tensor> {
        self.dense_values(values, &[values.len()])
    }

    fn dense_values(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        self.evaluated(&Tensor::from_f32(values, shape))
    }

    /// `values` in the compute type.
    fn evaluated(&self, values: &Tensor) -> Result<Tensor> {
        let tensor = values.cast(self.compute)?;
        eval([&tensor])?;
        Ok(tensor)
    }

    /// Whether these matrices can be one packed matrix.
    fn common_form(&self, matrices: &[Matrix<'_>]) -> Option<crate::convert::matrix::PackedForm> {
        let form = matrices.first()?.packed_form()?;
        let all =
            self.held == Held::Packed && matrices.iter().all(|matrix| matrix.packed_form() == Some(form));
        all.then_some(form)
    }

    /// `matrices`, which have equal rows, as one, the rows one below the other.
    pub(crate) fn upload(&self, matrices: &[Matrix<'_>]) -> Result<Uploaded> {
        let rows = matrices.iter().map(|matrix| matrix.rows).sum();
        let cols = matrices.first().map_or(0, |matrix| matrix.cols);
        let Some(form) = self.common_form(matrices) else {
            let values = Tensor::weights(&[rows, cols], |values| write_values(matrices, values))?;
            return self.evaluated(&values).map(Uploaded::Dense);
        };
        let values = packed_values(matrices, form);
        let groups = [rows, cols / form.group_size];
        let words = [rows, form.word_bytes(cols) / 4];
        let words = Tensor::from_le_bytes(ElementType::U32, &values.words, &words);
        let scales = self.dense_values(&values.scales, &groups)?;
        let biases = self.dense_values(&values.biases, &groups)?;
        Ok(Uploaded::Packed(Quantized { words, scales, biases, form }))
    }

    /// One matrix.
    pub(crate) fn linear(&self, matrix: Matrix<'_>, bias: Option<Vec<f32>>) -> Result<Linear> {
        self.stacked(&[matrix], bias)
    }

    fn stacked(&self, matrices: &[Matrix<'_>], bias: Option<Vec<f32>>) -> Result<Linear> {
        let bias = bias.map(|bias| self.vector(&bias)).transpose()?;
        self.as_linear(self.upload(matrices)?, bias)
    }

    /// Several matrices over the same input: as one, unless they are packed in different ways.
    pub(crate) fn projection(&self, parts: Vec<(Matrix<'_>, Option<Vec<f32>>)>) -> Result<Projection> {
        let matrices: Vec<Matrix<'_>> = parts.iter().map(|(matrix, _)| *matrix).collect();
        let any_packed =
            self.held == Held::Packed && matrices.iter().any(|matrix| matrix.packed_form().is_some());
        if any_packed && self.common_form(&matrices).is_none() {
            let parts = parts.into_iter().map(|(matrix, bias)| self.linear(matrix, bias));
            return Ok(Projection::new(parts.collect::<Result<_>>()?));
        }
        let biases: Option<Vec<Vec<f32>>> = parts.into_iter().map(|(_, bias)| bias).collect();
        Ok(Projection::new(vec![self.stacked(&matrices, biases.map(|biases| biases.concat()))?]))
    }

    /// The embedding table, and the head if it is the same.
    pub(crate) fn embedding(&self, matrix: Matrix<'_>, tied: bool) -> Result<(Embedding, Option<Linear>)> {
        if tied {
            let uploaded = self.upload(&[matrix])?;
            let table = match &uploaded {
                Uploaded::Dense(table) => Embedding::Dense(table.clone()),
                Uploaded::Packed(Quantized { words, scales, biases, form }) => Embedding::Packed(Quantized {
                    words: words.clone(),
                    scales: scales.clone(),
                    biases: biases.clone(),
                    form: *form,
                }),
            };
            return Ok((table, Some(self.as_linear(uploaded, None)?)));
        }
        // Only a few of its rows are read per step: as compact as the file has it, whatever the other weights are held as.
        let packed = Self { held: Held::Packed, ..*self };
        let table = match (packed.upload(&[matrix])?, matrix.dense_type()) {
            (Uploaded::Dense(table), Some(ty)) => {
                let table = table.cast(ty.into())?;
                eval([&table])?;
                Embedding::Dense(table)
            }
            (Uploaded::Dense(table), None) => Embedding::Dense(table),
            (Uploaded::Packed(table), _) => Embedding::Packed(table),
        };
        Ok((table, None))
    }

    fn as_linear(&self, uploaded: Uploaded, bias: Option<Tensor>) -> Result<Linear> {
        match uploaded {
            Uploaded::Dense(matrix) => Linear::dense(&matrix, bias, self.device),
            Uploaded::Packed(matrix) => Ok(Linear::packed(matrix, bias, self.device)),
        }
    }
}
