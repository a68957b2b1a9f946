//! Whether the weights that libmlx computes with are the file's, value by value.

use std::path::Path;

use duet_core::model::gguf::{GgmlType, TensorInfo};
use duet_core::model::{ModelFileError, ModelFormat, inspect};
use duet_core::{BackendError, WeightsMode};

use crate::convert::affine;
use crate::convert::dequantize::dequantize;
use crate::convert::matrix::Matrix;
use crate::convert::permute::gguf_row;
use crate::convert::repack::Groups;
use crate::loader::{GgufCheckpoint, Held, Placement, Uploaded};
use crate::models::Family;
use crate::report::{Difference, EachTensor, ExactnessReport};
use crate::tensor::{Device, ElementType, MlxError, on_stream};
use crate::{ID, raw};

/// Converts every matrix of the .gguf file at `path` as a load onto a CPU with these `weights` would, lets libmlx give the
/// values back (dequantising what is packed), and compares them bit for bit with ggml's own values of the file's blocks.
///
/// Blocks, for as long as a load takes or a few times that; one matrix is in memory at a time. On the calling thread, with
/// a stream of its own.
///
/// # Errors
/// `UnsupportedArchitecture` and `ModelFile` as a load; `InvalidRequest` for anything but a .gguf file; `Engine` if libmlx
/// failed.
pub fn check_exactness(path: &Path, weights: WeightsMode) -> Result<ExactnessReport, BackendError> {
    let mut report = ExactnessReport::default();
    show_weights(path, weights, &mut |name, held, expected| {
        report.n_tensors += 1;
        report.n_values += expected.len() as u64;
        report.differences.extend(compare(name, held, expected));
    })?;
    Ok(report)
}

/// Shows every tensor of the .gguf file at `path` to `each`: its name, the values that libmlx computes with, and ggml's own
/// values of the file, in the same order of elements. Vectors (norms, biases) are widened to f32 on both sides.
///
/// Blocks; see [`check_exactness`].
///
/// # Errors
/// As [`check_exactness`].
pub fn show_weights(
    path: &Path,
    weights: WeightsMode,
    each: &mut EachTensor<'_>,
) -> Result<(), BackendError> {
    let model = inspect(path)?;
    if model.format != ModelFormat::Gguf {
        return Err(BackendError::invalid("model", "only .gguf files are converted at load"));
    }
    raw::start().map_err(|error| BackendError::engine("starting MLX", error))?;
    let checkpoint = GgufCheckpoint::open(&model, Family::of(&model)?)?;
    let placement =
        Placement { device: Device::Cpu, compute: ElementType::F32, held: Held::of(weights, Device::Cpu) };
    for tensor in checkpoint.file().tensors() {
        if tensor.dims.len() == 1 {
            let expected = file_values(&checkpoint, tensor, expected_len(tensor))?;
            let held = on_stream(|_| placement.vector(&expected)?.as_f32().map(|values| values.to_vec()));
            let held = held.map_err(|error| BackendError::engine("convert a tensor", error))?;
            each(&tensor.name, &held, &expected);
            continue;
        }
        let matrix = checkpoint.as_matrix(tensor)?;
        let held = on_stream(|_| held_values(placement, matrix));
        let held = held.map_err(|error| BackendError::engine("convert a tensor", error))?;
        let expected = match placement.held {
            Held::Packed => file_values(&checkpoint, tensor, matrix.cols)?,
            Held::Dense => match regrouped_values(matrix) {
                Some(values) => values,
                None => file_values(&checkpoint, tensor, matrix.cols)?,
            },
        };
        each(&tensor.name, &held, &expected);
    }
    Ok(())
}

fn expected_len(tensor: &TensorInfo) -> usize {
    usize::try_from(tensor.n_elements()).unwrap_or(usize::MAX)
}

/// What libmlx has of a matrix.
fn held_values(placement: Placement, matrix: Matrix<'_>) -> Result<Vec<f32>, MlxError> {
    let tensor = match placement.upload(&[matrix])? {
        Uploaded::Dense(tensor) => tensor,
        Uploaded::Packed(packed) => packed.dequantize()?,
    };
    Ok(tensor.as_f32()?.to_vec())
}

/// ggml's values of a tensor, straight from its blocks, with the rows in the order of the checkpoint. What is regrouped
/// shares no code with this.
fn file_values(
    checkpoint: &GgufCheckpoint,
    tensor: &TensorInfo,
    cols: usize,
) -> Result<Vec<f32>, BackendError> {
    let mut stored = vec![0.0; tensor.n_elements() as usize];
    let bytes = checkpoint.file().tensor_data(tensor)?;
    dequantize(tensor.ggml_type, bytes, &mut stored)
        .map_err(|error| unsupported(checkpoint, tensor, error.0))?;
    let Some(head_dim) = checkpoint.permuted(tensor) else { return Ok(stored) };
    let rows = (0..stored.len() / cols).map(|row| gguf_row(row, head_dim) * cols);
    Ok(rows.flat_map(|at| stored[at..at + cols].iter().copied()).collect())
}

/// The values by way of the regrouped form: what dense weights, which are read straight from the blocks, share no code
/// with.
fn regrouped_values(matrix: Matrix<'_>) -> Option<Vec<f32>> {
    let form = matrix.packed_form()?;
    let n_groups = matrix.cols / form.group_size;
    let mut words = vec![0; form.word_bytes(matrix.cols)];
    let [mut scales, mut biases] = [vec![0.0; n_groups], vec![0.0; n_groups]];
    let mut values = vec![0.0; matrix.rows * matrix.cols];
    for (row, out) in values.chunks_exact_mut(matrix.cols).enumerate() {
        matrix.packed_row(row, Groups { words: &mut words, scales: &mut scales, biases: &mut biases });
        affine::dequantize_row(form.bits, form.group_size, &words, &scales, &biases, out);
    }
    Some(values)
}

fn unsupported(checkpoint: &GgufCheckpoint, tensor: &TensorInfo, ty: GgmlType) -> BackendError {
    ModelFileError::UnsupportedTensorType {
        path: checkpoint.file().path().to_owned(),
        tensor: tensor.name.clone(),
        type_name: format!("{} (for the {ID} engine)", ty.name()),
    }
    .into()
}

fn compare(tensor: &str, held: &[f32], expected: &[f32]) -> Option<Difference> {
    // Zeros of either sign are one value: ggml's 0 · d is −0 for a negative scale, s·q + β is +0.
    let bits = |value: &f32| (value + 0.0).to_bits();
    let differing = held.iter().zip(expected).filter(|(a, b)| bits(a) != bits(b));
    let mut n_values = held.len().abs_diff(expected.len()) as u64;
    let mut largest = 0f32;
    for (a, b) in differing {
        n_values += 1;
        largest = largest.max((a - b).abs());
    }
    (n_values > 0).then(|| Difference { tensor: tensor.to_owned(), n_values, largest })
}
