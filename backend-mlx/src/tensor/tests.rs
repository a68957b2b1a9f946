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

fn close(what: &str, got: &Tensor, expected: &Tensor) {
    let (got, expected) = (got.contiguous().unwrap(), expected.contiguous().unwrap());
    let (got, expected) = (got.as_f32().unwrap(), expected.as_f32().unwrap());
    let scale = expected.iter().fold(1e-6f32, |max, x| max.max(x.abs()));
    let worst = got.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(got.len() == expected.len() && worst <= 2e-6 * scale, "{what}: {worst} of {scale}");
}

fn noise(n: usize, factor: f32) -> Vec<f32> {
    let bytes = crate::convert::tests::random_bytes(2 * n, n as u64);
    let words = bytes.as_chunks::<2>().0.iter();
    words.map(|word| (f32::from(u16::from_le_bytes(*word)) / 32_768.0 - 1.0) * factor).collect()
}

#[test]
fn kernels_agree_with_libmlx() {
    raw::start().unwrap();
    on_stream(|_| {
        for (rows, width) in [(1, 1), (3, 15), (2, 64), (40, 577), (5, 1536)] {
            let x = Tensor::from_f32(&noise(rows * width, 3.0), &[rows, width]);
            let weight = Tensor::from_f32(&noise(width, 1.0), &[width]);
            let expected = x.rms_norm(Some(&weight), 1e-5).unwrap();
            close("norm", &x.rms_norm_on_cpu(&weight, 1e-5).unwrap(), &expected);

            for factor in [1.0, 30.0, 300.0] {
                let both = Tensor::from_f32(&noise(2 * rows * width, factor), &[rows, 2 * width]);
                let Some(got) = both.swiglu_on_cpu().unwrap() else { continue };
                let gate = both.slice(&[0, 0], &[rows, width]).unwrap();
                let up = both.slice(&[0, width], &[rows, 2 * width]).unwrap();
                close("gate", &got, &gate.silu().unwrap().multiply(&up).unwrap());
            }
        }
        let half = Tensor::from_f32(&noise(64, 1.0), &[2, 32]).cast(ElementType::F16).unwrap();
        assert!(half.swiglu_on_cpu().unwrap().is_none(), "for f32 only");
    });
}

/// The buffers of a sequence are written in place, and copied where somebody still holds them.
#[test]
#[cfg(target_os = "linux")]
fn attention_writes_in_place() {
    raw::start().unwrap();
    on_stream(|_| {
        let shape =
            AttentionShape { n_heads: 4, n_kv_heads: 2, dim: 16, window: None, neighbours: false, eps: 0.0 };
        let qkv = Tensor::from_f32(&noise(128, 1.0), &[1, 128]);
        let (cos, sin) = (Tensor::from_f32(&[1.0; 8], &[1, 8]), Tensor::from_f32(&[0.0; 8], &[1, 8]));
        let mut buffers = [[(); 2].map(|()| Tensor::zeros(&[2, 8, 16], ElementType::F32).unwrap())];
        eval(buffers.iter().flatten()).unwrap();
        let address = |buffers: &[[Tensor; 2]; 1]| buffers[0][0].as_f32().unwrap().as_ptr();
        let first = address(&buffers);
        let attend = |buffers: &mut [[Tensor; 2]; 1], position: usize| {
            let inputs = AttentionInputs { qkv: &qkv, angles: (&cos, &sin), norm: None };
            let row = AttentionRow { start: 0, n: 1, position };
            attention_on_cpu(inputs, &[row], buffers, shape).unwrap()
        };
        // Alone, a key is all that its query sees.
        let output = attend(&mut buffers, 0);
        let values: Vec<f32> = qkv.as_f32().unwrap()[96..].to_vec();
        let expected = [&values[..16], &values[..16], &values[16..], &values[16..]].concat();
        close("one key", &output, &Tensor::from_f32(&expected, &[1, 64]));
        assert_eq!(address(&buffers), first, "no copy");
        attend(&mut buffers, 1);
        assert_eq!(address(&buffers), first, "nor now");

        let held = buffers[0][0].clone();
        attend(&mut buffers, 2);
        assert_ne!(address(&buffers), first, "a copy, as somebody holds the old one");
        let keys = buffers[0][0].as_f32().unwrap();
        assert_eq!(keys[..16], qkv.as_f32().unwrap()[64..80], "which has the old tokens");
        assert_eq!(
            (keys[32..48].to_vec(), held.as_f32().unwrap()[32..48].to_vec()),
            (keys[..16].to_vec(), vec![0.0; 16])
        );
    });
}

/// One head of keys, and windows that leave each sequence blocks of keys behind those of the one before.
#[test]
#[cfg(target_os = "linux")]
fn sequences_of_one_step_do_not_mix() {
    raw::start().unwrap();
    on_stream(|_| {
        let shape = AttentionShape {
            n_heads: 2,
            n_kv_heads: 1,
            dim: 16,
            window: Some(300),
            neighbours: true,
            eps: 0.0,
        };
        let positions = [100, 900, 1500];
        let qkv = Tensor::from_f32(&noise(3 * 64, 1.0), &[3, 64]);
        let (cos, sin) =
            (Tensor::from_f32(&noise(24, 1.0), &[3, 8]), Tensor::from_f32(&noise(25, 1.0)[1..], &[3, 8]));
        let attend = |rows: &[usize]| {
            let mut buffers: Vec<[Tensor; 2]> = rows
                .iter()
                .map(|row| {
                    let values = noise(2 * 1600 * 16 + row, 2.0);
                    let (keys, values) = values[*row..].split_at(1600 * 16);
                    [keys, values].map(|side| Tensor::from_f32(side, &[1, 1600, 16]))
                })
                .collect();
            let inputs = AttentionInputs { qkv: &qkv, angles: (&cos, &sin), norm: None };
            let rows = rows.iter().map(|&row| AttentionRow { start: row, n: 1, position: positions[row] });
            let rows: Vec<_> = rows.collect();
            attention_on_cpu(inputs, &rows, &mut buffers, shape).unwrap().as_f32().unwrap().to_vec()
        };
        let alone = [attend(&[0]), attend(&[1]), attend(&[2])].concat();
        assert!(attend(&[0, 1, 2]) == alone, "other values beside other sequences");
    });
}
