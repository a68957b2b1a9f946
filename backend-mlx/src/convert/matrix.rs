//! One weight matrix of a model file, read row by row in the order of the checkpoint.

use duet_core::model::gguf::GgmlType;

use super::affine;
use super::dequantize::{UnsupportedType, dequantize, is_supported};
use super::half::{bf16_to_f32, f16_to_f32};
use super::permute::gguf_row;
use super::repack::{GROUP_SIZE, Groups, affine_bits, repack_row};

/// Numbers that are stored one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DenseType {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    F16,
    /// 2 bytes, f32's exponent.
    Bf16,
}

impl DenseType {
    /// Bytes per value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Widens little-endian `bytes` to `out`; exact.
    ///
    /// # Panics
    /// If the two do not have the same number of values.
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => {
                assert_eq!(bytes.len(), out.len() * 4, "as many values as are wanted");
                for (value, word) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*word);
                }
            }
            Self::F16 => f16_to_f32(bytes, out),
            Self::Bf16 => bf16_to_f32(bytes, out),
        }
    }
}

/// MLX's packed form: groups with a scale and a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackedForm {
    /// Bits per value.
    pub bits: u32,
    /// Values per group.
    pub group_size: usize,
}

impl PackedForm {
    /// Bytes of the integers of `n` values, which are whole groups.
    pub fn word_bytes(self, n: usize) -> usize {
        n * self.bits as usize / 8
    }
}

/// Numbers of one type in a model file.
#[derive(Debug, Clone, Copy)]
pub struct DenseBytes<'a> {
    /// Their type.
    pub ty: DenseType,
    /// Their little-endian bytes.
    pub bytes: &'a [u8],
}

impl DenseBytes<'_> {
    fn row(&self, row: usize, cols: usize, out: &mut [f32]) {
        let n = cols * self.ty.size();
        self.ty.widen(&self.bytes[row * n..][..n], out);
    }
}

/// Where a matrix's values come from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A tensor of a GGUF file.
    Ggml {
        /// Its encoding.
        ty: GgmlType,
        /// Its blocks.
        bytes: &'a [u8],
        /// The head size, where the file has the rows of a llama Q or K matrix in its own order.
        permuted: Option<usize>,
    },
    /// A tensor of a safetensors file.
    Dense(DenseBytes<'a>),
    /// A packed module of a safetensors file.
    Affine {
        /// How it is packed.
        form: PackedForm,
        /// Little-endian words.
        words: &'a [u8],
        /// One per group.
        scales: DenseBytes<'a>,
        /// One per group.
        biases: DenseBytes<'a>,
    },
}

/// A matrix `[rows, cols]` as it lies in a model file.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    source: Source<'a>,
}

impl<'a> Matrix<'a> {
    /// A matrix over a source whose sizes have been checked against `rows` and `cols`.
    ///
    /// # Errors
    /// [`UnsupportedType`] for a ggml encoding that cannot be read.
    ///
    /// # Panics
    /// If the sizes do not agree.
    pub fn new(rows: usize, cols: usize, source: Source<'a>) -> Result<Self, UnsupportedType> {
        match source {
            Source::Ggml { ty, bytes, permuted } => {
                if !is_supported(ty) {
                    return Err(UnsupportedType(ty));
                }
                assert_eq!(
                    ty.bytes_for((rows * cols) as u64),
                    Some(bytes.len() as u64),
                    "as many blocks as values"
                );
                assert!(permuted.is_none_or(|head_dim| rows.is_multiple_of(head_dim)), "whole heads");
            }
            Source::Dense(DenseBytes { ty, bytes }) => {
                assert_eq!(rows * cols * ty.size(), bytes.len(), "as many bytes as values");
            }
            Source::Affine { form, words, scales, biases } => {
                assert!(cols.is_multiple_of(form.group_size), "whole groups");
                assert_eq!(form.word_bytes(rows * cols), words.len(), "one integer per value");
                let n_groups = rows * cols / form.group_size;
                for part in [scales, biases] {
                    assert_eq!(part.bytes.len(), n_groups * part.ty.size(), "one per group");
                }
            }
        }
        Ok(Self { rows, cols, source })
    }

    /// How it can be held packed with its very values; `None` for what is dense in the file or has no packed form.
    pub fn packed_form(&self) -> Option<PackedForm> {
        match self.source {
            Source::Ggml { ty, .. } => {
                affine_bits(ty).map(|bits| PackedForm { bits, group_size: GROUP_SIZE })
            }
            Source::Dense(_) => None,
            Source::Affine { form, .. } => Some(form),
        }
    }

    /// The type of its numbers, where they are stored one by one.
    pub fn dense_type(&self) -> Option<DenseType> {
        match self.source {
            Source::Ggml { ty: GgmlType::F32, .. } => Some(DenseType::F32),
            Source::Ggml { ty: GgmlType::F16, .. } => Some(DenseType::F16),
            Source::Ggml { ty: GgmlType::BF16, .. } => Some(DenseType::Bf16),
            Source::Dense(DenseBytes { ty, .. }) => Some(ty),
            Source::Ggml { .. } | Source::Affine { .. } => None,
        }
    }

    /// Writes row `row` as f32 values to `out`, `[cols]`.
    ///
    /// # Panics
    /// If `row` is none of the matrix's or `out` has another length.
    pub fn dense_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "a row of the matrix");
        match self.source {
            Source::Ggml { ty, .. } => {
                dequantize(ty, self.blocks(row), out).expect("checked when it was made");
            }
            Source::Dense(dense) => dense.row(row, self.cols, out),
            Source::Affine { form, words, scales, biases } => {
                let n_groups = self.cols / form.group_size;
                let n_bytes = form.word_bytes(self.cols);
                let [mut scale, mut bias] = [vec![0.0; n_groups], vec![0.0; n_groups]];
                scales.row(row, n_groups, &mut scale);
                biases.row(row, n_groups, &mut bias);
                let words = &words[row * n_bytes..][..n_bytes];
                affine::dequantize_row(form.bits, form.group_size, words, &scale, &bias, out);
            }
        }
    }

    /// Writes row `row` in the packed form to `out`.
    ///
    /// # Panics
    /// If the matrix has no [`packed_form`](Self::packed_form), `row` is none of its rows, or `out` has other sizes.
    pub fn packed_row(&self, row: usize, out: Groups<'_>) {
        assert!(row < self.rows, "a row of the matrix");
        match self.source {
            Source::Ggml { ty, .. } => repack_row(ty, self.blocks(row), out),
            Source::Dense(_) => panic!("a matrix with a packed form"),
            Source::Affine { form, words, scales, biases } => {
                let n_bytes = form.word_bytes(self.cols);
                out.words.copy_from_slice(&words[row * n_bytes..][..n_bytes]);
                let n_groups = self.cols / form.group_size;
                scales.row(row, n_groups, out.scales);
                biases.row(row, n_groups, out.biases);
            }
        }
    }

    /// The blocks of a row in a GGUF file.
    fn blocks(&self, row: usize) -> &'a [u8] {
        let Source::Ggml { bytes, permuted, .. } = self.source else { return &[] };
        let row = permuted.map_or(row, |head_dim| gguf_row(row, head_dim));
        let n = bytes.len() / self.rows;
        &bytes[row * n..][..n]
    }
}
