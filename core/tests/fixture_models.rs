//! Detection on what real converters write: the tiny checkpoints of tests/fixtures (llama.cpp's converter, mlx-lm,
//! transformers) and, where `make setup` has fetched it, the demo model.

use std::path::{Path, PathBuf};
use std::time::Instant;

use duet_core::model::gguf::GgufFile;
use duet_core::model::safetensors::SafetensorsDir;
use duet_core::model::{self, KvType, ModelFormat, ModelInfo, TokenizerKind, WindowPattern};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core lies in the repository")
}

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

fn inspect(name: &str) -> ModelInfo {
    model::inspect(&fixture(name)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn both_formats_of_a_checkpoint_agree() {
    for (name, architecture, head_dim, tied) in [
        ("tiny-llama", "llama", 16, false),
        ("tiny-llama-tied", "llama", 16, true),
        ("tiny-qwen2", "qwen2", 16, true),
        ("tiny-qwen3", "qwen3", 32, true),
    ] {
        let (gguf, mlx) = (inspect(&format!("{name}.gguf")), inspect(name));
        for info in [&gguf, &mlx] {
            assert_eq!(info.architecture, architecture);
            assert_eq!((info.n_layers, info.hidden_size, info.vocab_size), (2, 64, 320), "{name}");
            assert_eq!((info.n_heads, info.n_kv_heads), (4, 2), "{name}");
            assert_eq!((info.head_dim_k, info.head_dim_v), (head_dim, head_dim), "{name}");
            assert_eq!((info.context_length, info.window), (512, WindowPattern::Full), "{name}");
            assert_eq!((info.tied_embeddings, info.quantization.as_str()), (tied, "F32"), "{name}");
            assert_eq!(info.bits_per_weight, 32.0, "{name}");
            assert!(info.chat_template.is_some(), "{name}");
        }
        assert_eq!((gguf.format, mlx.format), (ModelFormat::Gguf, ModelFormat::MlxDirectory));
        assert_eq!(gguf.layers, mlx.layers, "{name}");
        assert_eq!(gguf.intermediate_size, mlx.intermediate_size, "{name}");
        assert_eq!(gguf.rope.freq_base, mlx.rope.freq_base, "{name}");
        assert_eq!(gguf.rope.n_rot, mlx.rope.n_rot, "{name}");
        assert_eq!(gguf.split.embedding_params, mlx.split.embedding_params, "{name}");
        assert_eq!(gguf.chat_template, mlx.chat_template, "{name}");
        assert_eq!(mlx.eos_token_ids.len(), 2, "{name}: generation_config.json names two");
        assert_eq!(mlx.tokenizer, TokenizerKind::HuggingFace);
        // The GGUF converter adds llama3's rope factors as a tensor.
        let factors = GgufFile::open(&gguf.path)
            .expect("opened before")
            .tensor("rope_freqs.weight")
            .map(|t| t.n_elements());
        assert_eq!(gguf.n_params, mlx.n_params + factors.unwrap_or(0), "{name}");
        assert_eq!(gguf.rope.scaling.is_some(), mlx.rope.scaling.is_some(), "{name}");
    }
}

#[test]
fn packed_conversions_keep_their_number_of_weights() {
    let dense = inspect("tiny-llama");
    for (variant, label) in [
        ("bf16", "BF16"),
        ("f16", "F16"),
        ("q2g32", "affine 2-bit g32"),
        ("q3g64", "affine 3-bit g64"),
        ("q4g32", "affine 4-bit g32"),
        ("q5g32", "affine 5-bit g32"),
        ("q6g64", "affine 6-bit g64"),
        ("q8g64", "affine 8-bit g64"),
        ("mixed", "affine 4-bit g32 (mixed)"),
    ] {
        let info = inspect(&format!("tiny-llama-mlx-{variant}"));
        assert_eq!((info.n_params, info.quantization.as_str()), (dense.n_params, label));
        assert_eq!(info.split.embedding_params, dense.split.embedding_params);
        assert!(info.bits_per_weight < dense.bits_per_weight);
        assert_eq!(info.layers, dense.layers);
        assert!(info.chat_template.is_some());
    }
}

#[test]
fn shards_are_one_model() {
    let (whole, sharded) = (inspect("tiny-qwen2"), inspect("tiny-qwen2-sharded"));
    assert_eq!(sharded.files.len(), 2);
    assert_eq!((sharded.n_params, sharded.weight_bytes), (whole.n_params, whole.weight_bytes));
    let (whole, sharded) = (fixture("tiny-qwen2"), fixture("tiny-qwen2-sharded"));
    let whole = SafetensorsDir::open(&whole).expect("a good model");
    let sharded = SafetensorsDir::open(&sharded).expect("a good model");
    for (name, entry) in whole.tensors() {
        assert_eq!(entry.shape, sharded.get(name).expect("in a shard").shape);
        assert_eq!(whole.data(name).expect("mapped"), sharded.data(name).expect("mapped"), "{name}");
    }
}

#[test]
fn every_fixture_is_described_within_milliseconds() {
    for entry in std::fs::read_dir(repository().join("tests/fixtures")).expect("fixtures") {
        let path = entry.expect("readable").path();
        let is_model = path.extension().is_some_and(|extension| extension == "gguf")
            || path.join("config.json").exists();
        if !is_model {
            continue;
        }
        let info = model::inspect(&path).unwrap_or_else(|error| panic!("{error}"));
        let fewest = if info.encoder { 20_000 } else { 90_000 };
        assert!(info.n_params > fewest && info.file_bytes > info.weight_bytes);
        assert!(model::kv_bytes(&info, 512, KvType::F16).is_ok());
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skip and a time are for whoever runs the tests")]
fn the_demo_model() {
    let gguf = repository().join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let mlx = repository().join("models/SmolLM2-135M-Instruct-mlx");
    if !gguf.exists() || !mlx.exists() {
        eprintln!("skipped: no demo model; `make setup` fetches it");
        return;
    }
    let start = Instant::now();
    let from_gguf = model::inspect(&gguf).unwrap_or_else(|error| panic!("{error}"));
    eprintln!("inspect, 98 MB .gguf: {:?}", start.elapsed());
    let start = Instant::now();
    let from_mlx = model::inspect(&mlx).unwrap_or_else(|error| panic!("{error}"));
    eprintln!("inspect, its MLX directory: {:?}", start.elapsed());
    for info in [&from_gguf, &from_mlx] {
        assert_eq!(info.n_params, 134_515_008);
        assert_eq!((info.n_layers, info.n_heads, info.n_kv_heads, info.head_dim_k), (30, 9, 3, 64));
        assert_eq!((info.context_length, info.vocab_size, info.tied_embeddings), (8192, 49_152, true));
        assert_eq!((info.bos_token_id, info.eos_token_ids.as_slice()), (Some(1), &[2][..]));
        assert_eq!(model::kv_bytes(info, 131_072, KvType::F16), Ok(3_019_898_880));
        assert_eq!(info.split.embedding_params, 49_152 * 576);
        assert_eq!((info.rope.freq_base, info.rope.n_rot, &info.rope.scaling), (100_000.0, 64, &None));
    }
    assert_eq!(from_gguf.quantization, "Q4_1");
    assert_eq!((from_gguf.file_bytes, from_gguf.weight_bytes), (98_362_432, 96_576_768));
    assert!((from_gguf.bits_per_weight - 5.7437).abs() < 1e-3, "{}", from_gguf.bits_per_weight);
    assert_eq!(from_mlx.quantization, "affine 4-bit g32 (mixed)");
    assert_eq!(from_gguf.chat_template, from_mlx.chat_template);
}
