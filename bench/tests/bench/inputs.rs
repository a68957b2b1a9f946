//! What is refused, and how it is said.

use std::path::PathBuf;
use std::sync::Arc;

use duet_bench::parity::{Difference, PROBES, first_difference};
use duet_bench::{BenchError, BenchOptions, Silent, Subject, Text, run, run_models};
use duet_core::model::ModelInfo;
use duet_core::registry::Registry;
use duet_core::testing::ByteTokenizer;
use duet_core::{BackendError, InferenceBackend, chain};

use crate::support::*;

async fn refusal_of(backends: Vec<TestBackend>, edit: impl FnOnce(&mut BenchOptions)) -> BenchError {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small_options();
    edit(&mut options);
    run_models(&registry(backends), &[model(dir.path())], &options, Arc::new(Silent)).await.unwrap_err()
}

fn two() -> Vec<TestBackend> {
    vec![backend("one"), backend("two")]
}

#[tokio::test]
async fn numbers_out_of_range_are_named() {
    type Edit = fn(&mut BenchOptions);
    let edits: [(&str, Edit); 9] = [
        ("n_prompt must be between 1 and 16777216, got 0", |options| options.n_prompt = 0),
        ("n_decode must be between 2 and 16777216, got 1", |options| options.n_decode = 1),
        ("n_blocks must be between 1 and 10000, got 0", |options| options.n_blocks = 0),
        ("n_blocks must be between 1 and 10000, got 10001", |options| options.n_blocks = 10_001),
        ("window must be between 2 and 1048576, got 1", |options| options.window = 1),
        ("prefill_chunk must be between 1 and 1048576, got 0", |options| options.prefill_chunk = 0),
        ("threads must be between 1 and 4096, got 0", |options| options.threads = Some(0)),
        ("n_agreement must be between 0 and 16777216, got 4294967295", |options| {
            options.n_agreement = u32::MAX
        }),
        ("wash_out must have a window", |options| options.wash_out.tolerance = f64::NAN),
    ];
    for (message, edit) in edits {
        let error = refusal_of(two(), edit).await.to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[tokio::test]
async fn too_few_engines() {
    let error = refusal_of(vec![backend("one")], |_| {}).await.to_string();
    assert!(error.contains("this build has 1 (one)"), "{error}");
    let error = refusal_of(vec![], |_| {}).await.to_string();
    assert!(error.contains("this build has 0 ()"), "{error}");
}

#[tokio::test]
async fn an_engine_that_is_unknown_or_refuses() {
    let error = refusal_of(two(), |options| options.engines = Some(["one".into(), "onnx".into()])).await;
    assert_eq!(
        chain(&error).matches("there is no engine `onnx`; known: one, two").count(),
        1,
        "{}",
        chain(&error)
    );
    let refusing = TestBackend { refuses: true, ..backend("two") };
    let error = refusal_of(vec![backend("one"), refusing], |_| {}).await;
    assert!(matches!(error, BenchError::Refused { arm: "B", .. }), "{error:?}");
    let text = chain(&error);
    assert!(text.starts_with("arm B: the two engine cannot take "), "{text}");
    assert!(text.ends_with("does not support architecture `martian` (llama is)"), "{text}");
}

#[tokio::test]
async fn a_text_or_a_context_that_is_too_short() {
    let short = Text::Inline { name: "short".into(), text: "x".repeat(20) };
    let error = refusal_of(two(), |options| options.text = short).await.to_string();
    assert_eq!(error, "the text has 20 tokens, and this work needs 63; give a longer one");
    let error = refusal_of(two(), |options| options.n_prompt = 5000).await.to_string();
    assert!(error.starts_with("5004 tokens per request are asked for"), "{error}");
    assert!(error.ends_with("has a context of 4096"), "{error}");
    let error = refusal_of(two(), |options| options.text = Text::File("/nowhere/text".into())).await;
    assert!(chain(&error).starts_with("cannot read /nowhere/text: "), "{error}");
}

#[tokio::test]
async fn a_text_that_is_not_utf8() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latin1");
    std::fs::write(&path, b"na\xefve").unwrap();
    let error = refusal_of(two(), |options| options.text = Text::File(path)).await;
    assert!(matches!(error, BenchError::File { .. }), "{error:?}");
}

#[tokio::test]
async fn paths_that_are_no_models() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.gguf");
    std::fs::write(&garbage, b"GGUF\xff\xff\xff\xff").unwrap();
    for path in [dir.path().join("missing.gguf"), garbage, dir.path().to_owned(), PathBuf::new()] {
        let options = BenchOptions { subject: Subject::One(path.clone()), ..small_options() };
        let error = run(&registry(two()), &options, Arc::new(Silent)).await.unwrap_err();
        assert!(matches!(error, BenchError::Model { .. }), "{path:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_weight_file_that_vanished() {
    let dir = tempfile::tempdir().unwrap();
    let gone = Arc::new(ModelInfo { files: vec![dir.path().join("gone")], ..(*model(dir.path())).clone() });
    let error = run_models(&registry(two()), &[gone], &small_options(), Arc::new(Silent)).await.unwrap_err();
    assert!(matches!(error, BenchError::File { .. }), "{error:?}");
}

/// A pair whose second model has this tokenizer.
async fn refusal_of_pair(odd: fn() -> OddTokenizer) -> BenchError {
    let dir = tempfile::tempdir().unwrap();
    let first = model(dir.path());
    let second = Arc::new(ModelInfo { path: dir.path().join("odd"), files: Vec::new(), ..(*first).clone() });
    let backends: Vec<Arc<dyn InferenceBackend>> = vec![Arc::new(backend("gguf")), Arc::new(backend("mlx"))];
    let text = Arc::new(move |info: &ModelInfo| {
        Ok::<_, BackendError>(if info.path.ends_with("odd") {
            assets(odd())
        } else {
            assets(ByteTokenizer::default())
        })
    });
    let registry = Registry::new(backends, text);
    run_models(&registry, &[first, second], &small_options(), Arc::new(Silent)).await.unwrap_err()
}

#[tokio::test]
async fn a_pair_with_two_tokenizers_is_refused_with_the_first_difference() {
    type Odd = fn() -> OddTokenizer;
    let cases: [(Odd, &str); 5] = [
        (
            || OddTokenizer { vocab_size: Some(300), ..Default::default() },
            "the vocabularies have 260 and 300 ids",
        ),
        (
            || OddTokenizer { bytes_of: Some((10, b"\r\n")), control: Some(9), ..Default::default() },
            "token 9 is text and a control token",
        ),
        (
            || OddTokenizer { bytes_of: Some((10, b"\r\n")), ..Default::default() },
            "token 10 is \"\\n\" and \"\\r\\n\"",
        ),
        (
            || OddTokenizer { bos: Some(1), ..Default::default() },
            "beginning of sequence: Some(256) and Some(1)",
        ),
        (|| OddTokenizer { merges: Some("  "), ..Default::default() }, "differ from number 2 on"),
    ];
    for (odd, message) in cases {
        let error = refusal_of_pair(odd).await;
        assert!(matches!(error, BenchError::TokenizersDiffer { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("fake.gguf and ") && text.contains("different work"), "{text}");
        assert!(text.contains(message), "{text}");
    }
    let error = refusal_of_pair(|| OddTokenizer { fails_on: Some("Москва"), ..Default::default() }).await;
    assert!(chain(&error).ends_with("cannot encode the text: the planned failure"), "{}", chain(&error));
}

#[test]
fn a_difference_in_the_work_itself_is_found_with_its_place() {
    let (plain, odd) = (ByteTokenizer::default(), OddTokenizer { merges: Some("zz"), ..Default::default() });
    assert!(PROBES.iter().all(|probe| !probe.contains("zz")));
    assert_eq!(first_difference(&plain, &odd, "no such letters").unwrap(), None);
    let found = first_difference(&plain, &odd, "the buzzing of bees").unwrap().unwrap();
    let Difference::Encoding { text, index, a, b } = &found else { panic!("{found:?}") };
    assert_eq!((text.as_str(), *index), ("zing of bees", 8));
    assert_eq!((a[0], b[0]), (u32::from(b'z'), u32::from(b'i')));
    assert_eq!((a.len(), b.len()), (8, 8));
}

#[tokio::test]
async fn a_pair_with_one_tokenizer_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let first = model(dir.path());
    let second =
        Arc::new(ModelInfo { path: dir.path().join("other"), files: Vec::new(), ..(*first).clone() });
    let mut options = small_options();
    options.engines = Some(["one".into(), "two".into()]);
    let report = run_models(&registry(two()), &[first, second], &options, Arc::new(Silent)).await.unwrap();
    assert!(report.is_complete());
    assert_eq!((report.arms[0].model.files.len(), report.arms[1].model.files.len()), (1, 0));
}
