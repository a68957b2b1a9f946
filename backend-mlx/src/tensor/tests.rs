//! Tensors: conversions, errors, and what the type system forbids.

use duet_core::model::gguf::GgmlType;

use super::*;
use crate::convert::dequantize::dequantize;
use crate::convert::matrix::{Matrix, Source};
use crate::convert::tests::random_blocks;
use crate::loader::{Held, Placement, Uploaded};
use crate::raw;

/// Two implementations for what may cross threads, one for what may not: naming it is ambiguous in the former case.
trait AmbiguousIfSend<Marker> {
    fn stays() {}
}
impl<T: ?Sized> AmbiguousIfSend<()> for T {}
impl<T: ?Sized + Send> AmbiguousIfSend<u8> for T {}

#[test]
fn handles_cannot_cross_threads() {
    // Compiles as long as a tensor, a cache and a decoder are not `Send`.
    <Tensor as AmbiguousIfSend<_>>::stays();
    <crate::cache::SequenceCache as AmbiguousIfSend<_>>::stays();
    <crate::models::Decoder as AmbiguousIfSend<_>>::stays();
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    raw::start().unwrap();
    on_stream(|_| {
        let a = Tensor::from_f32(&[0.0; 6], &[2, 3]);
        let error = a.matmul(&a).unwrap_err().to_string();
        assert!(error.starts_with("product: ") && error.contains("matmul"), "{error}");
        let error = a.slice(&[0], &[1]).unwrap_err().to_string();
        assert!(error.starts_with("slice: "), "{error}");
        let mut b = a.clone();
        b.write(&a, &[0, 1], &[2, 3]).expect_err("three columns into two");
    });
}

#[test]
fn bytes_survive_every_type() {
    raw::start().unwrap();
    on_stream(|_| {
        let bytes: Vec<u8> = (0..48).map(|n| n * 5 % 61).collect();
        for ty in [ElementType::F32, ElementType::F16, ElementType::Bf16, ElementType::U32] {
            let n = bytes.len() / ty.size();
            let tensor = Tensor::from_le_bytes(ty, &bytes, &[n]);
            assert_eq!((tensor.element_type(), tensor.n_bytes()), (ty, bytes.len()));
            assert_eq!(tensor.as_le_bytes().unwrap(), bytes, "{ty}");
        }
    });
}

#[test]
fn views_are_not_read_as_if_they_were_whole() {
    raw::start().unwrap();
    on_stream(|_| {
        let whole = Tensor::from_f32(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
        let turned = whole.transpose(&[1, 0]).unwrap();
        turned.as_f32().unwrap_err();
        assert_eq!(turned.contiguous().unwrap().as_f32().unwrap(), [1.0, 3.0, 2.0, 4.0]);
    });
}

/// Every encoding, packed where it can be and dense, comes back from libmlx as ggml's values.
#[test]
fn libmlx_gives_ggmls_values_back() {
    raw::start().unwrap();
    let types = [
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q2_K,
        GgmlType::Q3_K,
        GgmlType::Q4_K,
        GgmlType::Q5_K,
        GgmlType::Q6_K,
        GgmlType::IQ4_NL,
        GgmlType::IQ4_XS,
    ];
    for (seed, ty) in types.into_iter().enumerate() {
        let (rows, cols) = (16, 768);
        let bytes = random_blocks(ty, rows * cols, seed as u64 + 40);
        let matrix = Matrix::new(rows, cols, Source::Ggml { ty, bytes: &bytes, permuted: None }).unwrap();
        let mut expected = vec![0.0; rows * cols];
        dequantize(ty, &bytes, &mut expected).unwrap();
        for held in [Held::Packed, Held::Dense] {
            let placement = Placement { device: Device::Cpu, compute: ElementType::F32, held };
            let values = on_stream(|_| {
                let tensor = match placement.upload(&[matrix]).unwrap() {
                    Uploaded::Dense(tensor) => tensor,
                    Uploaded::Packed(packed) => packed.dequantize().unwrap(),
                };
                tensor.as_f32().unwrap().to_vec()
            });
            let same = values.iter().zip(&expected).all(|(a, b)| (a + 0.0).to_bits() == (b + 0.0).to_bits());
            assert!(same, "{ty} {held:?}");
        }
    }
}

/// The vectorised exp against f64's, over all arguments that scores and gates have.
#[test]
fn fast_exponentials_are_close() {
    raw::start().unwrap();
    on_stream(|_| {
        let n = 1 << 16;
        let values: Vec<f32> = (0..n).map(|index| (index as f32 / n as f32 - 0.5) * 60.0).collect();
        let x = Tensor::from_f32(&values, &[64, n / 64]);
        let silu = x.silu_on_cpu().unwrap();
        for (got, x) in silu.as_f32().unwrap().iter().zip(&values) {
            let expected = f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
            let bound = 1e-7 * (10.0 + x.abs());
            assert!(
                (f64::from(*got) - expected).abs() <= expected.abs() * f64::from(bound),
                "{x}: {got} {expected}"
            );
        }
        let softmax = x.softmax_on_cpu().unwrap();
        let exact = x.softmax().unwrap();
        for (a, b) in softmax.as_f32().unwrap().iter().zip(exact.as_f32().unwrap()) {
            assert!((a - b).abs() <= 1e-6 * b + 1e-37, "{a} {b}");
        }
    });
}

#[test]
fn fast_exponentials_at_the_ends() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut values = vec![0.0f32; 1 << 14];
        values[..6].copy_from_slice(&[-1e4, -100.0, 100.0, 1e4, f32::MAX, f32::MIN]);
        let silu = Tensor::from_f32(&values, &[1 << 14]).silu_on_cpu().unwrap();
        let silu = silu.as_f32().unwrap();
        assert!(silu[0].abs() < 1e-30 && silu[1].abs() < 1e-30 && silu[6] == 0.0, "{:?}", &silu[..7]);
        assert_eq!(silu[2..4], [100.0, 1e4]);
        assert!(silu.iter().all(|value| !value.is_nan()));

        let mut values = vec![f32::NEG_INFINITY; 1 << 14];
        values[7] = 3.0;
        values[9] = 3.0;
        let softmax = Tensor::from_f32(&values, &[1, 1 << 14]).softmax_on_cpu().unwrap();
        let softmax = softmax.as_f32().unwrap();
        assert!((softmax[7] - 0.5).abs() < 1e-6 && softmax[7] == softmax[9] && softmax[8] < 1e-37);
    });
}
