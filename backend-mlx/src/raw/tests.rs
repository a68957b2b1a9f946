//! That libmlx is linked as it should be: version, half types, BLAS, errors, and the operations a decoder lives on.

use std::num::NonZeroUsize;

use half::{bf16, f16};
use mlx_rs::{Array, Dtype, ops};

use super::pages::Pages;
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

#[cfg(target_os = "linux")]
#[test]
fn weights_stay_in_the_memory_that_was_made_for_them() {
    start().unwrap();
    for n in [1, 1000, 700_000] {
        let mut pages = Pages::new(n).unwrap();
        pages.values().copy_from_slice(&numbers(n));
        let place = pages.values().as_ptr();
        let array = pages.into_array(&[1, i32::try_from(n).unwrap()]).unwrap();
        let shared = array.transpose().unwrap();
        drop(array);
        shared.eval().unwrap();
        let flat = shared.reshape(&[-1]).unwrap();
        assert_eq!(flat.as_slice::<f32>(), numbers(n));
        assert_eq!(flat.as_slice::<f32>().as_ptr(), place, "{n} values were copied");
        assert!(n < 700_000 || (place as usize).is_multiple_of(1 << 21));
        let doubled = flat.add(&flat).unwrap();
        drop((shared, flat));
        assert_eq!(
            doubled.as_slice::<f32>()[0],
            2.0 * numbers(1)[0],
            "they outlive what is computed from them"
        );
    }
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

/// Whoever counts or sets threads, which are the process's.
#[cfg(target_os = "linux")]
static THREADS: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
#[cfg(target_os = "linux")]
fn blas_threads_can_be_set() {
    let _alone = THREADS.lock().unwrap();
    let threads = |wanted: Option<NonZeroUsize>| {
        blas::set_threads(wanted);
        blas::describe().expect("Linux links OpenBLAS").n_threads
    };
    assert_eq!(threads(NonZeroUsize::new(1)), 1);
    assert_eq!(threads(None), blas::default_threads());
}

/// `x · wᵀ` as a layer computes it.
fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let matrix = |values: &[f32]| Array::from_slice(values, &[(values.len() / k) as i32, k as i32]);
    contents(&ops::matmul(matrix(x), matrix(w).t()).unwrap())
}

/// Sizes that leave a rest in every direction, one row and many, spans that are cut; and a row's bits are the same alone.
#[test]
fn products_are_right_and_rows_do_not_depend_on_others() {
    start().unwrap();
    let wide = super::kernels::n_lanes().is_some_and(|lanes| lanes >= 8);
    for k in [32, 33, 47, 64, 576, 641, 1300] {
        for n in [1, 5, 6, 7, 50, 1001] {
            let (x, w) = (numbers(40 * k), numbers(n * k + 7)[7..].to_vec());
            for m in [1, 2, 3, 4, 5, 8, 9, 16, 17, 40] {
                let got = product(&x[..m * k], &w, k);
                for row in [0, m / 2, m - 1] {
                    let one = &x[row * k..(row + 1) * k];
                    let got = &got[row * n..(row + 1) * n];
                    for column in [0, n / 2, n - 1] {
                        let exact: f64 = one
                            .iter()
                            .zip(&w[column * k..])
                            .map(|(a, b)| f64::from(*a) * f64::from(*b))
                            .sum();
                        assert!((f64::from(got[column]) - exact).abs() < 3e-5, "{m} {n} {k}: {row} {column}");
                    }
                    if wide || cfg!(target_os = "linux") && m <= 16 {
                        assert_eq!(got, product(one, &w, k), "{m} {n} {k}: row {row}");
                    }
                }
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_number_of_threads_changes_no_bit() {
    start().unwrap();
    let _alone = THREADS.lock().unwrap();
    let (x, w) = (numbers(20 * 576), numbers(3000 * 576));
    let mut expected: Option<Vec<f32>> = None;
    for n_threads in [1, 2, 3, 7, 2, 1] {
        blas::set_threads(NonZeroUsize::new(n_threads));
        for _ in 0..20 {
            let got = product(&x, &w, 576);
            assert!(*expected.get_or_insert_with(|| got.clone()) == got, "{n_threads} threads");
        }
    }
    blas::set_threads(None);
}

#[test]
#[cfg(target_os = "linux")]
fn kernels_refuse_what_they_are_not_made_for() {
    use super::kernels;
    start().unwrap();
    let zeros = |shape: &[i32]| ops::zeros::<f32>(shape).unwrap();
    kernels::rms_norm(&zeros(&[2, 3]), &zeros(&[2]), 1e-5).expect_err("a weight for each column");
    kernels::rms_norm(&zeros(&[2, 0]), &zeros(&[0]), 1e-5).expect_err("nothing to take a mean of");
    kernels::swiglu(&zeros(&[2, 3])).expect_err("half of three columns");
    let half = zeros(&[2, 4]).as_dtype(Dtype::Float16).unwrap();
    assert!(kernels::swiglu(&half).unwrap_err().message.contains("f32"));
    let turned = Array::from_slice(&numbers(12), &[3, 4]).transpose().unwrap();
    let view = kernels::rms_norm(&turned, &zeros(&[3]), 1e-5).unwrap();
    assert!(view.eval().unwrap_err().what().contains("contiguous"));

    let shape = kernels::AttentionShape {
        n_heads: 2,
        n_kv_heads: 1,
        dim: 16,
        window: None,
        neighbours: false,
        eps: 0.0,
    };
    let (qkv, angles, buffer) = (zeros(&[3, 64]), zeros(&[3, 8]), zeros(&[1, 8, 16]));
    let attend = |qkv: &Array, buffers: [&Array; 2], row: [usize; 3], shape: kernels::AttentionShape| {
        let inputs =
            kernels::AttentionInputs { qkv, cos: &angles, sin: &angles, norm: None, buffers: &buffers };
        let [start, n, position] = row;
        kernels::attention(inputs, &[kernels::AttentionRow { start, n, position }], shape)
    };
    let both = [&buffer, &buffer];
    assert_eq!(attend(&qkv, both, [1, 2, 6], shape).unwrap().len(), 3);
    attend(&qkv, both, [2, 2, 0], shape).expect_err("a token beyond the step");
    attend(&qkv, both, [0, 0, 0], shape).expect_err("no token");
    attend(&qkv, both, [0, 2, 7], shape).expect_err("no room");
    attend(&zeros(&[3, 48]), both, [0, 1, 0], shape).expect_err("other heads");
    attend(&zeros(&[4, 64]), both, [0, 1, 0], shape).expect_err("no angle for the last token");
    attend(&qkv, [&buffer, &zeros(&[1, 9, 16])], [0, 1, 0], shape).expect_err("values of another capacity");
    attend(&qkv, both, [0, 1, 0], kernels::AttentionShape { dim: 24, ..shape }).expect_err("heads of 24");
    attend(&qkv, both, [0, 1, 0], kernels::AttentionShape { n_kv_heads: 0, ..shape }).expect_err("no keys");
}

/// The kernels' forms for lesser machines, by tests of theirs in a process that is told to have one.
#[test]
#[cfg(target_os = "linux")]
fn kernels_are_right_without_wide_vectors() {
    start().unwrap();
    let best = super::kernels::n_lanes().expect("Linux has kernels");
    for lanes in [4, 8].into_iter().filter(|lanes| *lanes < best) {
        let mut tests = std::process::Command::new(std::env::current_exe().unwrap());
        tests.env("DUET_MLX_LANES", lanes.to_string()).arg("--exact").args([
            "raw::tests::kernels_have_so_many_lanes",
            "raw::tests::products_are_right_and_rows_do_not_depend_on_others",
            "tensor::tests::kernels_agree_with_libmlx",
            "tensor::tests::sequences_of_one_step_do_not_mix",
            "models::tests::deep_sequences_agree_on_every_path",
            "models::tests::a_row_is_the_same_in_any_company",
        ]);
        let output = tests.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("6 passed"), "{lanes} floats at a time: {said}");
    }
}

/// As many as [`kernels_are_right_without_wide_vectors`] asks for.
#[test]
#[cfg(target_os = "linux")]
fn kernels_have_so_many_lanes() {
    let lanes = super::kernels::n_lanes().unwrap();
    let wanted = std::env::var("DUET_MLX_LANES").ok().and_then(|text| text.parse().ok());
    assert!(wanted.map_or([4, 8, 16].contains(&lanes), |wanted: usize| lanes == wanted), "{lanes} lanes");
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
