//! Prompts of files and built-in sets through a whole run.

use std::sync::Arc;

use duet_bench::prompts::names;
use duet_bench::{BenchError, BenchOptions, Silent, Text, run_models};

use crate::support::*;

async fn run(text: Text) -> Result<duet_bench::Report, BenchError> {
    let dir = tempfile::tempdir().unwrap();
    let options = BenchOptions { text, ..small_options() };
    let engines = registry(vec![backend("one"), backend("two")]);
    run_models(&engines, &[model(dir.path())], &options, Arc::new(Silent)).await
}

#[tokio::test]
async fn every_set_is_enough_for_a_run_without_a_repetition() {
    for name in names() {
        let report = run(Text::Set(name.into())).await.unwrap();
        assert!(report.plan.text.contains(name) && report.plan.n_text_tokens > 20_000, "{:?}", report.plan);
        assert!(report.findings.iter().all(|finding| finding.code.name() != "IDS"), "{:?}", report.findings);
    }
    let error = run(Text::Set("poetry".into())).await.unwrap_err();
    assert_eq!(error.to_string(), "prompts has no set `poetry`; there are chat, rag, code, agent");
}

#[tokio::test]
async fn a_user_s_ids_are_taken_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ids.jsonl");
    let write = |n: u32, last: u32| {
        let ids: Vec<u32> = (0..n).map(|i| (i * i + i / 7) % 251).chain([last]).collect();
        std::fs::write(&path, format!("{}\n", serde_json::json!({ "ids": ids }))).unwrap();
    };
    write(900, 7);
    let report = run(Text::Prompts(path.clone())).await.unwrap();
    assert_eq!(report.plan.n_text_tokens, 901);
    write(900, 999_999);
    let error = run(Text::Prompts(path.clone())).await.unwrap_err();
    assert!(error.to_string().contains("have the id 999999, and the vocabulary ends at"), "{error}");
    write(9, 1);
    let error = run(Text::Prompts(path.clone())).await.unwrap_err();
    assert!(matches!(error, BenchError::TextTooShort { .. }), "ids are not repeated: {error}");
    std::fs::write(&path, "{\"prompt\": \"a\"}\n{\"prompt\"").unwrap();
    let error = run(Text::Prompts(path.clone())).await.unwrap_err();
    assert!(error.to_string().contains("ids.jsonl, line 2: "), "{error}");
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(matches!(run(Text::Prompts(path)).await, Err(BenchError::File { .. })), "no UTF-8");
}
