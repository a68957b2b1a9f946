//! The shape of the JSON and of the table, with everything blacked out that a clock or a machine decides.

use std::sync::Arc;

use duet_bench::report::Report;
use duet_bench::{Silent, run_models};
use serde_json::Value;

use crate::support::*;

async fn report() -> Report {
    let dir = tempfile::tempdir().unwrap();
    let (other, mut options) = (TestBackend { kv_type: "f32", ..backend("two") }, small_options());
    options.n_blocks = 1;
    run_models(&registry(vec![backend("one"), other]), &[model(dir.path())], &options, Arc::new(Silent))
        .await
        .unwrap()
}

/// What a clock, a machine, a folder or the fake's arithmetic decides; besides all times, which end in `_ns`.
const REDACTED: [&str; 21] = [
    "median",
    "low",
    "high",
    "ratio",
    "findings",
    "verdict",
    "n_void",
    "path",
    "started",
    "duet_version",
    "steady",
    "degrees",
    "process_load",
    "process_warm",
    "ledger",
    "machine",
    "ids",
    "first_top",
    "perplexity_a",
    "perplexity_b",
    "kl_nats",
];

/// Blacks out what is not the same everywhere.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    field if name.ends_with("_ns") || REDACTED.contains(&name.as_str()) => {
                        *field = "[redacted]".into()
                    }
                    field => redact(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

#[tokio::test]
async fn the_json_keeps_its_shape() {
    let report = report().await;
    let text = report.to_json().unwrap();
    assert!(serde_json::from_str::<Report>(&text).unwrap() == report, "what was written can be read\n{text}");
    let mut value: Value = serde_json::from_str(&text).unwrap();
    redact(&mut value);
    insta::assert_json_snapshot!("json", value);
}

#[tokio::test]
async fn the_table_fits_a_hundred_columns() {
    let text = report().await.to_text();
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 100, "{widest}\n{text}");
    for part in [
        "one: fake.gguf Q4_1 on fake 1, CPU, weights as stored, KV f16",
        "20 prompt tokens, then 4 at depth 20 to 24",
        "prefill, tok/s",
        "decode_forced, tok/s",
        "ttft, s",
        "one ÷ two [95 %]",
        "verdict, grade",
        "2 + 0 + -",
        "weights+KV+rest, MB",
        "decode_forced (decoding, equal steps): ",
        "agreement: top-1 100.0 % [97.1, 100.0] of 128 positions",
        "no proof of identical weights",
        "grade C of these ratios: equal nominal bits (Q4_1 and Q4_1), values not proven equal",
        "differs: KV cache: f16 against f32",
        "note: one: a slow path",
        "decode_native: engine level",
        "windows of 64 tokens of counting",
    ] {
        assert!(text.contains(part), "`{part}` is missing\n{text}");
    }
}
