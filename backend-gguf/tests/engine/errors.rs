//! Loads that fail, and loads that are given up: a typed error with one clear line, never an abort.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use duet_backend_gguf::{GgufBackend, GgufSettings, load_tokenizer};
use duet_core::model::{KvType, inspect};
use duet_core::{BackendError, InferenceBackend, LoadSpec, ModelRunner, SeqId, Want};

use crate::common::{self, fixture, ids, row, spec, step};

fn one_line(error: &BackendError) -> String {
    let text = error.chain();
    assert!(!text.contains('\n') && text.len() < 400, "one clear line: {text}");
    text
}

/// A copy of a fixture, cut or patched.
fn altered(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> std::path::PathBuf {
    let mut bytes = std::fs::read(fixture(name)).expect("a fixture");
    change(&mut bytes);
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("a temporary file");
    path
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is there");
    bytes[at..at + to.len()].copy_from_slice(to);
}

#[tokio::test]
async fn a_file_cut_after_it_was_probed_is_typed() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = altered(dir.path(), "tiny-llama.gguf", |_| ());
    let model = Arc::new(inspect(&path).expect("whole"));
    let spec = LoadSpec::new(model, load_tokenizer(&path).expect("whole"));
    let whole = std::fs::read(&path).expect("whole");
    for keep in [whole.len() - 1, whole.len() / 2, 1000, 20, 0] {
        std::fs::write(&path, &whole[..keep]).expect("cut");
        let error = common::load_with(GgufSettings::default(), spec.clone()).await.err().expect("cut short");
        assert!(matches!(error, BackendError::ModelFile(_)), "{keep}: {error:?}");
        assert!(one_line(&error).contains("tiny-llama.gguf"), "{error}");
    }
    std::fs::remove_file(&path).expect("removed");
    let error = common::load_with(GgufSettings::default(), spec).await.err().expect("gone");
    assert!(matches!(error, BackendError::ModelFile(_)), "{error:?}");
}

#[tokio::test]
async fn an_unknown_architecture_is_refused_by_the_probe() {
    let backend = GgufBackend::default();
    let good = inspect(&fixture("tiny-llama.gguf")).expect("a fixture");
    let probe = backend.probe(&good).expect("llama runs");
    assert!(probe.bits_per_weight > 0.0 && probe.weights.contains("F32"), "{probe:?}");
    for architecture in ["llama5", "", "no\0pe", "LLAMA", "ünïcode"] {
        let mut model = good.clone();
        model.architecture = architecture.into();
        let error = backend.probe(&model).expect_err("unknown");
        assert!(matches!(error, BackendError::UnsupportedArchitecture { .. }), "{architecture}: {error:?}");
        one_line(&error);
    }
    for architecture in
        ["llama", "qwen2", "qwen3", "gemma3", "gpt-oss", "phi3", "mistral3", "deepseek2", "mamba"]
    {
        let mut model = good.clone();
        model.architecture = architecture.into();
        backend.probe(&model).unwrap_or_else(|error| panic!("{architecture}: {error}"));
    }
    let mlx = inspect(&fixture("tiny-llama")).expect("a fixture");
    assert!(matches!(backend.probe(&mlx), Err(BackendError::UnsupportedArchitecture { .. })));
}

#[tokio::test]
async fn what_llama_cpp_refuses_comes_with_its_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = altered(dir.path(), "tiny-llama.gguf", |bytes| {
        replace(bytes, b"blk.0.attn_q.weight", b"blk.0.attn_x.weight");
    });
    let spec = LoadSpec::new(
        Arc::new(inspect(&path).expect("good headers")),
        load_tokenizer(&path).expect("vocabulary"),
    );
    let error = common::load_with(GgufSettings::default(), spec).await.err().expect("a tensor is missing");
    assert!(matches!(error, BackendError::LoadFailed { .. }), "{error:?}");
    assert!(one_line(&error).contains("blk.0.attn_q.weight"), "{}", error.chain());
}

#[tokio::test]
async fn a_path_that_is_no_vocabulary_is_typed() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, content) in
        [("empty.gguf", &b""[..]), ("text.gguf", b"hello"), ("magic.gguf", b"GGUF\x03\0\0\0")]
    {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("a file");
        let error = load_tokenizer(&path).expect_err("no model");
        assert!(matches!(error, BackendError::LoadFailed { .. }), "{error:?}");
        one_line(&error);
    }
    let error = load_tokenizer(&dir.path().join("missing.gguf")).expect_err("not there");
    one_line(&error);
}

#[tokio::test]
async fn settings_that_would_abort_are_typed() {
    let refused = |settings: GgufSettings, change: fn(&mut LoadSpec)| async move {
        let mut spec = spec("tiny-llama.gguf");
        change(&mut spec);
        let error = common::load_with(settings, spec).await.err().expect("refused");
        assert!(matches!(error, BackendError::LoadFailed { .. }), "{error:?}");
        one_line(&error)
    };
    let defaults = GgufSettings::default;
    assert!(refused(defaults(), |spec| spec.parallel = 300).await.contains("256"));
    refused(defaults(), |spec| spec.kv_tokens = u32::MAX).await;
    refused(defaults(), |spec| spec.kv_type = Some(KvType::Affine { bits: 4, group_size: 64 })).await;
    let no_flash = GgufSettings { flash_attention: Some(false), ..defaults() };
    assert!(refused(no_flash, |spec| spec.kv_type = Some(KvType::Q8_0)).await.contains("flash attention"));
    refused(GgufSettings { micro_batch: 0, ..defaults() }, |_| ()).await;
}

#[tokio::test]
async fn more_sequences_than_batch_rows_widen_the_batch() {
    let mut spec = spec("tiny-llama.gguf");
    (spec.parallel, spec.context_length, spec.kv_tokens) = (8, 32, 512);
    let settings = GgufSettings { batch: 2, micro_batch: 2, outputs: 1, ..GgufSettings::default() };
    common::with_runner(settings, spec, |runner| {
        let tokens = ids(1, 1);
        let rows: Vec<_> = (0..8).map(|seq| row(seq, 0, &tokens, Want::LastLogits)).collect();
        assert_eq!(step(runner, &rows).expect("one token each").len(), 8 * runner.n_vocab());
    })
    .await;
}

#[tokio::test]
async fn a_load_is_cancelled_by_its_progress_sink() {
    for after in [0, 1, 3] {
        let n = AtomicUsize::new(0);
        let backend = GgufBackend::default();
        let progress = Arc::new(move |_| n.fetch_add(1, Ordering::Relaxed) < after);
        let error = backend.load(spec("tiny-llama.gguf"), progress).await.err().expect("cancelled");
        assert!(matches!(error, BackendError::LoadCancelled), "{after}: {error:?}");
    }
}

/// Tells when it is dropped, with whatever owns it.
struct Farewell(Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.0.take().expect("dropped once").send(());
    }
}

#[tokio::test]
async fn dropping_the_load_future_stops_llama_cpp() {
    let backend = GgufBackend::default();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (gone, over) = tokio::sync::oneshot::channel();
    let farewell = Farewell(Some(gone));
    let signals = std::sync::Mutex::new(Some((entered, held)));
    let n_later = Arc::new(AtomicUsize::new(0));
    let counter = n_later.clone();
    let progress = Arc::new(move |fraction: f32| {
        let _alive = &farewell;
        if fraction > 0.0 {
            match signals.lock().expect("one thread").take() {
                // The first tensor is in: hold the load here until its future is gone.
                Some((entered, held)) => {
                    let _ = entered.send(());
                    let _ = held.recv();
                }
                None => drop(counter.fetch_add(1, Ordering::Relaxed)),
            }
        }
        true
    });
    tokio::select! {
        _ = backend.load(spec("tiny-llama.gguf"), progress) => panic!("held back"),
        entered = inside => entered.expect("the load began"),
    }
    release.send(()).expect("the load waits");
    over.await.expect("the engine's thread lets go of the sink when the load is over");
    assert_eq!(n_later.load(Ordering::Relaxed), 0, "no tensor was read after the future was dropped");
}

#[tokio::test]
async fn progress_rises_to_one() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = seen.clone();
    let progress = Arc::new(move |fraction: f32| {
        sink.lock().expect("one thread").push(fraction);
        true
    });
    let model = GgufBackend::default().load(spec("tiny-llama.gguf"), progress).await.expect("loads");
    model.unload().await;
    let seen = seen.lock().expect("one thread");
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "{seen:?}");
    assert!(seen.len() > 3 && seen.last() == Some(&1.0), "{seen:?}");
}

#[tokio::test]
async fn the_model_outlives_whoever_loaded_it() {
    // Handles dropped in every order, with a step behind them: a context freed after its model would crash here.
    for _ in 0..3 {
        let spec = spec("tiny-llama.gguf");
        let model = common::load_with(GgufSettings::default(), spec).await.expect("loads");
        let tokenizer = model.tokenizer().clone();
        common::on_runner(model.as_ref(), |runner: &mut dyn ModelRunner| {
            step(runner, &[row(0, 0, &ids(1, 8), Want::LastLogits)]).expect("a step");
            runner.release(SeqId(0));
        })
        .await;
        drop(model);
        assert!(!tokenizer.encode("still here", Default::default()).expect("encodes").is_empty());
    }
}

#[test]
fn the_engine_says_who_it_is() {
    let info = GgufBackend::default().info();
    assert_eq!((info.id, info.library), ("gguf", "llama.cpp"));
    assert!(info.version.contains("llama-cpp-2 0.1.160"), "{}", info.version);
    assert!(info.devices.iter().any(|device| device.name == "CPU"), "{:?}", info.devices);
    assert!(info.features.iter().any(|feature| feature.starts_with("CPU: ")), "{:?}", info.features);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        assert!(
            info.features.iter().any(|feature| feature == "CPU: AVX512"),
            "an AVX2 build: {:?}",
            info.features
        );
    }
}
