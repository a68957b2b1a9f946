//! That libmlx is linked as it should be: version, half types, BLAS, errors, and the operations a decoder lives on.

use std::num::NonZeroUsize;

use half::{bf16, f16};
use mlx_rs::{Array, Dtype, ops};

use super::{BUILT_FOR, blas, call, process, start, version};

/// Numbers in −1…1 that repeat from run to run.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
        })
        .collect()
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

#[test]
fn libmlx_is_the_release_the_bindings_are_for() {
    assert_eq!(BUILT_FOR, "0.32.2");
    assert_eq!(version().unwrap(), BUILT_FOR);
    start().unwrap();
}

#[test]
fn another_release_is_refused_by_name() {
    let error = process::agree("0.33.0").unwrap_err().to_string();
    assert!(error.contains("0.32.2") && error.contains("0.33.0"), "{error}");
}

#[test]
fn half_types_keep_their_bits() {
    start().unwrap();
    let halves: Vec<f16> = [0.0, -0.0, 1.0, -2.5, 65504.0, 6.0e-8].map(f16::from_f32).to_vec();
    let brains: Vec<bf16> = [0.0, -0.0, 1.0, -2.5, 3.0e38, 1.0e-38].map(bf16::from_f32).to_vec();
    let count = i32::try_from(halves.len()).unwrap();

    let array = Array::from_slice(&halves, &[count]);
    array.eval().unwrap();
    assert_eq!(array.dtype(), Dtype::Float16);
    assert_eq!(array.as_slice::<f16>(), halves);

    let array = Array::from_slice(&brains, &[count]);
    array.eval().unwrap();
    assert_eq!(array.dtype(), Dtype::Bfloat16);
    assert_eq!(array.as_slice::<bf16>(), brains);

    // One element goes another way: through `item` and not through the data pointer.
    let sum = Array::from_slice(&halves[2..4], &[2]).sum(None).unwrap();
    assert_eq!(sum.item_exact::<f16>(), f16::from_f32(-1.5));
    let sum = Array::from_slice(&brains[2..4], &[2]).sum(None).unwrap();
    assert_eq!(sum.item_exact::<bf16>(), bf16::from_f32(-1.5));
}

#[test]
#[cfg(target_os = "linux")]
fn dense_products_go_through_openblas() {
    const ROWS: usize = 32;
    const SIDE: usize = 2048;
    start().unwrap();
    let found = blas::describe().expect("Linux links OpenBLAS");
    assert!(found.config.starts_with("OpenBLAS"), "{}", found.config);
    assert!(found.library.ends_with("libscipy_openblas.so"), "{}", found.library);

    let (left, right) = (numbers(ROWS * SIDE), numbers(SIDE * SIDE));
    let before = blas::n_products();
    let product = ops::matmul(
        Array::from_slice(&left, &[ROWS as i32, SIDE as i32]),
        Array::from_slice(&right, &[SIDE as i32, SIDE as i32]),
    )
    .unwrap();
    product.eval().unwrap();
    assert!(blas::n_products() > before, "libmlx used another BLAS");

    let column = 7;
    let expected: Vec<f32> = (0..ROWS)
        .map(|row| {
            (0..SIDE)
                .map(|k| f64::from(left[row * SIDE + k]) * f64::from(right[k * SIDE + column]))
                .sum::<f64>()
        })
        .map(|sum| sum as f32)
        .collect();
    let got: Vec<f32> = product.as_slice::<f32>().chunks(SIDE).map(|row| row[column]).collect();
    assert!(largest_difference(&got, &expected) < 1e-3);
}

#[test]
#[cfg(target_os = "linux")]
fn blas_threads_can_be_set() {
    let threads = |wanted: Option<NonZeroUsize>| {
        blas::set_threads(wanted);
        blas::describe().expect("Linux links OpenBLAS").n_threads
    };
    assert_eq!(threads(NonZeroUsize::new(1)), 1);
    assert_eq!(threads(None), blas::default_threads());
}

#[test]
fn a_raw_error_is_a_value() {
    start().unwrap();
    let (left, right) = (ops::zeros::<f32>(&[2, 3]).unwrap(), ops::zeros::<f32>(&[2, 3]).unwrap());
    let stream = mlx_rs::Stream::cpu();
    // SAFETY: an empty handle for the result.
    let mut result = unsafe { mlx_sys::mlx_array_new() };
    let outcome = call("multiply", || {
        // SAFETY: all handles are alive during the call.
        unsafe { mlx_sys::mlx_matmul(&raw mut result, left.as_ptr(), right.as_ptr(), stream.as_ptr()) }
    });
    // SAFETY: freed once, and not used afterwards.
    unsafe { mlx_sys::mlx_array_free(result) };
    let error = outcome.unwrap_err();
    assert_eq!(error.operation, "multiply");
    assert!(error.message.contains("matmul"), "{error}");

    // mlx-rs still gets its own messages.
    let error = ops::matmul(&left, &right).unwrap_err();
    assert!(error.what().contains("matmul"), "{error}");
}

#[test]
fn quantised_and_dense_products_agree() {
    start().unwrap();
    let weights = Array::from_slice(&numbers(64 * 128), &[64, 128]);
    let inputs = Array::from_slice(&numbers(3 * 128), &[3, 128]);
    for bits in [4, 8] {
        let (packed, scales, biases) = ops::quantize(&weights, 32, bits).unwrap();
        let dense = ops::dequantize(&packed, &scales, &biases, 32, bits).unwrap();
        let expected = ops::matmul(&inputs, dense.t()).unwrap();
        let product = ops::quantized_matmul(&inputs, &packed, &scales, &biases, true, 32, bits).unwrap();
        assert_eq!(product.dtype(), Dtype::Float32);
        let difference = largest_difference(&contents(&product), &contents(&expected));
        assert!(difference < 1e-4, "{bits} bits: {difference}");
    }
}

#[test]
fn fused_attention_agrees_with_its_definition() {
    start().unwrap();
    // [batch, heads, rows, head_dim]
    let shape = [1, 2, 5, 16];
    let all = numbers(3 * 2 * 5 * 16);
    let [queries, keys, values] =
        [0, 1, 2].map(|part| Array::from_slice(&all[part * 160..(part + 1) * 160], &shape));
    let scale = 0.25;
    let fused = mlx_rs::fast::scaled_dot_product_attention(
        &queries,
        &keys,
        &values,
        scale,
        None::<mlx_rs::fast::ScaledDotProductAttentionMask<'_>>,
        None,
    )
    .unwrap();
    let scores = ops::matmul(&queries, keys.transpose_axes(&[0, 1, 3, 2]).unwrap()).unwrap();
    let weights = ops::softmax_axis(scores.multiply(Array::from_f32(scale)).unwrap(), -1, None).unwrap();
    let expected = ops::matmul(weights, &values).unwrap();
    assert!(largest_difference(&contents(&fused), &contents(&expected)) < 1e-5);
}

/// An array's values in row-major order.
fn contents(array: &Array) -> Vec<f32> {
    let array = array.flatten(None, None).unwrap().contiguous().unwrap();
    array.eval().unwrap();
    array.as_slice::<f32>().to_vec()
}
