//! Memory over loads and requests, of the process: alone in a program of its own, because it counts all of it.

#![cfg(all(feature = "mlx", target_os = "linux"))]

use std::path::Path;
use std::sync::Arc;

use duet_backend_mlx::MlxBackend;
use duet_core::model::inspect;
use duet_core::testing::conformance::fold;
use duet_core::testing::{ByteTokenizer, MlxWriter};
use duet_core::{BackendError, GenerateRequest, InferenceBackend, LoadProgress, LoadSpec, LoadedModel};

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

const MIB: u64 = 1 << 20;

async fn load(path: &Path, progress: LoadProgress) -> Result<Arc<dyn LoadedModel>, BackendError> {
    let model = Arc::new(inspect(path).expect("a model"));
    let mut spec = LoadSpec::new(model, Arc::new(ByteTokenizer::default()));
    spec.context_length = 512;
    spec.kv_tokens = 1024;
    spec.parallel = 2;
    MlxBackend::new().expect("MLX starts").load(spec, progress).await
}

/// About 64 MiB of bf16 weights, twice as much in f32.
fn large(folder: &Path) {
    let mut writer = MlxWriter::tiny("llama");
    for (name, _, shape) in &mut writer.shards[0].1 {
        if name.starts_with("model.embed_tokens") || name.starts_with("lm_head") {
            shape[0] = 262_144;
        }
    }
    writer.set("vocab_size", 262_144);
    writer.write(folder).expect("written");
}

#[tokio::test]
async fn what_is_loaded_is_freed() {
    // First things first: libraries, threads and their stacks.
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-llama");
    load(&tiny, Arc::new(|_| true)).await.expect("it loads").unload().await;
    let folder = tempfile::tempdir().expect("a folder");
    large(folder.path());

    let before = resident();
    let progress = Arc::new(|fraction: f32| fraction < 0.5);
    let error = load(folder.path(), progress).await.map(|_| ()).expect_err("cancelled");
    assert!(matches!(error, BackendError::LoadCancelled), "{error:?}");
    let cancelled = resident();
    assert!(cancelled < before + 24 * MIB, "a cancelled load keeps {} MiB", (cancelled - before) / MIB);

    let model = load(folder.path(), Arc::new(|_| true)).await.expect("it loads");
    let loaded = resident();
    assert!(loaded > before + 64 * MIB, "only {} MiB are there", (loaded - before) / MIB);
    model.unload().await;
    drop(model);
    let unloaded = resident();
    assert!(unloaded < before + 24 * MIB, "an unloaded model keeps {} MiB", (unloaded - before) / MIB);

    // A thousand requests, some of them cancelled half-way, of lengths that make the caches grow.
    let model = load(&tiny, Arc::new(|_| true)).await.expect("it loads");
    let mut after_warm_up = (0, None);
    for number in 0..1000u32 {
        let prompt = (0..1 + number * 37 % 300).map(|index| index % 256).collect();
        let mut request = GenerateRequest::new("memory", prompt, 1 + number % 7);
        request.ignore_eos = true;
        let mut stream = model.generate(request).expect("room");
        if number % 10 == 0 {
            stream.next().await;
            drop(stream);
        } else {
            fold(stream).await.expect("answered");
        }
        if number == 200 {
            after_warm_up = (resident(), model.memory().peak_bytes);
        }
    }
    model.run_exclusive(Box::new(|_| {})).await.expect("idle");
    let grown = resident().saturating_sub(after_warm_up.0);
    assert!(grown < 8 * MIB, "800 requests have left {} MiB", grown / MIB);
    let (first, last) = (after_warm_up.1.expect("counted"), model.memory().peak_bytes.expect("counted"));
    assert!(last <= first + first / 10, "the peak has grown from {first} to {last} bytes");
    assert_eq!(model.memory().kv_bytes, Some(0));
}
