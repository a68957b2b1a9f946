//! Choosing context, sequences and cache.

use super::*;
use crate::model::memory::{Fit, FitRequest, KvAllocation, KvType, MemoryError, MemoryPlan, fit};

const GIB: u64 = 1 << 30;

/// Llama-3.1-8B in Q4_0 by its sizes: 128 KiB of cache per token.
fn llama_8b() -> ModelInfo {
    let mut info = info_with(vec![layer(8, 128, None); 32], 131_072);
    info.weight_bytes = 4_500_000_000;
    (info.hidden_size, info.intermediate_size, info.vocab_size) = (4096, 14_336, 128_256);
    info
}

/// GPT-OSS-20B: 11.26 GiB and windows.
fn gpt_oss() -> ModelInfo {
    let layers = [layer(8, 64, Some(128)), layer(8, 64, None)].repeat(12);
    let mut info = info_with(layers, 131_072);
    info.weight_bytes = 12_087_000_000;
    (info.hidden_size, info.intermediate_size, info.vocab_size) = (2880, 2880, 201_088);
    info
}

fn ask(context: Option<u32>, parallel: Option<u32>, kv_tokens: Option<u32>) -> FitRequest {
    FitRequest { context, parallel, kv_tokens, ..FitRequest::default() }
}

/// What every answer has to keep to.
#[track_caller]
fn holds(info: &ModelInfo, available: u64, request: FitRequest) -> Fit {
    let fit = fit(info, available, request).expect("it fits");
    assert!(fit.plan.total <= available, "{}", fit.reason);
    assert!(fit.context >= 1 && fit.kv_tokens >= fit.context && fit.parallel >= 1);
    assert!(fit.context <= info.context_length);
    assert_eq!(request.context.unwrap_or(fit.context), fit.context);
    assert_eq!(request.parallel.unwrap_or(fit.parallel), fit.parallel);
    assert_eq!(request.kv_tokens.unwrap_or(fit.kv_tokens), fit.kv_tokens);
    let kv = request.allocation.bytes(info, fit.kv_tokens.into(), fit.parallel, request.kv_type);
    assert_eq!(kv, Ok(fit.plan.kv_bytes));
    let plan = fit.plan;
    assert_eq!(plan, MemoryPlan::new(plan.weights_bytes, plan.kv_bytes, plan.compute_bytes));
    fit
}

#[track_caller]
fn refused(info: &ModelInfo, available: u64, request: FitRequest) -> String {
    match fit(info, available, request) {
        Err(MemoryError::Insufficient { need_bytes, available_bytes, arithmetic }) => {
            assert!(need_bytes > available_bytes && available_bytes == available);
            assert!(!arithmetic.contains('\n'));
            arithmetic
        }
        other => panic!("not refused for memory: {other:?}"),
    }
}

#[test]
fn plenty_of_memory() {
    let all = holds(&llama_8b(), 100 * GIB, FitRequest::default());
    assert_eq!((all.context, all.parallel, all.kv_tokens), (131_072, 4, 131_072));
    assert!(
        all.reason.starts_with("context 131072, as trained; 4 sequences; 131072 tokens"),
        "{}",
        all.reason
    );
    let mut small = info_with(vec![layer(3, 64, None); 30], 8192);
    small.weight_bytes = 96_576_768;
    let all = holds(&small, 100 * GIB, FitRequest::default());
    assert_eq!((all.context, all.parallel, all.kv_tokens), (8192, 4, 32_768));
}

#[test]
fn defaults_shrink() {
    let tight = holds(&llama_8b(), 8 * GIB, FitRequest::default());
    assert!(tight.context < 131_072 && tight.context > 16_384, "{}", tight.reason);
    assert_eq!((tight.kv_tokens, tight.kv_tokens % 256), (tight.context, 0));
    assert!(tight.reason.contains("of the trained 131072, which does not fit"), "{}", tight.reason);
    // A quarter of what the weights leave stays free, and not much more.
    let left = 8 * GIB - tight.plan.weights_bytes - tight.plan.compute_bytes;
    assert!(tight.plan.kv_bytes <= left / 4 * 3);
    assert!(tight.plan.kv_bytes + 256 * 131_072 > left / 4 * 3 - (1 << 20));
    let mut previous = 0;
    for gib in 5..40 {
        let kv_tokens = holds(&llama_8b(), gib * GIB, FitRequest::default()).kv_tokens;
        assert!(kv_tokens >= previous, "more memory, smaller cache");
        previous = kv_tokens;
    }
}

#[test]
fn what_is_asked_is_kept() {
    let info = llama_8b();
    for request in [
        ask(Some(1000), None, None),
        ask(Some(4096), Some(7), None),
        ask(Some(4096), Some(2), Some(10_000)),
        ask(None, Some(1), None),
        ask(None, None, Some(300)),
        ask(None, Some(16), Some(20_000)),
        ask(Some(1), Some(1), Some(1)),
    ] {
        for allocation in [
            KvAllocation::Resident,
            KvAllocation::LlamaCpp { n_ubatch: 512, unified: true, swa_full: false },
            KvAllocation::Mlx,
        ] {
            for kv_type in [KvType::F16, KvType::Q8_0, KvType::F32] {
                holds(&info, 32 * GIB, FitRequest { allocation, kv_type, ..request });
            }
        }
    }
}

#[test]
fn equal_shares_carry_the_longest_request_each() {
    let allocation = KvAllocation::LlamaCpp { n_ubatch: 512, unified: false, swa_full: false };
    let split = |request| FitRequest { allocation, ..request };
    let asked = holds(&llama_8b(), 32 * GIB, split(ask(Some(2048), Some(4), None)));
    assert!(asked.kv_tokens >= 4 * 2048);
    let defaults = holds(&llama_8b(), 8 * GIB, split(FitRequest::default()));
    assert!(defaults.context * defaults.parallel <= defaults.kv_tokens);
    let error = fit(&llama_8b(), 32 * GIB, split(ask(Some(2048), Some(4), Some(4096)))).expect_err("too few");
    assert!(error.to_string().contains("4 sequences share it equally"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_with_the_sum() {
    let line = refused(&gpt_oss(), 8 * GIB, ask(Some(131_072), Some(1), None));
    for part in [
        "weights 11.3 GiB + KV 3.0 GiB in f16 at 131072 tokens",
        "12 full layers x 2048 B x 131072 + 12 windowed layers x 2048 B x 128",
        "; 8.0 GiB free; the weights alone do not fit",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert!(line.starts_with("needs 14.") || line.starts_with("needs 15."), "{line}");
    let line = refused(&llama_8b(), 8 * GIB, ask(Some(65_536), None, None));
    assert!(line.contains("32 full layers x 4096 B x 65536") && line.ends_with("tokens would fit"), "{line}");
    // The number it names does fit, and 256 more do not.
    let tokens: u32 =
        line.rsplit("; ").next().and_then(|end| end.split(' ').next()?.parse().ok()).expect("a number");
    holds(&llama_8b(), 8 * GIB, ask(Some(tokens), Some(1), Some(tokens)));
    refused(&llama_8b(), 8 * GIB, ask(Some(tokens + 256), Some(1), Some(tokens + 256)));
    assert!(refused(&llama_8b(), 0, FitRequest::default()).contains("the weights alone do not fit"));
    let line = refused(&llama_8b(), 8 * GIB, ask(Some(4096), Some(8), Some(65_536)));
    assert!(line.contains("shared by 8 sequences"), "{line}");
}

#[test]
fn weights_may_be_unpacked() {
    let dense = FitRequest { weights_bytes: Some(32 * GIB), ..ask(Some(2048), None, None) };
    refused(&llama_8b(), 32 * GIB, dense);
    assert_eq!(holds(&llama_8b(), 40 * GIB, dense).plan.weights_bytes, 32 * GIB);
}

#[test]
fn fewer_sequences_where_windows_cost_too_much() {
    // Each sequence brings a window of its own: 2 GiB per sequence.
    let mut info = info_with(vec![layer(8, 128, Some(16_384)); 32], 131_072);
    info.weight_bytes = GIB;
    let allocation = KvAllocation::LlamaCpp { n_ubatch: 512, unified: true, swa_full: false };
    let request = FitRequest { allocation, ..ask(Some(131_072), None, None) };
    let chosen = holds(&info, 6 * GIB, request);
    assert!(chosen.parallel < 4, "{}", chosen.reason);
    refused(&info, 6 * GIB, FitRequest { parallel: Some(4), ..request });
}

#[test]
fn requests_that_contradict_themselves() {
    let check = |request, param: &str, why: &str| {
        let error = fit(&llama_8b(), 100 * GIB, request).expect_err(why);
        assert!(matches!(error, MemoryError::InvalidRequest { .. }), "{error}");
        assert!(error.to_string().starts_with(param) && error.to_string().contains(why), "{error}");
    };
    check(ask(Some(0), None, None), "context = 0", "at least 1");
    check(ask(None, Some(0), None), "parallel = 0", "at least 1");
    check(ask(None, None, Some(0)), "kv_tokens = 0", "at least 1");
    check(ask(Some(131_073), None, None), "context = 131073", "trained for 131072");
    check(ask(Some(4096), None, Some(4095)), "kv_tokens = 4095", "4096 tokens");
}

#[test]
fn models_without_a_rule_are_not_guessed() {
    let mut info = llama_8b();
    info.layers[5].kind = LayerKind::Latent;
    assert_eq!(
        fit(&info, 100 * GIB, FitRequest::default()),
        Err(MemoryError::UnknownCache { layer: 5, kind: LayerKind::Latent })
    );
}

#[test]
fn absurd_models_are_answered() {
    let mut info = info_with(vec![layer(u32::MAX, u32::MAX, None); 3], u32::MAX);
    info.weight_bytes = u64::MAX;
    (info.vocab_size, info.hidden_size, info.intermediate_size) = (u32::MAX, u32::MAX, u32::MAX);
    (info.n_heads, info.head_dim_k, info.head_dim_v) = (u32::MAX, u32::MAX, u32::MAX);
    refused(&info, 1 << 40, FitRequest::default());
    refused(&info, 1 << 40, ask(Some(u32::MAX), Some(u32::MAX), Some(u32::MAX)));
    info.context_length = 0;
    refused(&info, 1 << 40, FitRequest::default());
    let mut short = info_with(vec![layer(1, 64, None)], 100);
    short.weight_bytes = 1;
    assert_eq!(holds(&short, GIB, FitRequest::default()).context, 100);
}
