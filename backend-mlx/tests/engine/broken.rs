//! Models that are damaged, foreign or too much: each a typed error that names what is wrong.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use duet_backend_mlx::MlxBackend;
use duet_core::model::gguf::GgmlType;
use duet_core::model::safetensors::Dtype;
use duet_core::model::{KvType, ModelFileError, inspect};
use duet_core::testing::{GgufWriter, MlxWriter};
use duet_core::{
    BackendError, InferenceBackend, ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want, WeightsMode,
};
use serde_json::json;

use crate::common::{fixture, load, load_as, no_progress, spec, with_runner};

/// What loading `model` fails with, `probe` having accepted it or not.
async fn refusal(path: &Path) -> BackendError {
    match load(spec(path, 1)).await {
        Ok(_) => panic!("it loads"),
        Err(error) => error,
    }
}

/// What probing a directory fails with.
fn probe_refusal(writer: &MlxWriter) -> BackendError {
    let folder = tempfile::tempdir().expect("a folder");
    writer.write(folder.path()).expect("written");
    let model = inspect(folder.path()).expect("described");
    MlxBackend::new().expect("MLX starts").probe(&model).expect_err("refused")
}

async fn load_refusal(writer: &MlxWriter) -> BackendError {
    let folder = tempfile::tempdir().expect("a folder");
    writer.write(folder.path()).expect("written");
    refusal(folder.path()).await
}

#[track_caller]
fn says(error: &BackendError, words: &[&str]) {
    let text = error.chain();
    assert!(words.iter().all(|word| text.contains(word)), "{text:?} lacks one of {words:?}");
    assert!(!text.contains('\n'), "one line: {text:?}");
}

#[tokio::test]
async fn whole_models_of_the_writers_load() {
    for family in ["llama", "mistral", "qwen3"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = MlxWriter::tiny(family);
        if family == "qwen3" {
            add_qk_norms(&mut writer);
        }
        writer.write(folder.path()).expect("written");
        load_as(folder.path(), 1, WeightsMode::Auto).await.unload().await;
        writer.quantize(32, 4).shard(2);
        let folder = tempfile::tempdir().expect("a folder");
        writer.write(folder.path()).expect("written");
        load_as(folder.path(), 1, WeightsMode::Packed).await.unload().await;
    }
}

fn add_qk_norms(writer: &mut MlxWriter) {
    for layer in 0..2 {
        for side in ["q", "k"] {
            let name = format!("model.layers.{layer}.self_attn.{side}_norm.weight");
            writer.shards[0].1.push((name, Dtype::BF16, vec![16]));
        }
    }
}

#[tokio::test]
async fn a_shard_that_shrank_after_its_header_was_read() {
    let folder = tempfile::tempdir().expect("a folder");
    MlxWriter::tiny("llama").write(folder.path()).expect("written");
    let spec = spec(folder.path(), 1);
    let file =
        OpenOptions::new().write(true).open(folder.path().join("model.safetensors")).expect("it is there");
    file.set_len(file.metadata().expect("a length").len() / 2).expect("cut");
    let error = load(spec).await.map(|_| ()).expect_err("half a file");
    assert!(matches!(error, BackendError::ModelFile(ModelFileError::Truncated { .. })), "{error:?}");
    says(&error, &["model.safetensors", "truncated"]);
}

#[tokio::test]
async fn a_missing_shard() {
    let folder = tempfile::tempdir().expect("a folder");
    MlxWriter::tiny("llama").shard(2).write(folder.path()).expect("written");
    let spec = spec(folder.path(), 1);
    std::fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).expect("it was there");
    let error = load(spec).await.map(|_| ()).expect_err("half a model");
    assert!(matches!(error, BackendError::ModelFile(ModelFileError::MissingShard { .. })), "{error:?}");
}

#[tokio::test]
async fn a_stray_shard_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = MlxWriter::tiny("llama");
    writer.shard(1).write(folder.path()).expect("written");
    let stray = folder.path().join("model-old.safetensors");
    std::fs::copy(folder.path().join("model-00001-of-00001.safetensors"), stray).expect("copied");
    load_as(folder.path(), 1, WeightsMode::Auto).await.unload().await;
}

#[tokio::test]
async fn a_missing_tensor() {
    let mut writer = MlxWriter::tiny("llama");
    writer.shards[0].1.retain(|(name, ..)| name != "model.layers.1.mlp.up_proj.weight");
    let error = load_refusal(&writer).await;
    assert!(matches!(error, BackendError::ModelFile(ModelFileError::NoSuchTensor { .. })), "{error:?}");
    says(&error, &["model.layers.1.mlp.up_proj.weight"]);
    says(&load_refusal(&MlxWriter::tiny("qwen2")).await, &["model.layers.0.self_attn.q_proj.bias"]);
    says(&load_refusal(&MlxWriter::tiny("qwen3")).await, &["q_norm.weight"]);
}

#[tokio::test]
async fn a_tensor_that_nobody_wants() {
    let mut writer = MlxWriter::tiny("llama");
    writer.shards[0].1.push(("model.layers.0.self_attn.q_proj.bias".to_owned(), Dtype::BF16, vec![64]));
    says(&load_refusal(&writer).await, &["model.layers.0.self_attn.q_proj.bias", "no place"]);
    let mut writer = MlxWriter::tiny("llama");
    writer.shards[0].1.push(("model.vision_tower.patch.weight".to_owned(), Dtype::BF16, vec![64, 3]));
    says(&load_refusal(&writer).await, &["model.vision_tower.patch.weight"]);
}

#[tokio::test]
async fn leftovers_that_checkpoints_are_known_for_are_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = MlxWriter::tiny("llama");
    writer.set("tie_word_embeddings", true); // and lm_head.weight is in the file
    writer.shards[0].1.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), Dtype::F32, vec![8]));
    writer.write(folder.path()).expect("written");
    load_as(folder.path(), 1, WeightsMode::Auto).await.unload().await;
}

#[tokio::test]
async fn misshapen_tensors() {
    for (name, shape) in [
        ("model.layers.0.self_attn.k_proj.weight", vec![64, 64]),
        ("model.layers.1.mlp.down_proj.weight", vec![128, 64]),
        ("model.norm.weight", vec![63]),
        ("lm_head.weight", vec![31, 64]),
        ("model.layers.0.input_layernorm.weight", vec![64, 1]),
    ] {
        let mut writer = MlxWriter::tiny("llama");
        let tensor = writer.shards[0].1.iter_mut().find(|(other, ..)| other == name).expect("it is there");
        tensor.2 = shape;
        says(&load_refusal(&writer).await, &[name]);
    }
}

#[tokio::test]
async fn packed_modules_that_do_not_fit_together() {
    let module = "model.layers.0.mlp.gate_proj";
    let part = |writer: &mut MlxWriter, part: &str, change: fn(&mut (String, Dtype, Vec<usize>))| {
        let name = format!("{module}.{part}");
        let tensor = writer.shards[0].1.iter_mut().find(|(other, ..)| *other == name).expect("it is there");
        change(tensor);
    };
    let mut writer = MlxWriter::tiny("llama");
    writer.quantize(32, 4);
    let mut no_biases = writer.clone();
    no_biases.shards[0].1.retain(|(name, ..)| *name != format!("{module}.biases"));
    says(&load_refusal(&no_biases).await, &["gate_proj.biases"]);
    let mut short_biases = writer.clone();
    part(&mut short_biases, "biases", |tensor| tensor.2 = vec![128, 1]);
    says(&load_refusal(&short_biases).await, &["gate_proj.biases"]);
    let mut eight_bit_scales = writer.clone();
    part(&mut eight_bit_scales, "scales", |tensor| tensor.1 = Dtype::U8);
    says(&load_refusal(&eight_bit_scales).await, &["8-bit scales"]);
}

#[tokio::test]
async fn tensors_of_types_that_weights_do_not_have() {
    let mut writer = MlxWriter::tiny("llama");
    let tensor =
        writer.shards[0].1.iter_mut().find(|(name, ..)| name.contains("v_proj")).expect("it is there");
    tensor.1 = Dtype::I64;
    let error = probe_refusal(&writer);
    assert!(
        matches!(error, BackendError::ModelFile(ModelFileError::UnsupportedTensorType { .. })),
        "{error:?}"
    );
    says(&error, &["v_proj", "I64"]);
}

#[test]
fn unknown_architectures_and_variants_are_refused_by_name() {
    let refused = |writer: &MlxWriter, words: &[&str]| {
        let error = probe_refusal(writer);
        assert!(matches!(error, BackendError::UnsupportedArchitecture { backend: "mlx", .. }), "{error:?}");
        says(&error, words);
    };
    refused(&MlxWriter::tiny("mamba9"), &["mamba9", "llama", "qwen2", "qwen3"]);
    refused(MlxWriter::tiny("llama").set("hidden_act", "gelu"), &["gelu"]);
    refused(MlxWriter::tiny("llama").set("num_local_experts", 8), &["experts"]);
    refused(MlxWriter::tiny("llama").set("num_key_value_heads", 3), &["4 heads", "3"]);
    refused(MlxWriter::tiny("llama").set("head_dim", 15), &["15"]);
    refused(MlxWriter::tiny("llama").set("partial_rotary_factor", 0.5), &["8 of 16"]);
    let scaling = |value: serde_json::Value| {
        let mut writer = MlxWriter::tiny("llama");
        writer.set("rope_scaling", value);
        writer
    };
    refused(&scaling(json!({ "rope_type": "yarn", "factor": 4.0 })), &["yarn"]);
    refused(&scaling(json!({ "type": "linear" })), &["factor"]);
    refused(&scaling(json!({ "rope_type": "linear", "factor": 0 })), &["factor"]);
    refused(&scaling(json!({ "rope_type": "llama3", "factor": 8.0 })), &["low_freq_factor"]);
}

#[test]
fn foreign_quantisations_are_refused_by_name() {
    for scheme in ["awq", "gptq", "fp8", "compressed-tensors", "mxfp4", "bitnet", "modelopt"] {
        let mut writer = MlxWriter::tiny("llama");
        writer.set("quantization_config", json!({ "quant_method": scheme, "bits": 4 }));
        let error = probe_refusal(&writer);
        assert!(matches!(error, BackendError::Unsupported { .. }), "{error:?}");
        says(&error, &[scheme, "mlx"]);
    }
    let mut writer = MlxWriter::tiny("llama");
    writer.quantize(32, 4).set("quantization", json!({ "mode": "mxfp4", "group_size": 32, "bits": 4 }));
    says(&probe_refusal(&writer), &["mxfp4"]);
}

#[tokio::test]
async fn broken_configurations() {
    for (key, value) in [
        ("rms_norm_eps", json!("small")),
        ("attention_bias", json!("yes")),
        ("hidden_act", json!(7)),
        ("rope_traditional", json!(1)),
    ] {
        let mut writer = MlxWriter::tiny("llama");
        writer.set(key, value);
        says(&load_refusal(&writer).await, &["config.json", key]);
    }
}

fn gguf(change: impl FnOnce(&mut GgufWriter)) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = GgufWriter::tiny("llama");
    writer.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    change(&mut writer);
    let path = folder.path().join("model.gguf");
    writer.write(&path).expect("written");
    (folder, path)
}

#[tokio::test]
async fn gguf_files_with_something_wrong() {
    let (_folder, path) = gguf(|_| {});
    load_as(&path, 1, WeightsMode::Packed).await.unload().await;

    let (_folder, path) = gguf(|file| {
        let tensor =
            file.tensors.iter_mut().find(|tensor| tensor.name == b"blk.1.ffn_up.weight").expect("there");
        tensor.type_id = GgmlType::IQ2_XXS.id();
        tensor.dims = vec![256, 128];
        tensor.data = vec![0; 66 * 128];
    });
    let error = refusal(&path).await;
    assert!(
        matches!(error, BackendError::ModelFile(ModelFileError::UnsupportedTensorType { .. })),
        "{error:?}"
    );
    says(&error, &["blk.1.ffn_up.weight", "IQ2_XXS", "mlx"]);
    let model = inspect(&path).expect("described");
    says(&MlxBackend::new().expect("MLX starts").probe(&model).expect_err("refused"), &["IQ2_XXS"]);

    let (_folder, path) = gguf(|file| file.tensors.retain(|tensor| tensor.name != b"blk.0.attn_k.weight"));
    says(&refusal(&path).await, &["blk.0.attn_k.weight"]);

    let (_folder, path) = gguf(|file| {
        file.zeros("blk.0.attn_sinks.weight", &[4], GgmlType::F32);
    });
    says(&refusal(&path).await, &["blk.0.attn_sinks.weight", "no place"]);

    let (_folder, path) = gguf(|file| {
        file.zeros("rope_freqs.weight", &[9], GgmlType::F32);
    });
    says(&refusal(&path).await, &["rope_freqs.weight"]);

    let (_folder, path) = gguf(|file| {
        file.unset("llama.attention.layer_norm_rms_epsilon");
    });
    says(&refusal(&path).await, &["epsilon"]);

    let (_folder, path) = gguf(|file| {
        let tensor =
            file.tensors.iter_mut().find(|tensor| tensor.name == b"blk.0.attn_q.weight").expect("there");
        tensor.dims = vec![64, 60];
        tensor.data.truncate(60 * 36);
    });
    says(&refusal(&path).await, &["blk.0.attn_q.weight"]);

    let (_folder, path) = gguf(|file| {
        file.set("general.architecture", "gpt-oss");
        for key in ["context_length", "embedding_length", "block_count", "attention.head_count"] {
            file.set(&format!("gpt-oss.{key}"), 64u32);
        }
    });
    let error = refusal(&path).await;
    assert!(matches!(error, BackendError::UnsupportedArchitecture { .. }), "{error:?}");
}

#[tokio::test]
async fn a_truncated_gguf_file() {
    let (_folder, path) = gguf(|_| {});
    let spec = spec(&path, 1);
    let file = OpenOptions::new().write(true).open(&path).expect("it is there");
    file.set_len(file.metadata().expect("a length").len() - 4096).expect("cut");
    let error = load(spec).await.map(|_| ()).expect_err("cut off");
    assert!(matches!(error, BackendError::ModelFile(ModelFileError::Truncated { .. })), "{error:?}");
}

#[tokio::test]
async fn kv_types_that_mlx_does_not_have() {
    let mut spec = spec(&fixture("tiny-llama"), 1);
    spec.kv_type = Some(KvType::Q8_0);
    let error = load(spec).await.map(|_| ()).expect_err("llama.cpp's own");
    assert!(matches!(error, BackendError::Unsupported { .. }), "{error:?}");
    says(&error, &["q8_0", "mlx"]);
}

#[tokio::test]
async fn a_load_is_cancelled_between_layers() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let progress = Arc::new(move |_: f32| counted.fetch_add(1, Ordering::Relaxed) < 2);
    let backend = MlxBackend::new().expect("MLX starts");
    let error =
        backend.load(spec(&fixture("tiny-llama"), 1), progress).await.map(|_| ()).expect_err("cancelled");
    assert!(matches!(error, BackendError::LoadCancelled), "{error:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 3, "the third answer was no, and nobody asked again");
}

#[tokio::test]
async fn an_engine_goes_on_after_a_load_that_failed() {
    let failed = backend_load(&fixture("tiny-llama"), |spec| spec.kv_type = Some(KvType::Q4_0)).await;
    assert!(failed.is_err());
    backend_load(&fixture("tiny-llama"), |_| {}).await.expect("it loads").unload().await;
}

async fn backend_load(
    path: &Path,
    change: impl FnOnce(&mut duet_core::LoadSpec),
) -> Result<Arc<dyn duet_core::LoadedModel>, BackendError> {
    let mut spec = spec(path, 1);
    change(&mut spec);
    MlxBackend::new().expect("MLX starts").load(spec, no_progress()).await
}

fn host<'a>(seq: u32, position: u32, ids: &'a [u32], want: Want) -> PlanRow<'a> {
    PlanRow { seq: SeqId(seq), position, tokens: RowTokens::Host(ids), want }
}

fn refused(runner: &mut dyn ModelRunner, rows: &[PlanRow<'_>]) -> String {
    let before: Vec<u32> = (0..4).map(|seq| runner.sequence_len(SeqId(seq))).collect();
    let error = runner.submit(StepPlan { rows }).expect_err("no step");
    let after: Vec<u32> = (0..4).map(|seq| runner.sequence_len(SeqId(seq))).collect();
    assert_eq!(before, after, "the sequences are as before");
    error.chain()
}

#[tokio::test]
async fn plans_that_cannot_be() {
    let model = load_as(&fixture("tiny-llama"), 2, WeightsMode::Auto).await;
    with_runner(model.as_ref(), |runner| {
        let want = Want::LastLogits;
        let text = refused(runner, &[host(0, 0, &[3, 320], want)]);
        assert!(text.contains("320"), "{text}");
        assert!(refused(runner, &[host(0, 0, &[u32::MAX], want)]).contains("vocabulary"));
        assert!(refused(runner, &[]).contains("rows"));
        assert!(refused(runner, &[host(0, 0, &[], want)]).contains("no tokens"));
        assert!(refused(runner, &[host(2, 0, &[1], want)]).contains("sequence 2 only holds a prefix"));
        assert!(refused(runner, &[host(9999, 0, &[1], want)]).contains("no sequence 9999"));
        assert!(refused(runner, &[host(0, 5, &[1], want)]).contains("continues at 0"));
        assert!(refused(runner, &[host(1, 0, &[1], want), host(0, 0, &[1], want)]).contains("order"));
        let previous = PlanRow { seq: SeqId(0), position: 0, tokens: RowTokens::Previous, want };
        assert!(refused(runner, &[previous]).contains("sampled no token"));
        assert!(refused(runner, &[host(0, 0, &[1; 193], want)]).contains("outgrows"));
        assert!(refused(runner, &[host(0, 0, &[1; 513], want)]).contains("513 tokens"));
        // 192 cells for each of two sequences: both fit, one cell more does not.
        let fill = [host(0, 0, &[1; 192], Want::Nothing), host(1, 0, &[1; 191], Want::Nothing)];
        runner.submit(StepPlan { rows: &fill }).expect("they fit");
        runner.collect().expect("evaluated");
        assert_eq!(runner.n_cells_used(), 383);
        runner.collect().expect_err("nothing is in flight");
    })
    .await;
}

#[tokio::test]
async fn a_full_cache_is_said_before_anything_is_evaluated() {
    let mut spec = spec(&fixture("tiny-llama"), 2);
    spec.kv_tokens = 200;
    let model = load(spec).await.expect("it loads");
    with_runner(model.as_ref(), |runner| {
        let row = [host(0, 0, &[1; 150], Want::Nothing)];
        runner.submit(StepPlan { rows: &row }).expect("it fits");
        runner.collect().expect("evaluated");
        let passes = runner.n_forward_passes();
        let more = [host(1, 0, &[1; 51], Want::LastLogits)];
        let error = runner.submit(StepPlan { rows: &more }).expect_err("201 cells");
        assert!(matches!(error, BackendError::KvCacheFull { n_rows: 51 }), "{error:?}");
        assert_eq!((runner.n_forward_passes(), runner.sequence_len(SeqId(1))), (passes, 0));
    })
    .await;
}
