//! The parts of a decoder one by one, and the paths that other devices take.

use std::f64::consts::TAU;
use std::path::Path;

use duet_core::model::inspect;

use super::mask::Blocks;
use super::rope::{RopeScaling, RopeSpec};
use super::*;
use crate::cache::{CacheShape, SequenceCache};
use crate::convert::tests::random_bytes;
use crate::loader::{self, Held, LoadPlan, Placement};
use crate::raw;
use crate::tensor::{Device, ElementType, Tensor, on_stream};

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * b.abs()
}

fn spec(scaling: RopeScaling) -> RopeSpec {
    RopeSpec { base: 10_000.0, n_rot: 16, traditional: false, scaling }
}

#[test]
fn frequencies_of_every_scaling() {
    let plain = spec(RopeScaling::None).frequencies(100);
    assert!(close(plain[0], 1.0) && close(plain[4], 0.01) && plain.len() == 8);
    let linear = spec(RopeScaling::Linear(4.0)).frequencies(100);
    assert!(plain.iter().zip(&linear).all(|(plain, linear)| close(*linear, plain / 4.0)));
    let factors = spec(RopeScaling::Factors((1..9).map(f64::from).collect())).frequencies(100);
    assert!(
        plain.iter().zip(&factors).enumerate().all(|(at, (plain, one))| close(*one, plain / (at + 1) as f64))
    );

    // Llama 3's rule in terms of wavelengths, as its authors put it.
    let (factor, low, high, original) = (8.0, 1.0, 4.0, 64.0);
    let llama3 = spec(RopeScaling::Llama3 { factor, low, high, original }).frequencies(100);
    let mut kinds = [0; 3];
    for (plain, scaled) in plain.iter().zip(&llama3) {
        let wavelength = TAU / plain;
        let expected = if wavelength < original / high {
            kinds[0] += 1;
            *plain
        } else if wavelength > original / low {
            kinds[1] += 1;
            plain / factor
        } else {
            kinds[2] += 1;
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * plain / factor + smooth * plain
        };
        assert!(close(*scaled, expected), "{scaled} {expected}");
    }
    assert!(kinds.iter().all(|n| *n > 0), "all three branches: {kinds:?}");

    let dynamic = spec(RopeScaling::Dynamic { factor: 2.0, original: 100.0 });
    assert_eq!(dynamic.frequencies(100), plain, "within the original context nothing changes");
    let base = 10_000.0 * (2.0 * 300.0 / 100.0 - 1.0_f64).powf(16.0 / 14.0);
    assert!(close(dynamic.frequencies(300)[1], base.powf(-2.0 / 16.0)));
}

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    random_bytes(n, seed).iter().map(|byte| f32::from(*byte) / 128.0 - 1.0).collect()
}

fn rotated(x: &[f32], first: usize, traditional: bool) -> Vec<f32> {
    let frequencies = spec(RopeScaling::None).frequencies(1);
    let mut out = x.to_vec();
    for (token, (row, out)) in x.chunks_exact(16).zip(out.chunks_exact_mut(16)).enumerate() {
        for (pair, frequency) in frequencies.iter().enumerate() {
            let (a, b) = if traditional { (2 * pair, 2 * pair + 1) } else { (pair, pair + 8) };
            let (sin, cos) = ((first + token % 5) as f64 * frequency).sin_cos();
            let (x, y) = (f64::from(row[a]), f64::from(row[b]));
            (out[a], out[b]) = ((x * cos - y * sin) as f32, (y * cos + x * sin) as f32);
        }
    }
    out
}

fn assert_near(what: &str, got: &[f32], expected: &[f32]) {
    let worst = got.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(got.len() == expected.len() && worst < 1e-5, "{what}: {worst}");
}

/// Halves and neighbours, by tables and by the device's kernel.
#[test]
fn rotation_is_the_same_on_every_path() {
    raw::start().unwrap();
    on_stream(|_| {
        let values = numbers(3 * 5 * 16, 5);
        let x = Tensor::from_f32(&values, &[3, 5, 16]);
        for (device, traditional) in
            [(Device::Cpu, false), (Device::Cpu, true), (Device::Gpu, false), (Device::Gpu, true)]
        {
            let rope = Rope::new(&RopeSpec { traditional, ..spec(RopeScaling::None) }, 64, device);
            let turned = rope.apply(&x, &rope.rotation(40..45), 40).unwrap();
            let expected = rotated(&values, 40, traditional);
            assert_near(
                &format!("{device:?} {traditional}"),
                turned.contiguous().unwrap().as_f32().unwrap(),
                &expected,
            );
        }
    });
}

/// Which keys the queries of a row see, from blocks or from a whole mask.
fn seen(position: usize, n: usize, window: Option<usize>) -> Vec<Vec<usize>> {
    let Blocks::Cpu(blocks) = Blocks::new(position, n, window, (Device::Cpu, ElementType::F32)).unwrap()
    else {
        panic!("blocks on a CPU")
    };
    let mut seen = Vec::new();
    for block in &blocks {
        assert_eq!(block.queries.0, seen.len(), "blocks follow each other");
        let width = block.keys.1 - block.keys.0;
        let mask = block.mask.as_ref().map(|mask| mask.as_f32().unwrap().to_vec());
        for query in 0..block.queries.1 - block.queries.0 {
            let visible = |key: &usize| mask.as_ref().is_none_or(|mask| mask[query * width + key] == 0.0);
            seen.push((0..width).filter(visible).map(|key| key + block.keys.0).collect());
        }
    }
    seen
}

#[test]
fn every_query_sees_the_keys_up_to_its_own() {
    raw::start().unwrap();
    on_stream(|_| {
        let cases = [(0, 1), (0, 2), (9, 1), (0, 128), (0, 129), (5, 300), (1000, 257)];
        for (position, n) in cases {
            for window in [None, Some(1), Some(7), Some(200), Some(5000)] {
                let seen = seen(position, n, window);
                assert_eq!(seen.len(), n);
                for (query, keys) in seen.iter().enumerate() {
                    let end = position + query + 1;
                    let from = window.map_or(0, |window| end.saturating_sub(window));
                    assert!(
                        keys.iter().copied().eq(from..end),
                        "{position} {n} {window:?}: query {query} sees {keys:?}"
                    );
                }
            }
        }
    });
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn decoder(name: &str, placement: Placement) -> Decoder {
    let model = inspect(&fixture(name)).expect("a fixture");
    let plan = LoadPlan { placement, context_length: 512 };
    loader::build(&model, plan, &|_| Ok(())).expect("it loads")
}

fn on_cpu(held: Held) -> Placement {
    Placement { device: Device::Cpu, compute: ElementType::F32, held }
}

/// Logits after every token of `rows`, evaluated in one step: `[all tokens, vocab]`.
fn logits(decoder: &Decoder, caches: &mut [SequenceCache], rows: &[&[u32]]) -> Vec<f32> {
    let mut start = 0;
    let places = rows.iter().zip(caches.iter()).map(|(ids, cache)| {
        start += ids.len();
        StepRow { start: start - ids.len(), n: ids.len(), position: cache.len() }
    });
    let step = decoder.step(places.collect());
    let ids = Tensor::from_u32(&rows.concat(), &[start]);
    let mut caches: Vec<&mut SequenceCache> = caches.iter_mut().collect();
    let hidden = decoder.hidden(&ids, &step, &mut caches).unwrap();
    assert_eq!(hidden.element_type(), decoder.compute, "nothing was promoted on the way");
    decoder.logits(&hidden).unwrap().contiguous().unwrap().as_f32().unwrap().to_vec()
}

fn empty(decoder: &Decoder, n: usize) -> Vec<SequenceCache> {
    let config = &decoder.config;
    let shape = CacheShape { n_kv_heads: config.n_kv_heads, head_dim: config.head_dim, ty: ElementType::F32 };
    (0..n).map(|_| SequenceCache::new(decoder.layers.len(), shape)).collect()
}

fn ids(n: usize) -> Vec<u32> {
    random_bytes(n, 77).into_iter().map(u32::from).collect()
}

fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    let worst = got.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(got.len() == expected.len() && worst <= 2e-5 * scale, "{what}: {worst} of {scale}");
}

#[test]
fn embeddings_are_the_checkpoints_rows() {
    raw::start().unwrap();
    on_stream(|_| {
        let model = inspect(&fixture("tiny-llama-mlx-q4g32")).unwrap();
        let checkpoint = loader::MlxCheckpoint::open(&model).unwrap();
        let table = loader::Checkpoint::matrix(&checkpoint, "model.embed_tokens", 320, 64).unwrap();
        for held in [Held::Packed, Held::Dense] {
            let decoder = decoder("tiny-llama-mlx-q4g32", on_cpu(held));
            let rows =
                decoder.embedding.forward(&Tensor::from_u32(&[319, 0, 7], &[3]), ElementType::F32).unwrap();
            let rows = rows.as_f32().unwrap().to_vec();
            for (row, id) in rows.chunks_exact(64).zip([319, 0, 7]) {
                let mut expected = [0.0; 64];
                table.dense_row(id, &mut expected);
                assert_eq!(row, expected);
            }
        }
    });
}

/// 300 tokens are three blocks of queries; 7 at a time are one each.
#[test]
fn blocks_and_chunks_agree() {
    raw::start().unwrap();
    on_stream(|_| {
        for name in ["tiny-llama", "tiny-qwen2", "tiny-qwen3"] {
            let decoder = decoder(name, on_cpu(Held::Dense));
            let ids = ids(300);
            let whole = logits(&decoder, &mut empty(&decoder, 1), &[&ids]);
            let mut caches = empty(&decoder, 1);
            let chunked: Vec<f32> =
                ids.chunks(7).flat_map(|ids| logits(&decoder, &mut caches, &[ids])).collect();
            assert_close(name, &chunked, &whole);
        }
    });
}

#[test]
fn ragged_rows_agree_with_each_alone() {
    raw::start().unwrap();
    on_stream(|_| {
        let decoder = decoder("tiny-qwen3", on_cpu(Held::Dense));
        let (a, b, c) = (ids(150), ids(40), vec![5]);
        let alone: Vec<f32> = [&a, &b, &c]
            .into_iter()
            .flat_map(|ids| logits(&decoder, &mut empty(&decoder, 1), &[ids]))
            .collect();
        assert_close("three rows", &logits(&decoder, &mut empty(&decoder, 3), &[&a, &b, &c]), &alone);
    });
}

/// What a GPU runs (its own rotation and attention, masks by word), computed on the CPU.
#[test]
fn the_path_of_other_devices_agrees() {
    raw::start().unwrap();
    on_stream(|_| {
        for (name, held) in
            [("tiny-llama", Held::Dense), ("tiny-qwen3", Held::Dense), ("tiny-llama-mlx-mixed", Held::Packed)]
        {
            let cpu = decoder(name, on_cpu(held));
            let gpu = decoder(name, Placement { device: Device::Gpu, ..on_cpu(held) });
            let (a, b) = (ids(140), ids(30));
            let (mut ours, mut theirs) = (empty(&cpu, 2), empty(&gpu, 2));
            for rows in [[a.as_slice(), &b], [&[3], &[4]], [&b, &[5]]] {
                assert_close(name, &logits(&gpu, &mut theirs, &rows), &logits(&cpu, &mut ours, &rows));
            }
        }
    });
}

/// Deep enough for several blocks of keys in the kernel, by one token, some tokens and a whole block of queries at a time,
/// with a window and without.
#[test]
fn deep_sequences_agree_on_every_path() {
    raw::start().unwrap();
    on_stream(|_| {
        for (name, window) in [("tiny-llama", None), ("tiny-qwen3", None), ("tiny-llama", Some(700))] {
            let mut cpu = decoder(name, on_cpu(Held::Dense));
            let mut gpu = decoder(name, Placement { device: Device::Gpu, ..on_cpu(Held::Dense) });
            for decoder in [&mut cpu, &mut gpu] {
                decoder.windows = vec![None, window];
                decoder.layers[1].attention.window = window;
            }
            let ids = ids(1100);
            let whole = logits(&gpu, &mut empty(&gpu, 1), &[&ids]);
            let mut caches = empty(&cpu, 1);
            let mut got = logits(&cpu, &mut caches, &[&ids[..500]]);
            for chunk in [20, 1, 3, 16, 5, 10, 445, 1, 20, 16, 2, 11, 50] {
                let from = caches[0].len();
                got.extend(logits(&cpu, &mut caches, &[&ids[from..from + chunk]]));
            }
            assert_close(&format!("{name} {window:?}"), &got, &whole);
        }
    });
}

/// What a request gives does not depend on its neighbours: to the bit, where one kernel does rows of every number.
#[test]
fn a_row_is_the_same_in_any_company() {
    raw::start().unwrap();
    on_stream(|_| {
        for name in ["tiny-llama", "tiny-qwen2", "tiny-qwen3"] {
            let decoder = decoder(name, on_cpu(Held::Dense));
            let ids = ids(700);
            let depths = [5, 600, 30, 520, 0, 511, 512, 64];
            let mut caches = empty(&decoder, depths.len());
            for (cache, depth) in caches.iter_mut().zip(depths).filter(|(_, depth)| *depth > 0) {
                logits(&decoder, std::slice::from_mut(cache), &[&ids[..depth]]);
            }
            let cut = |caches: &mut [SequenceCache]| {
                for (cache, depth) in caches.iter_mut().zip(depths) {
                    assert!(cache.trim_to(depth));
                }
            };
            let own: Vec<[u32; 1]> = (0..8).map(|row| [row * 13 + 1]).collect();
            let alone: Vec<Vec<f32>> = caches
                .iter_mut()
                .zip(&own)
                .map(|(cache, ids)| logits(&decoder, std::slice::from_mut(cache), &[ids]))
                .collect();
            cut(&mut caches);
            let rows: Vec<&[u32]> = own.iter().map(<[u32; 1]>::as_slice).collect();
            let exact = |what: &str, got: &[f32], alone: &[f32]| {
                assert_close(&format!("{name}, {what}"), got, alone);
                if raw::kernels::n_lanes().is_some_and(|lanes| lanes >= 8) {
                    assert!(got == alone, "{name}, {what}: not to the bit");
                }
            };
            exact("all", &logits(&decoder, &mut caches, &rows), &alone.concat());
            cut(&mut caches);
            exact("two", &logits(&decoder, &mut caches[..2], &rows[..2]), &alone[..2].concat());
            cut(&mut caches);
            // Beside a prompt of 300 tokens and one of 10.
            let mut mixed = rows.clone();
            (mixed[0], mixed[4]) = (&ids[..300], &ids[..10]);
            let n_vocab = alone[0].len();
            let together = logits(&decoder, &mut caches, &mixed);
            exact("after a prompt", &together[300 * n_vocab..303 * n_vocab], &alone[1..4].concat());
            exact("last", &together[together.len() - n_vocab..], &alone[7]);
        }
    });
}

/// Where a prompt is cut changes no bit, nor does the place where partial results are put together.
#[test]
fn cuts_leave_no_trace() {
    raw::start().unwrap();
    on_stream(|_| {
        for name in ["tiny-llama", "tiny-qwen2", "tiny-qwen3"] {
            let decoder = decoder(name, on_cpu(Held::Dense));
            let ids = ids(1500);
            let in_chunks = |chunk: usize| {
                let mut caches = empty(&decoder, 1);
                ids.chunks(chunk).flat_map(|ids| logits(&decoder, &mut caches, &[ids])).collect::<Vec<f32>>()
            };
            let whole = in_chunks(1500);
            for chunk in [1499, 512, 333, 17] {
                let got = in_chunks(chunk);
                assert_close(&format!("{name} by {chunk}"), &got, &whole);
                if raw::kernels::n_lanes().is_some_and(|lanes| lanes >= 8) {
                    assert!(got == whole, "{name} by {chunk}: not to the bit");
                }
            }
        }
    });
}

/// A window as wide as the sequence changes nothing, a narrower one does, and chunks agree with the whole.
#[test]
fn windows_are_kept() {
    raw::start().unwrap();
    on_stream(|_| {
        let mut decoder = decoder("tiny-llama", on_cpu(Held::Dense));
        let ids = ids(160);
        let full = logits(&decoder, &mut empty(&decoder, 1), &[&ids]);
        let mut with_window = |window: usize, device: Device, chunk: usize| {
            decoder.windows = vec![None, Some(window)];
            decoder.layers[1].attention.window = Some(window);
            decoder.device = device;
            let mut caches = empty(&decoder, 1);
            ids.chunks(chunk).flat_map(|ids| logits(&decoder, &mut caches, &[ids])).collect::<Vec<f32>>()
        };
        assert_close("a wide window", &with_window(160, Device::Cpu, 160), &full);
        let narrow = with_window(20, Device::Cpu, 160);
        assert_close("before the window binds", &narrow[..20 * 320], &full[..20 * 320]);
        assert!(narrow[100 * 320..].iter().zip(&full[100 * 320..]).any(|(a, b)| (a - b).abs() > 1e-3));
        assert_close("one by one", &with_window(20, Device::Cpu, 1), &narrow);
        assert_close("by chunks", &with_window(20, Device::Cpu, 33), &narrow);
    });
}

#[test]
fn half_types_stay_half() {
    raw::start().unwrap();
    on_stream(|_| {
        let exact = decoder("tiny-qwen3", on_cpu(Held::Dense));
        let expected = logits(&exact, &mut empty(&exact, 1), &[&ids(20)]);
        for compute in [ElementType::F16, ElementType::Bf16] {
            let half = decoder("tiny-qwen3", Placement { compute, ..on_cpu(Held::Dense) });
            let got = logits(&half, &mut empty(&half, 1), &[&ids(20)]); // asserts the type
            let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
            let worst = got.iter().zip(&expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst < 0.1 * scale && worst > 1e-5 * scale, "{compute}: {worst} of {scale}");
        }
    });
}
