//! The regrouped form against the blocks, bit for bit, on random blocks of every type.

use duet_core::model::gguf::GgmlType;

use super::affine;
use super::dequantize::{dequantize, is_supported};
use super::matrix::{DenseBytes, DenseType, Matrix, PackedForm, Source};
use super::permute::gguf_row;
use super::repack::{GROUP_SIZE, Groups, affine_bits, repack_row};

/// Bytes that repeat from run to run.
pub(crate) fn random_bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..n).map(step).collect()
}

/// `n_values` of `ty` whose f16 factors are ordinary numbers: random bits would be NaN now and then.
pub(crate) fn random_blocks(ty: GgmlType, n_values: usize, seed: u64) -> Vec<u8> {
    let mut bytes = random_bytes(ty.bytes_for(n_values as u64).expect("whole blocks") as usize, seed);
    let factors: &[usize] = match ty {
        GgmlType::Q4_0 | GgmlType::Q5_0 | GgmlType::Q8_0 | GgmlType::IQ4_NL | GgmlType::IQ4_XS => &[0],
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
        GgmlType::Q2_K => &[80, 82],
        GgmlType::Q3_K => &[108],
        GgmlType::Q6_K => &[208],
        _ => &[],
    };
    for block in bytes.chunks_exact_mut(ty.block_bytes() as usize) {
        for at in factors {
            block[at + 1] &= 0b1011_1111; // an exponent that is not all ones
        }
    }
    bytes
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

const REGROUPED: [GgmlType; 7] = [
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
];

#[test]
fn regrouped_values_are_the_blocks_values() {
    for ty in REGROUPED {
        let n = 256 * 40;
        let form = PackedForm { bits: affine_bits(ty).expect("an affine form"), group_size: GROUP_SIZE };
        let blocks = random_blocks(ty, n, 1 + u64::from(ty.id()));
        let mut words = vec![0; form.word_bytes(n)];
        let [mut scales, mut biases] = [vec![0.0; n / GROUP_SIZE], vec![0.0; n / GROUP_SIZE]];
        repack_row(ty, &blocks, Groups { words: &mut words, scales: &mut scales, biases: &mut biases });
        let [mut regrouped, mut expected] = [vec![0.0; n], vec![0.0; n]];
        affine::dequantize_row(form.bits, GROUP_SIZE, &words, &scales, &biases, &mut regrouped);
        dequantize(ty, &blocks, &mut expected).expect("a known type");
        // Zeros of either sign are one value: 0 · d is −0 for a negative scale, s·q + β is +0.
        let zeroed = |values: &[f32]| bits(&values.iter().map(|value| value + 0.0).collect::<Vec<_>>());
        assert_eq!(zeroed(&regrouped), zeroed(&expected), "{ty}");
        assert!(
            expected.iter().any(|value| *value > 0.0) && expected.iter().any(|value| *value < 0.0),
            "{ty}"
        );
    }
}

/// The same values from ggml's own Python package, gguf 0.19 (see scripts/oracle/ggml_blocks.py).
#[test]
fn block_values_are_ggmls() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ggml-blocks");
    let mut n_types = 0;
    for ty in GgmlType::all().filter(|ty| is_supported(*ty)) {
        let read = |extension: &str| std::fs::read(folder.join(format!("{}.{extension}", ty.name())));
        let (blocks, expected) = (read("blocks").expect("a fixture"), read("f32").expect("a fixture"));
        let expected: Vec<u32> =
            expected.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let mut values = vec![0.0; expected.len()];
        dequantize(ty, &blocks, &mut values).expect("a known type");
        assert_eq!(bits(&values), expected, "{ty}");
        n_types += 1;
    }
    assert_eq!(n_types, 16);
}

#[test]
fn unknown_types_are_refused() {
    let error = dequantize(GgmlType::IQ2_XXS, &[], &mut []).expect_err("no dequantiser");
    assert_eq!(error.to_string(), "tensors of the type IQ2_XXS cannot be read");
    assert!(!is_supported(GgmlType::Q8_K) && !is_supported(GgmlType::I32) && !is_supported(GgmlType::TQ1_0));
}

#[test]
fn every_width_unpacks_what_was_packed() {
    for n_bits in [2u32, 3, 4, 5, 6, 8] {
        let (n, group_size) = (192, 64);
        let integers: Vec<u8> =
            random_bytes(n, 9).iter().map(|byte| byte & ((1u16 << n_bits) - 1) as u8).collect();
        let mut words = vec![0u8; n * n_bits as usize / 8];
        for (index, integer) in integers.iter().enumerate() {
            for bit in 0..n_bits as usize {
                let at = index * n_bits as usize + bit;
                words[at / 8] |= (integer >> bit & 1) << (at % 8);
            }
        }
        let (scales, biases) = ([0.5, -2.0, 3.25], [1.0, 0.25, -7.5]);
        let mut values = vec![0.0; n];
        affine::dequantize_row(n_bits, group_size, &words, &scales, &biases, &mut values);
        for (index, integer) in integers.iter().enumerate() {
            let group = index / group_size;
            assert_eq!(values[index], scales[group] * f32::from(*integer) + biases[group], "{n_bits} bits");
        }
    }
}

#[test]
fn llama_rows_come_in_the_checkpoints_order() {
    // A head of 8 rows: GGUF has pair 0 (rows 0 and 4 of the checkpoint) first.
    let order: Vec<usize> = (0..16).map(|row| gguf_row(row, 8)).collect();
    assert_eq!(order, [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]);
    let values: Vec<f32> = (0..16).map(|row| row as f32).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let source = Source::Ggml { ty: GgmlType::F32, bytes: &bytes, permuted: Some(8) };
    let matrix = Matrix::new(16, 1, source).expect("a known type");
    let mut row = [0.0];
    matrix.dense_row(5, &mut row);
    assert_eq!(row, [3.0]);
}

#[test]
fn half_types_widen_exactly() {
    // Longer than one round of the conversion, and at an odd address.
    let numbers: Vec<f32> = (0..1300).map(|n| (n as f32 - 650.0) / 64.0).collect();
    let mut bytes = vec![0u8];
    bytes.extend(numbers.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()));
    let mut out = vec![0.0; numbers.len()];
    DenseType::F16.widen(&bytes[1..], &mut out);
    assert_eq!(out, numbers);
    let mut bytes = vec![0u8];
    bytes.extend(numbers.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()));
    DenseType::Bf16.widen(&bytes[1..], &mut out);
    let rounded: Vec<f32> = numbers.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect();
    assert_eq!(out, rounded);
}

#[test]
fn affine_modules_read_as_dense_and_as_packed() {
    let form = PackedForm { bits: 4, group_size: 64 };
    let (rows, cols) = (3, 128);
    let words = random_bytes(form.word_bytes(rows * cols), 3);
    let scales: Vec<u8> = (0..6).flat_map(|n| half::bf16::from_f32(n as f32 + 0.5).to_le_bytes()).collect();
    let biases: Vec<u8> = (0..6).flat_map(|n| half::bf16::from_f32(-(n as f32)).to_le_bytes()).collect();
    let [scales, biases] = [&scales, &biases].map(|bytes| DenseBytes { ty: DenseType::Bf16, bytes });
    let source = Source::Affine { form, words: &words, scales, biases };
    let matrix = Matrix::new(rows, cols, source).expect("no ggml type");
    let mut dense = vec![0.0; cols];
    matrix.dense_row(2, &mut dense);
    let mut packed = vec![0; form.word_bytes(cols)];
    let [mut scale, mut bias] = [[0.0; 2], [0.0; 2]];
    matrix.packed_row(2, Groups { words: &mut packed, scales: &mut scale, biases: &mut bias });
    assert_eq!((scale, bias), ([4.5, 5.5], [-4.0, -5.0]));
    let mut unpacked = vec![0.0; cols];
    affine::dequantize_row(4, 64, &packed, &scale, &bias, &mut unpacked);
    assert_eq!(dense, unpacked);
}
