//! Other benchmarks' results, in the forms in which they come.

use duet_bench::import::{ImportError, Imported, Source, import};

const LLAMA_BENCH: &str = r#"[
  {"build_commit": "8cf427ff", "build_number": 5163, "cpu_info": "Abacus 9", "gpu_info": "", "backends": "CPU",
   "model_filename": "m.gguf", "model_type": "llama 1B Q4_0", "type_k": "f16", "type_v": "f16", "flash_attn": false,
   "n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ns": 1066666666, "avg_ts": 485.3,
   "samples_ns": [1000000000, 1024000000, 1176000000], "samples_ts": [512.0, 500.0, 435.4]},
  {"build_commit": "8cf427ff", "build_number": 5163, "model_type": "llama 1B Q4_0", "flash_attn": "auto",
   "n_prompt": 0, "n_gen": 128, "n_depth": 4096, "avg_ts": 10.0, "samples_ns": [12800000000, 12800000000]},
  {"n_prompt": 512, "n_gen": 128, "samples_ns": [4000000000], "avg_ts": 160.0}
]"#;

const MLX_LM: &str = "Running warmup..
Timing with prompt_tokens=512, generation_tokens=32, batch_size=1.
Trial 1:  prompt_tps=1200.500, generation_tps=64.000, peak_memory=2.010
Trial 2:  prompt_tps=1210.500, generation_tps=32.000, peak_memory=2.020
Trial 3:  prompt_tps=1190.500, generation_tps=48.000, peak_memory=2.020
Averages: prompt_tps=1200.500, generation_tps=48.000, peak_memory=2.017
";

const GUIDELLM: &str = r#"{"metadata": {"version": 1}, "benchmarks": [{"requests": {
  "successful": [
    {"prompt_tokens": 256, "output_tokens": 101, "time_to_first_token_ms": 500.0, "inter_token_latency_ms": 20.0,
     "time_per_output_token_ms": 24.75, "info": {"timings": {"request_start": 1.0}}},
    {"prompt_tokens": 256, "output_tokens": 101, "time_to_first_token_ms": 700.0, "inter_token_latency_ms": 22.0,
     "time_per_output_token_ms": 28.7},
    {"prompt_tokens": 256, "output_tokens": 1, "time_to_first_token_ms": 600.0, "inter_token_latency_ms": 0.0,
     "time_per_output_token_ms": 600.0},
    {"prompt_tokens": 256, "output_tokens": null, "time_to_first_token_ms": null, "inter_token_latency_ms": null}],
  "incomplete": [{"anything": 1}], "errored": [{}, {}]}}]}"#;

#[track_caller]
fn good(text: &str, source: Source) -> Imported {
    let found = import(text).expect("it is well-formed");
    assert_eq!(found.source, source);
    found
}

#[test]
fn llama_bench() {
    let found = good(LLAMA_BENCH, Source::LlamaBench);
    let [prefill, decode, both] = found.figures.as_slice() else { panic!("{found:?}") };
    assert_eq!((prefill.figure, prefill.value, prefill.samples.len()), ("prefill_rate", 500.0, 3));
    assert_eq!(
        (prefill.n_prompt, prefill.n_decode, prefill.depth.as_str()),
        (Some(512), Some(0), "0 to 511")
    );
    assert_eq!((decode.figure, decode.value, decode.depth.as_str()), ("decode_rate", 10.0, "4096 to 4223"));
    // 640 tokens in 4 s by its own count; 128 were decoded.
    assert_eq!((both.figure, both.value, both.as_reported), ("effective_rate", 32.0, Some(160.0)));
    let text = found.to_text();
    for part in [
        "enters no verdict",
        "llama.cpp: 5163 (8cf427ff)",
        "flash attention",
        "false, auto",
        "random",
        "snapshot",
    ] {
        assert!(text.contains(part), "`{part}` is missing\n{text}");
    }
}

#[test]
fn llama_bench_line_by_line() {
    let value: Vec<serde_json::Value> = serde_json::from_str(LLAMA_BENCH).unwrap();
    let lines: Vec<String> = value.iter().map(ToString::to_string).collect();
    let (by_line, at_once) =
        (good(&lines.join("\n"), Source::LlamaBench), good(LLAMA_BENCH, Source::LlamaBench));
    assert_eq!(by_line, at_once);
    assert_eq!(good(&lines[0], Source::LlamaBench).figures.len(), 1);
}

#[test]
fn mlx_lm() {
    let found = good(MLX_LM, Source::MlxLm);
    let [prefill, decode] = found.figures.as_slice() else { panic!("{found:?}") };
    assert_eq!((prefill.figure, prefill.value), ("prefill_rate", 1200.5));
    // (N − 1)/N: 3.2 % at 32 tokens.
    assert_eq!((decode.samples.as_slice(), decode.value), (&[62.0, 31.0, 46.5][..], 46.5));
    assert_eq!(decode.as_reported, Some(48.0));
    assert_eq!(decode.depth, "512 to 544, with sampling");
    assert!(found.to_text().contains("corrected: times 31/32"), "{}", found.to_text());
}

#[test]
fn the_bias_of_mlx_lm_by_length() {
    for (n, bias) in [(32, 3.2), (128, 0.8), (512, 0.2)] {
        let text = MLX_LM.replace("generation_tokens=32", &format!("generation_tokens={n}"));
        let decode = &good(&text, Source::MlxLm).figures[1];
        let found = 100.0 * (48.0 / decode.value - 1.0);
        assert!((found - bias).abs() < 0.05, "{n}: {found}");
    }
    let one = MLX_LM.replace("generation_tokens=32", "generation_tokens=1");
    assert_eq!(good(&one, Source::MlxLm).figures.len(), 1, "one token has no rate");
    let batch = MLX_LM.replace("batch_size=1", "batch_size=4");
    assert_eq!(good(&batch, Source::MlxLm).figures[1].correction, None);
}

#[test]
fn guidellm() {
    let found = good(GUIDELLM, Source::Guidellm);
    let [first, gaps] = found.figures.as_slice() else { panic!("{found:?}") };
    assert_eq!((first.figure, first.value, first.samples.len()), ("ttft_http", 600.0, 3));
    assert_eq!((gaps.figure, gaps.value, gaps.samples.as_slice()), ("tpot", 21.0, &[20.0, 22.0][..]));
    // Its own figure holds the prefill: (500 + 100·20)/101 = 24.75.
    assert_eq!(gaps.as_reported, Some((24.75 + 28.7) / 2.0));
    assert_eq!((gaps.n_prompt, gaps.n_decode), (Some(256), None), "lengths differ");
    assert!(found.to_text().contains("3 requests that failed or were cut off"), "{}", found.to_text());
}

#[test]
fn what_is_none_of_these() {
    for text in ["", "   ", "hello", "{}", "{\"a\": 1}", "Trial 1: prompt_tps=1", "<html>", "\u{feff}{}"] {
        assert!(matches!(import(text), Err(ImportError::Unknown)), "{text:?}");
    }
}

#[test]
fn broken_results_are_typed_errors() {
    let cases = [
        ("[1]".to_owned(), "broken"),
        ("[{}]".to_owned(), "broken"),
        (LLAMA_BENCH[..300].to_owned(), "broken"),
        (LLAMA_BENCH.replace("[4000000000]", "[]"), "effective_rate: samples_ns is empty"),
        (LLAMA_BENCH.replace("[4000000000]", "[0]"), "effective_rate: samples_ns is empty or holds a 0"),
        (LLAMA_BENCH.replace("[4000000000]", "[-5]"), "broken"),
        (LLAMA_BENCH.replace("\"n_gen\": 0", "\"n_gen\": 1e99"), "broken"),
        (
            LLAMA_BENCH.replace("\"n_prompt\": 512, \"n_gen\": 0", "\"n_prompt\": 0, \"n_gen\": 0"),
            "a test of 0 tokens",
        ),
        ("[]".to_owned(), "holds no figure"),
        (MLX_LM.replace("Trial", "Try"), "holds no figure"),
        (MLX_LM.replace("generation_tps=32.000", "generation_tps=nan"), "not positive"),
        (MLX_LM.replace("generation_tps=32.000", "generation_tps=-1"), "not positive"),
        (MLX_LM.replace("generation_tps=32.000", "generation_tps=fast"), "generation_tps is `fast`"),
        (MLX_LM.replace("peak_memory=2.010", ""), "a trial without peak_memory"),
        (MLX_LM.replace("prompt_tokens=512", "prompt_tokens=many"), "prompt_tokens is `many`"),
        (MLX_LM.replace(", batch_size=1", ", batch_size="), "batch_size is ``"),
        (GUIDELLM.replace("\"successful\"", "\"successes\""), "holds no figure"),
        (GUIDELLM.replace("500.0", "-500.0"), "ttft_http: a time that is not positive"),
        (GUIDELLM.replace("20.0", "\"x\""), "broken"),
        ("{\"benchmarks\": 3}".to_owned(), "broken"),
        ("{\"benchmarks\": []}".to_owned(), "holds no figure"),
        (format!("{}1", "[".repeat(100_000)), "broken"),
    ];
    for (text, message) in cases {
        let error = import(&text).expect_err("it is broken").to_string();
        assert!(error.contains(message), "{error}, not {message}");
    }
}
