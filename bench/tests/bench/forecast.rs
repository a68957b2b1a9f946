//! Plans from headers: the method's tables, and what is said of a model before it is loaded.

use duet_bench::forecast::arithmetic::*;
use duet_bench::forecast::{ForecastRequest, Outcome, Planned, forecast};
use duet_core::model::memory::KvAllocation;
use duet_core::model::{KvLayout, KvType, LayerInfo, LayerKind, ModelInfo, WeightSplit, kv_bytes};
use duet_core::testing::fake_model_info;

use crate::support::{TestBackend, backend, registry};

/// Attention of a published model, with weights to be added.
struct Shape {
    n_full: usize,
    n_windowed: usize,
    n_heads: u32,
    n_kv_heads: u32,
    head_dim: u32,
    window: u32,
    hidden: u32,
    vocab: u32,
    tied: bool,
}

const GPT_OSS_20B: Shape = Shape {
    n_full: 12,
    n_windowed: 12,
    n_heads: 64,
    n_kv_heads: 8,
    head_dim: 64,
    window: 128,
    hidden: 2880,
    vocab: 201_088,
    tied: false,
};
const LLAMA_8B: Shape = Shape {
    n_full: 32,
    n_windowed: 0,
    n_heads: 32,
    n_kv_heads: 8,
    head_dim: 128,
    window: 0,
    hidden: 4096,
    vocab: 128_256,
    tied: false,
};
const QWEN3_8B: Shape = Shape { n_full: 36, hidden: 4096, vocab: 151_936, ..LLAMA_8B };
const GEMMA_12B: Shape = Shape {
    n_full: 8,
    n_windowed: 40,
    n_heads: 16,
    n_kv_heads: 8,
    head_dim: 256,
    window: 1024,
    hidden: 3840,
    vocab: 262_208,
    tied: true,
};
const GEMMA_27B: Shape = Shape {
    n_full: 10,
    n_windowed: 52,
    n_heads: 32,
    n_kv_heads: 16,
    head_dim: 128,
    window: 1024,
    hidden: 5376,
    vocab: 262_208,
    tied: true,
};

impl Shape {
    /// With so many weights active in a token, the head not counted, at so many bits each.
    fn dense(&self, active_params: f64, bits: f64) -> ModelInfo {
        let table = u64::from(self.vocab) * u64::from(self.hidden);
        let n_tables = if self.tied { 1 } else { 2 };
        let n_params = active_params as u64 + n_tables * table;
        let bytes = |params: u64| (params as f64 * bits / 8.0) as u64;
        let split = WeightSplit {
            embedding_bytes: bytes(table),
            embedding_params: table,
            expert_bytes: 0,
            expert_params: 0,
        };
        ModelInfo { n_params, weight_bytes: bytes(n_params), split, bits_per_weight: bits, ..self.info() }
    }

    fn info(&self) -> ModelInfo {
        let layer = |window| LayerInfo {
            kind: LayerKind::Attention,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim_k: self.head_dim,
            head_dim_v: self.head_dim,
            window,
        };
        let full = std::iter::repeat_n(layer(None), self.n_full);
        let windowed = std::iter::repeat_n(layer(Some(self.window)), self.n_windowed);
        let layers: Vec<LayerInfo> = full.chain(windowed).collect();
        ModelInfo {
            n_layers: layers.len() as u32,
            layers,
            context_length: 131_072,
            hidden_size: self.hidden,
            vocab_size: self.vocab,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim_k: self.head_dim,
            head_dim_v: self.head_dim,
            tied_embeddings: self.tied,
            ..fake_model_info()
        }
    }
}

/// GPT-OSS-20B: MXFP4 experts (4.25 bits), all else Q8_0 but a few floats.
fn gpt_oss_20b() -> ModelInfo {
    let table: u64 = 201_088 * 2880;
    let expert_params: u64 = 24 * 32 * 3 * 2880 * 2880;
    let split = WeightSplit {
        embedding_bytes: table * 34 / 32,
        embedding_params: table,
        expert_bytes: expert_params * 17 / 32,
        expert_params,
    };
    let weight_bytes = split.embedding_bytes + split.expert_bytes + 1_305_000_000;
    ModelInfo {
        n_params: 20_915_000_000,
        n_experts: 32,
        n_experts_used: 4,
        intermediate_size: 2880,
        weight_bytes,
        bits_per_weight: weight_bytes as f64 * 8.0 / 20.915e9,
        name: Some("gpt-oss-20b".into()),
        split,
        ..GPT_OSS_20B.info()
    }
}

/// Within half a percent, or half of the last digit shown.
#[track_caller]
fn near(found: f64, expected: f64, digit: f64) {
    let allowed = (0.005 * expected).max(0.51 * digit);
    assert!((found - expected).abs() <= allowed, "{found}, not {expected}");
}

#[test]
fn decode_ceilings() {
    // Weights read in GB; at 273, 546 and 4800 GB/s: depth 0, 4K, 32K, 128K; depth at which KV bytes = weight bytes.
    let dense = |shape: &Shape, gb: f64| (shape.info(), gb * 1e9);
    let moe = gpt_oss_20b();
    let moe_bytes = decode_weight_bytes(&moe, 1);
    near(moe_bytes, 2.574e9, 1e6);
    type Row = ((ModelInfo, f64), [[f64; 4]; 3], f64);
    let rows: [Row; 6] = [
        (
            (moe, moe_bytes),
            [[106.0, 102.0, 81.0, 47.0], [212.0, 204.0, 161.0, 94.0], [1865.0, 1793.0, 1419.0, 828.0]],
            105.0,
        ),
        (
            dense(&LLAMA_8B, 4.221),
            [[65.0, 57.0, 32.0, 13.0], [129.0, 115.0, 64.0, 26.0], [1137.0, 1009.0, 564.0, 224.0]],
            32.0,
        ),
        (
            dense(&LLAMA_8B, 7.974),
            [[34.0, 32.0, 22.0, 11.0], [68.0, 64.0, 45.0, 22.0], [602.0, 564.0, 391.0, 191.0]],
            61.0,
        ),
        (
            dense(&QWEN3_8B, 4.257),
            [[64.0, 56.0, 30.0, 12.0], [128.0, 112.0, 60.0, 23.0], [1128.0, 987.0, 528.0, 204.0]],
            29.0,
        ),
        (
            dense(&GEMMA_12B, 6.618),
            [[41.0, 38.0, 30.0, 18.0], [83.0, 76.0, 60.0, 35.0], [725.0, 665.0, 527.0, 309.0]],
            96.0,
        ),
        (
            dense(&GEMMA_27B, 15.19),
            [[18.0, 17.0, 15.0, 10.0], [36.0, 34.0, 30.0, 21.0], [316.0, 301.0, 262.0, 182.0]],
            180.0,
        ),
    ];
    for ((info, weights), ceilings, depth) in rows {
        let kv = |n: u64| kv_bytes(&info, n, KvType::F16).unwrap() as f64;
        for (rate, expected) in [273e9, 546e9, 4800e9].into_iter().zip(ceilings) {
            for (depth, expected) in [0, 4096, 32_768, 131_072].into_iter().zip(expected) {
                near(decode_ceiling(rate, weights + kv(depth), 1), expected, 1.0);
            }
        }
        let equal = (0..400).find(|k| kv(k * 1000) >= weights).unwrap() as f64;
        assert!((equal - depth).abs() <= 1.0, "{equal}K, not {depth}K");
    }
}

#[test]
fn what_quantised_weights_are_read() {
    for (shape, active, bits, gb) in [
        (&LLAMA_8B, 6.979e9, 4.5, 4.221),
        (&LLAMA_8B, 6.979e9, 8.5, 7.974),
        (&QWEN3_8B, 6.946e9, 4.5, 4.257),
        (&GEMMA_12B, 10.758e9, 4.5, 6.618),
    ] {
        near(decode_weight_bytes(&shape.dense(active, bits), 1), gb * 1e9, 1e6);
    }
}

#[test]
fn experts_that_a_batch_reads() {
    let info = gpt_oss_20b();
    let rows = [
        (1, 4.00, 2.57),
        (2, 7.50, 3.68),
        (4, 13.24, 5.51),
        (8, 21.00, 7.97),
        (16, 28.22, 10.26),
        (32, 31.55, 11.32),
    ];
    for (n, experts, gb) in rows {
        near(distinct_experts(32, 4, n), experts, 0.01);
        near(decode_weight_bytes(&info, n), gb * 1e9, 1e7);
    }
    assert_eq!(distinct_experts(0, 0, 8), 0.0);
    assert_eq!(distinct_experts(8, 9, 1), 8.0, "not more than there are");
}

#[test]
fn operations_of_a_prompt() {
    // MFLOP per token on average over 512, 2K, 8K, 32K, 128K tokens.
    let rows = [
        (gpt_oss_20b(), [6130.0, 6280.0, 6890.0, 9300.0, 18970.0]),
        (LLAMA_8B.dense(6.979e9, 16.0), [14090.0, 14500.0, 16110.0, 22550.0, 48320.0]),
        (QWEN3_8B.dense(6.946e9, 16.0), [14040.0, 14500.0, 16310.0, 23560.0, 52550.0]),
        (GEMMA_12B.dense(10.758e9, 16.0), [21720.0, 22150.0, 22680.0, 24320.0, 30780.0]),
    ];
    near(active_params(&rows[0].0), 3.029e9, 1e6);
    for (info, expected) in rows {
        for (n, expected) in [512u64, 2048, 8192, 32_768, 131_072].into_iter().zip(expected) {
            near(prefill_flops(&info, n) / n as f64 / 1e6, expected, 10.0);
        }
    }
}

#[test]
fn where_batches_become_bound_by_computing() {
    for (bits, small, large) in [(4.5, 7.7, 46.0), (8.5, 14.6, 87.0), (16.0, 27.5, 165.0)] {
        near(compute_bound_from(15e12, 546e9, bits), small, 0.1);
        near(compute_bound_from(790e12, 4800e9, bits), large, 1.0);
    }
}

const LLAMA_CPP: KvAllocation = KvAllocation::LlamaCpp { n_ubatch: 512, unified: true, swa_full: false };

fn engines(bits: f64) -> Vec<TestBackend> {
    let f16 = |allocation| KvLayout { kv_type: KvType::F16, allocation };
    let mut gguf = backend("gguf");
    let mut mlx = backend("mlx");
    (gguf.layout, mlx.layout) = (f16(LLAMA_CPP), f16(KvAllocation::Mlx));
    (gguf.bits_per_weight, mlx.bits_per_weight) = (bits, bits);
    vec![gguf, mlx]
}

fn request(gb: u64) -> ForecastRequest {
    ForecastRequest {
        context: 131_072,
        n_sequences: 1,
        kv_type: None,
        prefill_chunk: 512,
        available_bytes: gb * 1_000_000_000,
        bytes_per_second: Some(546e9),
    }
}

#[track_caller]
fn planned(outcome: &Outcome) -> &Planned {
    let Outcome::Planned(planned) = outcome else { panic!("{outcome:?}") };
    planned
}

#[test]
fn gpt_oss_20b_at_its_longest_fits_sixteen_gigabytes_and_needs_no_seventy_one() {
    let info = gpt_oss_20b();
    let found = forecast(&registry(engines(info.bits_per_weight)), &info, request(64));
    assert_eq!(found.kv_f16_bytes, Some(3_224_371_200), "3.00 GiB");
    assert_eq!(found.kv_f16_without_windows_bytes, Some(6 << 30));
    let text = found.to_text();
    assert!(
        text.contains("KV cache of one: 3.00 GiB in f16 (6.00 GiB if its attention windows were ignored)"),
        "{text}"
    );
    let gguf = planned(&found.engines[0].outcome);
    near(gguf.kv_bytes as f64 / f64::from(1 << 30), 3.018, 0.001);
    assert!(gguf.fits && found.fits() && text.contains("gguf: fits: weights 11.2"), "{text}");
    let [empty, full] = gguf.ceilings.unwrap();
    near(empty, 212.0, 1.0);
    near(full, 94.0, 1.0);
    // 2·24 layers·hidden size instead of KV heads·4 bytes·128,000 tokens, windows ignored: the figure in circulation.
    near(2.0 * 24.0 * 2880.0 * 4.0 * 128_000.0 / 1e9, 70.78, 0.01);
    assert!(found.kv_f16_bytes.unwrap() as f64 * 21.9 < 70.78e9, "wrong by a factor of 22");
}

#[test]
fn what_does_not_fit_says_what_would() {
    let info = gpt_oss_20b();
    let backends = registry(engines(info.bits_per_weight));
    let found = forecast(&backends, &info, request(15));
    let gguf = planned(&found.engines[0].outcome);
    assert!(!gguf.fits && !found.fits());
    let longest = gguf.longest_context.unwrap();
    assert!(longest > 30_000 && longest < 131_072 && longest.is_multiple_of(256), "{longest}");
    let fits = |context| {
        let request = ForecastRequest { context, ..request(15) };
        planned(&forecast(&backends, &info, request).engines[0].outcome).fits
    };
    assert!(fits(longest) && !fits(longest + 256), "the longest is the longest");
    assert!(found.to_text().contains("gguf: does not fit: "), "{}", found.to_text());
    assert!(found.to_text().contains(&format!("  {longest} tokens would fit")), "{}", found.to_text());
    let none = forecast(&backends, &info, request(1));
    assert!(none.to_text().contains("no context fits"), "{}", none.to_text());
}

#[test]
fn requests_at_once_share_weights_and_not_windows() {
    let info = gpt_oss_20b();
    let backends = registry(engines(info.bits_per_weight));
    let four = ForecastRequest { context: 8192, n_sequences: 4, ..request(64) };
    let one = ForecastRequest { context: 8192, n_sequences: 1, ..request(64) };
    let of = |request| planned(&forecast(&backends, &info, request).engines[1].outcome).clone();
    let (four, one) = (of(four), of(one));
    assert_eq!(four.weights_bytes, one.weights_bytes);
    assert_eq!(four.kv_bytes, 4 * one.kv_bytes);
    assert!(four.step_weight_bytes > 2.0 * one.step_weight_bytes, "more experts are read");
    let gain = four.ceilings.unwrap()[0] / one.ceilings.unwrap()[0];
    near(gain, 4.0 * 2.574 / 5.51, 0.01);
}

#[test]
fn weights_that_are_held_wider_take_more() {
    let info = LLAMA_8B.dense(6.979e9, 4.5);
    let mut both = engines(4.5);
    both[1].bits_per_weight = 32.0;
    let found = forecast(&registry(both), &info, ForecastRequest { context: 4096, ..request(64) });
    let (gguf, mlx) = (planned(&found.engines[0].outcome), planned(&found.engines[1].outcome));
    assert_eq!(gguf.weights_bytes, info.weight_bytes);
    near(mlx.weights_bytes as f64, info.weight_bytes as f64 * 32.0 / 4.5, 1.0);
    near(mlx.step_weight_bytes, 4.221e9 * 32.0 / 4.5, 1e6);
}

#[test]
fn refusals_and_caches_without_a_rule_are_said() {
    let mut both = engines(4.5);
    both[0].refuses = true;
    let mut info = LLAMA_8B.dense(6.979e9, 4.5);
    info.layers[3].kind = LayerKind::Recurrent;
    let found = forecast(&registry(both), &info, request(64));
    assert!(!found.fits() && found.kv_f16_bytes.is_none());
    let text = found.to_text();
    assert!(text.contains("gguf: does not take it: "), "{text}");
    assert!(
        text.contains("mlx: cannot be told: the cache of layer 3 (Recurrent) cannot be computed"),
        "{text}"
    );
}

#[test]
fn absurd_requests_do_not_overflow() {
    let info = gpt_oss_20b();
    let request = ForecastRequest { context: u64::MAX, n_sequences: u32::MAX, ..request(64) };
    let found = forecast(&registry(engines(4.6)), &info, request);
    assert!(!found.fits());
    assert!(found.to_text().contains("it was trained for 131072 tokens only"), "{}", found.to_text());
    let nothing = ForecastRequest { context: 0, n_sequences: 0, bytes_per_second: None, ..request };
    assert!(forecast(&registry(engines(4.6)), &info, nothing).fits());
}
