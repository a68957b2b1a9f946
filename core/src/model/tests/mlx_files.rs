//! Which safetensors files belong to a model, and their form.

use std::fs;

use super::*;
use crate::model::safetensors::{Dtype, SafetensorsDir};

/// A directory with one safetensors file of this header and so many bytes of data.
fn with_header(header: &str, n_data: usize) -> TempDir {
    let dir = folder();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + n_data, 0xab);
    fs::write(dir.path().join("model.safetensors"), bytes).expect("a small file");
    dir
}

#[track_caller]
fn check_header(header: &str, n_data: usize, expected: &str) {
    check_line(SafetensorsDir::open(with_header(header, n_data).path()), expected);
}

#[track_caller]
fn check_bytes(bytes: &[u8], expected: &str) {
    let dir = folder();
    fs::write(dir.path().join("model.safetensors"), bytes).expect("a small file");
    check_line(SafetensorsDir::open(dir.path()), expected);
}

fn sharded() -> (TempDir, PathBuf) {
    let dir = folder();
    MlxWriter::tiny("llama").shard(3).write(dir.path()).expect("a small model");
    let index = dir.path().join("model.safetensors.index.json");
    (dir, index)
}

#[test]
fn data_is_what_was_written() {
    let header = r#"{"__metadata__":{"format":"mlx"},
        "b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
        "empty":{"dtype":"F16","shape":[0,5],"data_offsets":[7,7]}}"#;
    let dir = with_header(header, 7);
    let open = SafetensorsDir::open(dir.path()).expect("a good file");
    assert_eq!(open.tensors().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b", "empty"]);
    assert_eq!(open.data("a").expect("mapped"), [0xab; 4]);
    assert_eq!(open.data("b").expect("mapped"), [0xab; 3]);
    assert_eq!(open.data("empty").expect("mapped"), [0u8; 0]);
    let b = open.get("b").expect("present");
    assert_eq!((b.dtype, b.shape.as_slice(), b.n_bytes, b.n_elements()), (Dtype::U8, &[3][..], 3, 3));
    check_line(open.data("c"), "there is no tensor \"c\"");
    fs::File::options()
        .write(true)
        .open(dir.path().join("model.safetensors"))
        .expect("there")
        .set_len(40)
        .expect("shorter");
    check_line(SafetensorsDir::open(dir.path()), "truncated");
}

#[test]
fn data_of_a_file_that_shrank_is_an_error() {
    let dir = with_header(r#"{"a":{"dtype":"U8","shape":[100],"data_offsets":[0,100]}}"#, 100);
    let open = SafetensorsDir::open(dir.path()).expect("a good file");
    let file = fs::File::options().write(true).open(&open.files()[0]).expect("there");
    file.set_len(60).expect("a shorter file");
    check_line(open.data("a"), "truncated");
}

#[test]
fn broken_headers() {
    let tensor = |fields: &str| format!(r#"{{"a":{{{fields}}}}}"#);
    check_header("", 0, "its header is not valid");
    check_header("{", 0, "its header is not valid");
    check_header("[]", 0, "its header is not valid");
    check_header("{}x", 0, "its header is not valid");
    check_header("\u{0}\u{0}", 0, "its header is not valid");
    check_header(&"[".repeat(100_000), 0, "its header is not valid");
    check_header(&format!(r#"{{"a":{}"#, "[".repeat(100_000)), 0, "its header is not valid");
    check_header(r#"{"a":7}"#, 0, "its header is not valid");
    check_header(r#"{"__metadata__":{"n":7}}"#, 0, "its header is not valid");
    check_header(r#"{"__metadata__":{},"__metadata__":{}}"#, 0, "\"__metadata__\" occurs twice");
    check_header(&tensor(r#""dtype":"F32","shape":[1]"#), 4, "missing field");
    check_header(&tensor(r#""dtype":"F33","shape":[1],"data_offsets":[0,4]"#), 4, "unknown variant");
    check_header(&tensor(r#""dtype":"F32","shape":[-1],"data_offsets":[0,4]"#), 4, "invalid value");
    check_header(&tensor(r#""dtype":"F32","shape":[1.5],"data_offsets":[0,4]"#), 4, "invalid type");
    check_header(&tensor(r#""dtype":"F32","shape":[1],"data_offsets":[0]"#), 4, "invalid length");
    check_header(&tensor(r#""dtype":"F32","shape":[1],"data_offsets":[4,0]"#), 4, "not valid");
    check_header(&tensor(r#""dtype":"F32","shape":[1],"data_offsets":[4,8]"#), 8, "invalid offset");
    check_header(&tensor(r#""dtype":"F32","shape":[2],"data_offsets":[0,4]"#), 4, "invalid shape");
    check_header(&tensor(r#""dtype":"F4","shape":[3],"data_offsets":[0,2]"#), 2, "byte boundary");
    check_header(
        &tensor(r#""dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]"#),
        1,
        "9 dimensions",
    );
    let huge = u64::MAX;
    check_header(
        &tensor(&format!(r#""dtype":"F32","shape":[{huge},2],"data_offsets":[0,8]"#)),
        8,
        "overflow",
    );
    check_header(&tensor(&format!(r#""dtype":"F32","shape":[{huge}],"data_offsets":[0,8]"#)), 8, "overflow");
    check_header(&tensor(r#""dtype":"U8","shape":[9],"data_offsets":[0,9]"#), 8, "truncated");
    check_header(
        &tensor(r#""dtype":"U8","shape":[7],"data_offsets":[0,7]"#),
        8,
        "1 bytes follow its last tensor",
    );
    check_header("{}", 1, "1 bytes follow");
}

#[test]
fn equal_names() {
    let entry = |from, to| format!(r#""a":{{"dtype":"U8","shape":[1],"data_offsets":[{from},{to}]}}"#);
    let header = format!("{{{},{}}}", entry(0, 1), entry(1, 2));
    check_header(&header, 2, "\"a\" occurs twice");
    let header = format!("{{{},{}}}", entry(0, 1), entry(0, 1));
    check_header(&header, 1, "\"a\" occurs twice");
}

/// Eight tensors of 2^61 - 1 bytes each: the sum of their lengths and the header's overflows, at which the crate's own
/// reader panics where overflow is checked.
#[test]
fn lengths_that_wrap_around() {
    let one = (1u64 << 61) - 1;
    let mut entries: Vec<String> = (0..8)
        .map(|n| {
            format!(
                r#""t{n}":{{"dtype":"U8","shape":[{one}],"data_offsets":[{},{}]}}"#,
                n * one,
                (n + 1) * one
            )
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    check_header(&header, 64, "beyond all addresses");
    entries.push(format!(r#""u":{{"dtype":"U8","shape":[7],"data_offsets":[{},{}]}}"#, 8 * one, 8 * one + 7));
    check_header(&format!("{{{}}}", entries.join(",")), 64, "beyond all addresses");
}

#[test]
fn lengths_of_headers() {
    check_bytes(b"", "truncated: 0 bytes of at least 8");
    check_bytes(b"1234567", "truncated: 7 bytes of at least 8");
    check_bytes(&[&9u64.to_le_bytes()[..], b"{}"].concat(), "truncated: 10 bytes of at least 17");
    for len in [u64::MAX, 1 << 63, 100_000_001] {
        check_bytes(&len.to_le_bytes(), &format!("the header's length is {len}"));
    }
    check_bytes(b"GGUF\x03\0\0\0........", "the header's length is");
}

#[test]
fn every_prefix_is_refused() {
    let dir = folder();
    MlxWriter::tiny("llama").write(dir.path()).expect("a small model");
    let path = dir.path().join("model.safetensors");
    let len = fs::metadata(&path).expect("there").len();
    let file = fs::File::options().write(true).open(&path).expect("there");
    // Every cut through the header and many through the data, from the end.
    for len in (0..len).rev().filter(|len| *len < 3000 || len % 101 == 0) {
        file.set_len(len).expect("a shorter file");
        let error = inspect(dir.path()).expect_err("a part of a file");
        assert!(
            matches!(error, ModelFileError::Truncated { have_bytes, .. } if have_bytes == len),
            "{error}"
        );
    }
}

#[test]
fn directories_without_a_model() {
    let dir = folder();
    check_line(inspect(dir.path()), "the directory has no config.json");
    fs::write(dir.path().join("config.json"), r#"{"model_type":"llama"}"#).expect("a small file");
    check_line(inspect(dir.path()), "the directory has no model*.safetensors");
    fs::write(dir.path().join("adapters.safetensors"), "").expect("a small file");
    check_line(inspect(dir.path()), "the directory has no model*.safetensors");
    for text in ["", "[]", "{\"model_type\":", "7"] {
        fs::write(dir.path().join("config.json"), text).expect("a small file");
        check_line(inspect(dir.path()), "config.json: malformed: it is no JSON");
    }
    fs::write(dir.path().join("config.json"), "[".repeat(1 << 20)).expect("a file");
    check_line(inspect(dir.path()), "it is no JSON");
    fs::write(dir.path().join("config.json"), vec![b' '; (16 << 20) + 1]).expect("a file");
    check_line(inspect(dir.path()), "the file's length is");
}

#[test]
fn shards_are_one_model() {
    let (dir, index) = sharded();
    let whole = inspect_mlx(&MlxWriter::tiny("llama")).expect("one file");
    let info = inspect(dir.path()).expect("three shards and an index");
    assert_eq!((info.n_params, info.weight_bytes, info.files.len()), (whole.n_params, whole.weight_bytes, 3));
    fs::remove_file(index).expect("it was there");
    assert_eq!(inspect(dir.path()).expect("three shards").n_params, whole.n_params);
}

#[test]
fn a_missing_shard_is_named() {
    for with_index in [true, false] {
        for number in 1..=3 {
            let (dir, index) = sharded();
            let name = format!("model-{number:05}-of-00003.safetensors");
            fs::remove_file(dir.path().join(&name)).expect("it was there");
            if !with_index {
                fs::remove_file(index).expect("it was there");
            }
            check_line(inspect(dir.path()), &format!("the shard {name} is missing"));
        }
    }
}

#[test]
fn what_the_index_may_not_say() {
    let check = |text: &str, expected: &str| {
        let (dir, index) = sharded();
        fs::write(index, text).expect("a small file");
        check_line(inspect(dir.path()), expected);
    };
    check("", "it is no JSON");
    check("{}", "no object \"weight_map\"");
    check(r#"{"weight_map": []}"#, "no object \"weight_map\"");
    for name in [
        "7",
        "\"../secret.safetensors\"",
        "\"/etc/x.safetensors\"",
        "\"a/b.safetensors\"",
        "\"model.bin\"",
        "\"\"",
    ] {
        check(&format!(r#"{{"weight_map": {{"a": {name}}}}}"#), "no name of a safetensors file");
    }
    check(r#"{"weight_map": {"a": "other.safetensors"}}"#, "the shard other.safetensors is missing");
    let shard = "model-00001-of-00003.safetensors";
    check(&format!(r#"{{"weight_map": {{"absent": "{shard}"}}}}"#), "places the tensor \"absent\" in");
    check(
        &format!(r#"{{"weight_map": {{"model.layers.1.mlp.down_proj.weight": "{shard}"}}}}"#),
        "which does not have it",
    );
    let many: Vec<String> = (0..5000).map(|n| format!(r#""{n}":"{n}.safetensors""#)).collect();
    check(&format!(r#"{{"weight_map": {{{}}}}}"#, many.join(",")), "the number of weight files is 5000");
}

#[test]
fn stray_files() {
    // An index decides: what it does not name is not read at all.
    let (dir, index) = sharded();
    fs::write(dir.path().join("model-stray.safetensors"), "nonsense").expect("a small file");
    assert_eq!(inspect(dir.path()).expect("the index's three").files.len(), 3);
    fs::remove_file(index).expect("it was there");
    check_line(inspect(dir.path()), "model-stray.safetensors: the header's length is");
    // Without one, two files with the same tensor contradict each other.
    let dir = folder();
    MlxWriter::tiny("llama").write(dir.path()).expect("a small model");
    fs::copy(dir.path().join("model.safetensors"), dir.path().join("model2.safetensors")).expect("a copy");
    check_line(inspect(dir.path()), "model2.safetensors: malformed: the tensor \"lm_head.weight\" is in");
}

#[test]
fn older_names() {
    let mut writer = MlxWriter::tiny("llama");
    writer.shards[0].0 = "weights.00.safetensors".to_owned();
    assert_eq!(inspect_mlx(&writer).expect("a good model").files.len(), 1);
    writer.shards.push(("model.safetensors".to_owned(), Vec::new()));
    assert_eq!(inspect_mlx(&writer).expect("a good model").n_params, 0);
}

#[test]
fn impossible_numberings() {
    let mut writer = MlxWriter::tiny("llama");
    writer.shards[0].0 = "model-00001-of-99999.safetensors".to_owned();
    check_line(inspect_mlx(&writer), "the shard model-00002-of-99999.safetensors is missing");
    writer.shards[0].0 = "model-00001-of-00000.safetensors".to_owned();
    assert!(inspect_mlx(&writer).is_ok());
}
