//! Models broken by construction: whatever the bytes, the answer is a description or a typed error of one line, within
//! a small multiple of the file's size in memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::LazyLock;

use duet_core::model::gguf::GgufFile;
use duet_core::model::{self, FitRequest, KvAllocation, KvType, ModelFileError, ModelInfo};
use duet_core::testing::{GgufValue, GgufWriter, MlxWriter};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Counts what each thread has allocated, and the most it ever had.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no counter left, and nothing to count.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came; the counters are plain cells without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `work` allocated at its peak beyond what was there before, with its result.
fn peak<T>(work: impl FnOnce() -> T) -> (T, isize) {
    let before = NOW.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

thread_local! {
    /// Where a test writes its cases, one over the other.
    static FOLDER: TempDir = tempfile::tempdir().expect("a temporary directory");
}

/// Writes a file that is not there any more: rewriting one in place makes ext4 flush it to the disk at once.
fn write_anew(path: &Path, bytes: &[u8]) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", path.display()),
        _ => std::fs::write(path, bytes).expect("a small file"),
    }
}

/// Inspects, and holds the answer to the promises.
fn inspect(path: &Path, n_bytes: usize) -> Result<ModelInfo, ModelFileError> {
    let (result, peak) = peak(|| model::inspect(path));
    let limit = (64 << 10) + 24 * n_bytes as isize;
    assert!(peak <= limit, "{peak} bytes allocated for {n_bytes}: {result:?}");
    match &result {
        Ok(info) => plans_are_answers(info),
        Err(error) => {
            let line = error.to_string();
            assert!(line.starts_with(&path.display().to_string()), "{line}");
            assert!(line.len() < 4096 && !line.contains('\n'), "{line}");
        }
    }
    result
}

/// No description is too odd for a memory plan.
fn plans_are_answers(info: &ModelInfo) {
    assert_eq!(info.layers.len(), info.n_layers as usize);
    assert!(info.bits_per_weight.is_finite());
    for allocation in [
        KvAllocation::Resident,
        KvAllocation::LlamaCpp { n_ubatch: 512, unified: false, swa_full: false },
        KvAllocation::Mlx,
    ] {
        let request = FitRequest { allocation, kv_type: KvType::Q8_0, ..FitRequest::default() };
        for available in [0, 1 << 20, 1 << 40, u64::MAX] {
            if let Ok(fit) = model::fit(info, available, request) {
                assert!(fit.plan.total <= available && fit.kv_tokens >= fit.context);
            }
        }
    }
}

/// A change to a file's bytes, its place as a fraction of what is there.
#[derive(Debug, Clone)]
enum Change {
    Overwrite(f64, Vec<u8>),
    Insert(f64, Vec<u8>),
    Remove(f64, usize),
    Repeat(f64, usize),
    Cut(f64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, reach: usize) {
        let reach = reach.min(bytes.len());
        let place = |fraction: f64| (fraction * reach as f64) as usize;
        match self {
            Self::Overwrite(at, new) => {
                for (to, from) in bytes[place(*at)..].iter_mut().zip(new) {
                    *to = *from;
                }
            }
            Self::Insert(at, new) => drop(bytes.splice(place(*at)..place(*at), new.iter().copied())),
            Self::Remove(at, n) => drop(bytes.drain(place(*at)..(place(*at) + n).min(reach))),
            Self::Repeat(at, n) => {
                let part = bytes[place(*at)..(place(*at) + n).min(reach)].to_vec();
                drop(bytes.splice(place(*at)..place(*at), part));
            }
            Self::Cut(at) => bytes.truncate(place(*at)),
        }
    }
}

/// Numbers at the edges of what lengths, counts and types can be, and any others.
fn edgy() -> impl Strategy<Value = u64> {
    let edges: &[u64] = &[
        0,
        1,
        2,
        4,
        7,
        8,
        9,
        13,
        31,
        32,
        39,
        64,
        255,
        256,
        0xffff,
        1 << 16,
        1 << 26,
        1 << 31,
        1 << 32,
        1 << 62,
    ];
    let near = (prop::sample::select(edges.to_vec()), -1i64..=1).prop_map(|(n, d)| n.wrapping_add_signed(d));
    prop_oneof![3 => near, 1 => Just(1 << 63), 1 => Just(u64::MAX), 1 => any::<u64>(), 1 => 0u64..5000]
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0.0..1.0f64;
    let number =
        (edgy(), any::<bool>()).prop_map(|(n, long)| n.to_le_bytes()[..if long { 8 } else { 4 }].to_vec());
    let bytes = || prop::collection::vec(any::<u8>(), 1..16);
    prop_oneof![
        6 => (at(), number).prop_map(|(at, new)| Change::Overwrite(at, new)),
        4 => (at(), bytes()).prop_map(|(at, new)| Change::Overwrite(at, new)),
        2 => (at(), bytes()).prop_map(|(at, new)| Change::Insert(at, new)),
        2 => (at(), 1usize..64).prop_map(|(at, n)| Change::Remove(at, n)),
        1 => (at(), 1usize..64).prop_map(|(at, n)| Change::Repeat(at, n)),
        1 => at().prop_map(Change::Cut),
    ]
}

/// A metadata value of any type.
fn gguf_value() -> impl Strategy<Value = GgufValue> {
    let text = || prop::collection::vec(any::<u8>(), 0..20).prop_map(GgufValue::String);
    let scalar = prop_oneof![
        1 => any::<u8>().prop_map(GgufValue::U8),
        1 => any::<i8>().prop_map(GgufValue::I8),
        1 => any::<u16>().prop_map(GgufValue::U16),
        1 => any::<i16>().prop_map(GgufValue::I16),
        4 => edgy().prop_map(|n| GgufValue::U32(n as u32)),
        1 => any::<i32>().prop_map(GgufValue::I32),
        1 => any::<f32>().prop_map(GgufValue::F32),
        1 => any::<bool>().prop_map(GgufValue::Bool),
        2 => edgy().prop_map(GgufValue::U64),
        1 => any::<i64>().prop_map(GgufValue::I64),
        1 => any::<f64>().prop_map(GgufValue::F64),
        1 => text(),
    ];
    let list = prop_oneof![
        prop::collection::vec(edgy().prop_map(|n| GgufValue::U32(n as u32)), 0..6),
        prop::collection::vec(any::<bool>().prop_map(GgufValue::Bool), 0..6),
        prop::collection::vec(text(), 0..6),
    ];
    let raw =
        (edgy(), prop::collection::vec(any::<u8>(), 0..24)).prop_map(|(id, b)| GgufValue::Raw(id as u32, b));
    prop_oneof![6 => scalar, 3 => list.prop_map(GgufValue::Array), 1 => raw]
}

const ARCHITECTURES: [&str; 8] =
    ["llama", "qwen3", "gemma3", "gpt-oss", "llama4", "deepseek2", "qwen35", "gemma3n"];

/// Keys that decide something.
const KEYS: [&str; 19] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.shared_kv_layers",
    "attention.kv_lora_rank",
    "attention.recurrent_layers",
    "full_attention_interval",
    "ssm.state_size",
    "expert_count",
    "expert_used_count",
    "nextn_predict_layers",
];

/// So many cases, or as many as the environment's PROPTEST_CASES says, for a longer hunt.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}

fn inspect_bytes(bytes: &[u8]) {
    let path = FOLDER.with(|dir| dir.path().join("m.gguf"));
    write_anew(&path, bytes);
    let info = inspect(&path, bytes.len());
    // Every tensor of a file that opens lies within it.
    if let Ok(file) = GgufFile::open(&path) {
        for tensor in file.tensors() {
            let data = file.tensor_data(tensor).expect("within the file");
            assert_eq!(data.len() as u64, tensor.n_bytes);
        }
    } else {
        assert!(info.is_err());
    }
}

/// Puts some JSON in place of the nth node of a tree.
fn replace_node(tree: &mut Value, n: &mut usize, new: &Value) {
    if *n == 0 {
        *tree = new.clone();
        *n = usize::MAX;
        return;
    }
    *n -= 1;
    let children: Vec<&mut Value> = match tree {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for child in children {
        if *n == usize::MAX {
            return;
        }
        replace_node(child, n, new);
    }
}

fn n_nodes(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(items) => items.iter().map(n_nodes).sum(),
        Value::Object(fields) => fields.values().map(n_nodes).sum(),
        _ => 0,
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        4 => edgy().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => "[a-z_.]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{1,8}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A config.json with something in every field that is looked at.
fn full_config() -> Value {
    json!({
        "quantization": { "group_size": 32, "bits": 4, "mode": "affine", "lm_head": { "group_size": 64, "bits": 8 } },
        "quantization_config": { "quant_method": "awq", "bits": 4 },
        "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64, "sliding_window_pattern": 2,
        "rope_scaling": { "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192 },
        "rope_parameters": { "full_attention": { "rope_theta": 1e6 } }, "partial_rotary_factor": 0.5,
        "num_local_experts": 8, "num_experts_per_tok": 2, "num_kv_shared_layers": 0, "full_attention_interval": 2,
        "kv_lora_rank": null, "attention_chunk_size": 64, "text_config": { "hidden_size": 64 },
        "eos_token_id": [1, 2], "_name_or_path": "x",
    })
}

type Files = Vec<(String, Vec<u8>)>;

/// The tiny MLX model in two files with an index, packed, as bytes by name; with something in every field of its
/// config.json that is looked at.
static MLX_FILES: LazyLock<Files> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut writer = MlxWriter::tiny("llama");
    writer.quantize(32, 4).shard(2);
    for (key, value) in full_config().as_object().expect("an object") {
        writer.set(key, value.clone());
    }
    let generation = json!({ "eos_token_id": [3], "temperature": 0.6, "top_k": 20 }).to_string();
    writer.others.push(("generation_config.json".to_owned(), generation.into_bytes()));
    let template = json!({ "chat_template": [{ "name": "default", "template": "{{ x }}" }] }).to_string();
    writer.others.push(("tokenizer_config.json".to_owned(), template.into_bytes()));
    writer.write(dir.path()).expect("a small model");
    let names = std::fs::read_dir(dir.path()).expect("there").map(|entry| entry.expect("there").path());
    let mut files: Vec<_> = names
        .map(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
            (name, std::fs::read(&path).expect("there"))
        })
        .collect();
    files.sort();
    files
});

fn inspect_files(files: &[(String, Vec<u8>)]) -> Result<ModelInfo, ModelFileError> {
    let dir = FOLDER.with(|dir| dir.path().to_owned());
    for (name, bytes) in files {
        write_anew(&dir.join(name), bytes);
    }
    inspect(&dir, files.iter().map(|(_, bytes)| bytes.len()).sum())
}

#[test]
fn the_models_to_be_broken_are_whole() {
    for architecture in ARCHITECTURES {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("m.gguf");
        let bytes = GgufWriter::tiny(architecture).to_bytes();
        std::fs::write(&path, &bytes).expect("a small file");
        inspect(&path, bytes.len()).expect("a whole model");
    }
    inspect_files(&MLX_FILES).expect("a whole model");
}

/// Sparse files pretend to any length: nothing may be read or allocated in proportion to that.
#[test]
fn sparse_giants() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("m.gguf");
    let mut writer = GgufWriter::tiny("llama");
    let string_of = |len: u64| GgufValue::Raw(8, len.to_le_bytes().to_vec());
    let list_of = |id: u32, len: u64| GgufValue::Raw(9, [&id.to_le_bytes()[..], &len.to_le_bytes()].concat());
    for value in [string_of(1 << 40), list_of(10, 1 << 40), list_of(8, 1 << 37), list_of(10, 1 << 26)] {
        writer.metadata.insert(0, (b"huge".to_vec(), value));
        std::fs::write(&path, writer.header()).expect("a small file");
        std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("there")
            .set_len(1 << 42)
            .expect("a sparse file");
        let error = inspect(&path, 32 << 10).expect_err("no model is like that");
        assert!(matches!(error, ModelFileError::LimitExceeded { .. }), "{error}");
        writer.metadata.remove(0);
    }
    let path = dir.path().join("model.safetensors");
    for len in [1u64 << 40, 100_000_001] {
        std::fs::write(&path, len.to_le_bytes()).expect("a small file");
        std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("there")
            .set_len(1 << 42)
            .expect("a sparse file");
        std::fs::write(dir.path().join("config.json"), MlxWriter::tiny("llama").config.to_string())
            .expect("small");
        let error = inspect(dir.path(), 4096).expect_err("no model is like that");
        assert!(matches!(error, ModelFileError::LimitExceeded { .. }), "{error}");
    }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn gguf_bytes_changed(
        architecture in prop::sample::select(ARCHITECTURES.to_vec()),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let writer = GgufWriter::tiny(architecture);
        let (mut bytes, reach) = (writer.to_bytes(), writer.header().len());
        changes.iter().for_each(|change| change.apply(&mut bytes, reach));
        inspect_bytes(&bytes);
    }

    #[test]
    fn gguf_values_replaced(
        architecture in prop::sample::select(ARCHITECTURES.to_vec()),
        values in prop::collection::vec((prop::sample::select(KEYS.to_vec()), gguf_value()), 1..5),
    ) {
        let mut writer = GgufWriter::tiny(architecture);
        for (key, value) in values {
            writer.set(&format!("{architecture}.{key}"), value);
        }
        inspect_bytes(&writer.to_bytes());
    }

    #[test]
    fn gguf_tensors_falsified(
        which in 0usize..20,
        dims in prop::option::of(prop::collection::vec(edgy(), 0..6)),
        type_id in prop::option::of(0u32..50),
        offset in prop::option::of(edgy()),
        n_tensors in prop::option::weighted(0.1, edgy()),
        alignment in prop::option::weighted(0.2, edgy()),
    ) {
        let mut writer = GgufWriter::tiny("llama");
        let tensor = &mut writer.tensors[which];
        tensor.dims = dims.unwrap_or(tensor.dims.clone());
        tensor.type_id = type_id.unwrap_or(tensor.type_id);
        tensor.offset = offset;
        writer.n_tensors = n_tensors;
        if let Some(alignment) = alignment {
            writer.set("general.alignment", alignment as u32);
        }
        inspect_bytes(&writer.to_bytes());
    }

    #[test]
    fn any_bytes_after_the_magic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        inspect_bytes(&[b"GGUF\x03\0\0\0", &bytes[..]].concat());
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn mlx_config_nodes_replaced(
        model_type in prop::sample::select(vec!["llama", "gemma3_text", "gpt_oss", "llama4_text"]),
        nodes in prop::collection::vec((any::<prop::sample::Index>(), json_value()), 1..4),
    ) {
        let mut files = MLX_FILES.clone();
        let file = files.iter_mut().find(|(name, _)| name == "config.json").expect("written");
        let mut tree: Value = serde_json::from_slice(&file.1).expect("JSON");
        tree["model_type"] = model_type.into();
        for (index, new) in nodes {
            let mut n = index.index(n_nodes(&tree));
            replace_node(&mut tree, &mut n, &new);
        }
        file.1 = tree.to_string().into_bytes();
        let _ = inspect_files(&files);
    }

    #[test]
    fn mlx_bytes_changed(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let mut files = MLX_FILES.clone();
        let which = which.index(files.len());
        let (name, bytes) = &mut files[which];
        let reach = if name.ends_with(".safetensors") { 2500 } else { bytes.len() };
        changes.iter().for_each(|change| change.apply(bytes, reach));
        let _ = inspect_files(&files);
    }

    #[test]
    fn safetensors_entries_falsified(
        numbers in prop::collection::vec((any::<prop::sample::Index>(), edgy()), 1..4),
    ) {
        let mut files = MLX_FILES.clone();
        let (_, bytes) = files.iter_mut().find(|(name, _)| name.ends_with(".safetensors")).expect("written");
        let len = u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
        let mut tree: Value = serde_json::from_slice(&bytes[8..8 + len]).expect("JSON");
        for (index, number) in numbers {
            let mut n = index.index(n_nodes(&tree));
            replace_node(&mut tree, &mut n, &number.into());
        }
        let header = tree.to_string().into_bytes();
        let data = bytes.split_off(8 + len);
        *bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
        let _ = inspect_files(&files);
    }
}
