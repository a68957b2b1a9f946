//! KV cache sizes of published models, worked out by hand; bytes are exact, GiB to three digits.

use super::*;
use crate::model::memory::{KvAllocation, KvType, kv_bytes, kv_bytes_per_token};

/// A model's row of the table.
struct Row {
    name: &'static str,
    n_full: usize,
    n_windowed: usize,
    n_kv: u32,
    head_dim: u32,
    window: u32,
    native: u32,
    /// KiB per token: full layers only, all layers.
    kib_per_token: (f64, f64),
    /// GiB at 8, 32 and 128 Ki tokens, f16.
    gib: [f64; 3],
    /// GiB at 128 Ki: allocated by llama.cpp with micro-batches of 512, then with `swa_full`, and resident in q8_0.
    allocated: f64,
    swa_full: f64,
    q8_0: f64,
    bytes: u64,
}

#[rustfmt::skip]
const TABLE: [Row; 9] = [
    Row { name: "GPT-OSS-20B", n_full: 12, n_windowed: 12, n_kv: 8, head_dim: 64, window: 128, native: 131_072, kib_per_token: (24.0, 48.0), gib: [0.190, 0.753, 3.003], allocated: 3.018, swa_full: 6.0, q8_0: 1.595, bytes: 3_224_371_200 },
    Row { name: "GPT-OSS-120B", n_full: 18, n_windowed: 18, n_kv: 8, head_dim: 64, window: 128, native: 131_072, kib_per_token: (36.0, 72.0), gib: [0.286, 1.129, 4.504], allocated: 4.526, swa_full: 9.0, q8_0: 2.393, bytes: 4_836_556_800 },
    Row { name: "Llama-3.1-8B", n_full: 32, n_windowed: 0, n_kv: 8, head_dim: 128, window: 0, native: 131_072, kib_per_token: (128.0, 128.0), gib: [1.0, 4.0, 16.0], allocated: 16.0, swa_full: 16.0, q8_0: 8.5, bytes: 17_179_869_184 },
    Row { name: "Qwen3-8B", n_full: 36, n_windowed: 0, n_kv: 8, head_dim: 128, window: 0, native: 40_960, kib_per_token: (144.0, 144.0), gib: [1.125, 4.5, 18.0], allocated: 18.0, swa_full: 18.0, q8_0: 9.562, bytes: 19_327_352_832 },
    Row { name: "Gemma-3-1B", n_full: 4, n_windowed: 22, n_kv: 1, head_dim: 256, window: 512, native: 32_768, kib_per_token: (4.0, 26.0), gib: [0.042, 0.136, 0.511], allocated: 0.521, swa_full: 3.25, q8_0: 0.271, bytes: 548_405_248 },
    Row { name: "Gemma-3-4B", n_full: 5, n_windowed: 29, n_kv: 4, head_dim: 256, window: 1024, native: 131_072, kib_per_token: (20.0, 136.0), gib: [0.270, 0.738, 2.613], allocated: 2.670, swa_full: 17.0, q8_0: 1.388, bytes: 2_805_989_376 },
    Row { name: "Gemma-3-12B", n_full: 8, n_windowed: 40, n_kv: 8, head_dim: 256, window: 1024, native: 131_072, kib_per_token: (64.0, 384.0), gib: [0.812, 2.312, 8.312], allocated: 8.469, swa_full: 48.0, q8_0: 4.416, bytes: 8_925_478_912 },
    Row { name: "Gemma-3-27B", n_full: 10, n_windowed: 52, n_kv: 16, head_dim: 128, window: 1024, native: 131_072, kib_per_token: (80.0, 496.0), gib: [1.031, 2.906, 10.406], allocated: 10.609, swa_full: 62.0, q8_0: 5.528, bytes: 11_173_625_856 },
    Row { name: "SmolLM2-135M", n_full: 30, n_windowed: 0, n_kv: 3, head_dim: 64, window: 0, native: 8_192, kib_per_token: (22.5, 22.5), gib: [0.176, 0.703, 2.812], allocated: 2.812, swa_full: 2.812, q8_0: 1.494, bytes: 3_019_898_880 },
];

const TOKENS: u64 = 131_072;

impl Row {
    fn info(&self) -> ModelInfo {
        let full = std::iter::repeat_n(layer(self.n_kv, self.head_dim, None), self.n_full);
        let windowed =
            std::iter::repeat_n(layer(self.n_kv, self.head_dim, Some(self.window)), self.n_windowed);
        info_with(full.chain(windowed).collect(), self.native)
    }
}

#[track_caller]
fn check_gib(name: &str, bytes: u64, expected: f64) {
    let gib = bytes as f64 / (1u64 << 30) as f64;
    // The last digit is rounded, halves either way.
    assert!((gib - expected).abs() < 0.000_51, "{name}: {gib} GiB, not {expected}");
}

#[test]
fn resident_bytes() {
    for row in &TABLE {
        let info = row.info();
        assert_eq!(kv_bytes(&info, TOKENS, KvType::F16), Ok(row.bytes), "{}", row.name);
        for (tokens, gib) in [8_192, 32_768, TOKENS].into_iter().zip(row.gib) {
            check_gib(row.name, kv_bytes(&info, tokens, KvType::F16).expect("a plain cache"), gib);
        }
        check_gib(row.name, kv_bytes(&info, TOKENS, KvType::Q8_0).expect("a plain cache"), row.q8_0);
        let all = kv_bytes_per_token(&info, KvType::F16).expect("a plain cache");
        assert_eq!(all as f64 / 1024.0, row.kib_per_token.1, "{}", row.name);
        let far = |n| kv_bytes(&info, n, KvType::F16).expect("a plain cache");
        assert_eq!((far(TOKENS + 1) - far(TOKENS)) as f64 / 1024.0, row.kib_per_token.0, "{}", row.name);
    }
}

#[test]
fn what_llama_cpp_allocates() {
    for row in &TABLE {
        let info = row.info();
        for (swa_full, expected) in [(false, row.allocated), (true, row.swa_full)] {
            let allocation = KvAllocation::LlamaCpp { n_ubatch: 512, unified: true, swa_full };
            let bytes = allocation.bytes(&info, TOKENS, 1, KvType::F16).expect("a plain cache");
            check_gib(row.name, bytes, expected);
        }
    }
}

#[test]
fn llama_cpp_pads_and_divides() {
    let windowed = info_with(vec![layer(1, 64, Some(100))], 4096);
    let full = info_with(vec![layer(1, 64, None)], 4096);
    let cells = |info: &ModelInfo, n_ubatch, unified, swa_full, tokens, sequences| {
        let allocation = KvAllocation::LlamaCpp { n_ubatch, unified, swa_full };
        allocation.bytes(info, tokens, sequences, KvType::F16).expect("a plain cache") / (2 * 64 * 2)
    };
    assert_eq!(cells(&full, 512, true, false, 1000, 4), 1024);
    assert_eq!(cells(&full, 512, true, false, 1, 1), 256);
    // Each sequence gets its share of the padded total, rounded up again: 3 · pad(1024 / 3).
    assert_eq!(cells(&full, 512, false, false, 1000, 3), 3 * 512);
    assert_eq!(cells(&windowed, 512, true, false, 4096, 1), 768);
    assert_eq!(cells(&windowed, 512, true, false, 4096, 4), 1024);
    assert_eq!(cells(&windowed, 512, false, false, 4096, 4), 4 * 768);
    assert_eq!(cells(&windowed, 512, true, true, 4096, 4), 4096);
    // A window longer than the context is cut to it.
    assert_eq!(cells(&windowed, 64, true, false, 100, 1), 256);
}

#[test]
fn what_mlx_allocates() {
    let info = info_with(vec![layer(1, 64, None), layer(1, 64, Some(100))], 4096);
    let mlx = KvAllocation::Mlx;
    let cell = 2 * 64 * 2;
    assert_eq!(mlx.bytes(&info, 1000, 1, KvType::F16), Ok(cell * (1024 + 1024)));
    assert_eq!(mlx.bytes(&info, 10, 1, KvType::F16), Ok(cell * (256 + 256)));
    assert_eq!(mlx.bytes(&info, 1000, 2, KvType::F16), Ok(cell * (2 * 512 + 2 * 512)));
    // Quantised: 64 values in 4 bits and 4 bytes of scale and bias.
    let affine = KvType::Affine { bits: 4, group_size: 64 };
    assert_eq!(mlx.bytes(&info, 1000, 1, affine), Ok(2 * (32 + 4) * (1024 + 1024)));
    assert_eq!(mlx.bytes(&info, 1000, 1, KvType::F32), Ok(2 * cell * (1024 + 1024)));
}

#[test]
fn a_load_says_how_its_cache_lies() {
    let llama = |unified| KvAllocation::LlamaCpp { n_ubatch: 512, unified, swa_full: false };
    for (of_engine, asked, expected) in
        [(true, None, true), (false, None, false), (true, Some(false), false), (false, Some(true), true)]
    {
        assert_eq!(llama(of_engine).for_load(asked), llama(expected));
    }
    assert_eq!(KvAllocation::Mlx.for_load(Some(true)), KvAllocation::Mlx);
    assert_eq!(KvAllocation::Resident.for_load(Some(false)), KvAllocation::Resident);
}

#[test]
fn sequences_share_tokens_and_not_windows() {
    let info = info_with(vec![layer(1, 64, Some(100))], 4096);
    let cells = |tokens, sequences| {
        KvAllocation::Resident.bytes(&info, tokens, sequences, KvType::F16).expect("a plain cache")
            / (2 * 64 * 2)
    };
    assert_eq!([cells(50, 1), cells(4096, 1), cells(4096, 4), cells(300, 4)], [50, 100, 400, 300]);
}

#[test]
fn caches_without_a_rule_are_refused() {
    for kind in [LayerKind::Latent, LayerKind::Recurrent] {
        let odd = LayerInfo { kind, ..layer(1, 64, None) };
        let info = info_with(vec![layer(1, 64, None), odd], 4096);
        let error = kv_bytes(&info, 1, KvType::F16).expect_err("no rule");
        assert!(error.to_string().contains("layer 1"), "{error}");
        assert!(kv_bytes_per_token(&info, KvType::F16).is_err());
    }
    for kind in [LayerKind::SharedKv, LayerKind::Stateless] {
        let without = LayerInfo { kind, ..layer(1, 64, None) };
        let info = info_with(vec![layer(1, 64, None), without], 4096);
        assert_eq!(kv_bytes(&info, 10, KvType::F16), Ok(10 * 2 * 64 * 2));
    }
}

#[test]
fn keys_and_values_may_differ_in_size() {
    let odd = LayerInfo { head_dim_v: 32, ..layer(2, 64, None) };
    assert_eq!(kv_bytes(&info_with(vec![odd], 64), 3, KvType::F16), Ok(3 * 2 * (64 + 32) * 2));
    // 34 bytes per 32, keys and values by themselves.
    let short = LayerInfo { head_dim_v: 16, ..layer(1, 48, None) };
    assert_eq!(kv_bytes(&info_with(vec![short], 64), 1, KvType::Q8_0), Ok(2 * 34 + 34));
}

#[test]
fn absurd_sizes_saturate() {
    let huge = layer(u32::MAX, u32::MAX, None);
    assert_eq!(kv_bytes(&info_with(vec![huge; 3], 1), u64::MAX, KvType::F32), Ok(u64::MAX));
    let mlx = KvAllocation::Mlx;
    assert_eq!(mlx.bytes(&info_with(vec![huge], 1), u64::MAX, u32::MAX, KvType::F32), Ok(u64::MAX));
    let llama = KvAllocation::LlamaCpp { n_ubatch: u32::MAX, unified: false, swa_full: false };
    let windowed = layer(u32::MAX, u32::MAX, Some(u32::MAX));
    assert_eq!(llama.bytes(&info_with(vec![windowed], 1), u64::MAX, u32::MAX, KvType::F32), Ok(u64::MAX));
}
