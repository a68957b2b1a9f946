//! The form of GGUF files: what opens, and above all what does not.

use super::*;
use crate::model::gguf::{GgmlType, GgufFile, Value};
use crate::testing::GgufValue;

#[track_caller]
fn check(edit: impl FnOnce(&mut GgufWriter), expected: &str) {
    let mut writer = GgufWriter::tiny("llama");
    edit(&mut writer);
    let (_dir, path) = gguf_file(&writer.to_bytes());
    check_line(GgufFile::open(&path), expected);
}

#[track_caller]
fn check_bytes(bytes: &[u8], expected: &str) {
    let (_dir, path) = gguf_file(bytes);
    check_line(GgufFile::open(&path), expected);
}

/// Edits the first tensor.
#[track_caller]
fn check_tensor(edit: impl FnOnce(&mut crate::testing::GgufTensor), expected: &str) {
    check(|file| edit(&mut file.tensors[0]), expected);
}

#[test]
fn what_is_no_gguf_file() {
    check_bytes(b"", "shorter than");
    check_bytes(b"GGU", "shorter than");
    check_bytes(b"tjgg\x01\0\0\0", "before GGUF");
    check_bytes(b"PK\x03\x04....", "zip archive");
    check_bytes(b"{\"model_type\": 1}", "does not begin with \"GGUF\"");
    check_bytes(&[0; 4096], "does not begin with \"GGUF\"");
    check_line(inspect(Path::new("/nowhere/m.gguf")), "no such file");
    check_line(GgufFile::open(Path::new("/")), "");
    check_line(inspect(Path::new("/dev/null")), "neither a file nor a directory");
}

#[test]
fn versions() {
    for version in [0, 1, 4, 5, u32::MAX] {
        check(|file| file.version = version, &format!("version {version} is not supported"));
    }
    for version in [1u32, 2, 3] {
        check(|file| file.version = version.swap_bytes(), "big-endian");
    }
    for version in [2, 3] {
        let mut file = GgufWriter::tiny("llama");
        file.version = version;
        let (_dir, path) = gguf_file(&file.to_bytes());
        assert_eq!(GgufFile::open(&path).expect("a supported version").version(), version);
    }
}

#[test]
fn counts() {
    for count in [1 << 63, u64::MAX, (1 << 18) + 1] {
        check(|file| file.n_tensors = Some(count), "the number of tensors is");
    }
    for count in [1 << 63, u64::MAX, (1 << 16) + 1] {
        check(|file| file.n_keys = Some(count), "the number of metadata keys is");
    }
    check(|file| file.n_tensors = Some(1 << 18), "truncated");
    check(|file| file.n_keys = Some(1 << 16), "truncated");
    // One key or tensor too few or too many: the rest is read as something else, and never as a model.
    check(|file| file.n_keys = Some(file.metadata.len() as u64 - 1), "");
    check(|file| file.n_keys = Some(file.metadata.len() as u64 + 1), "");
    check(|file| file.n_tensors = Some(file.tensors.len() as u64 + 1), "");
}

#[test]
fn keys() {
    let with_key = |key: &[u8]| {
        let entry = (key.to_vec(), GgufValue::U8(1));
        move |file: &mut GgufWriter| file.metadata.push(entry)
    };
    check(with_key(b""), "is empty");
    check(with_key(b"\xff\xfe"), "is not UTF-8");
    check(with_key(b"general.name"), "\"general.name\" occurs twice");
    check(with_key(&vec![b'k'; 65_536]), "the length of key");
    for len in [1u64 << 63, u64::MAX] {
        // The first key's length field.
        let mut bytes = GgufWriter::tiny("llama").to_bytes();
        bytes[24..32].copy_from_slice(&len.to_le_bytes());
        check_bytes(&bytes, "the length of key 0 is");
    }
}

#[test]
fn values() {
    let set = |value: GgufValue| {
        move |file: &mut GgufWriter| {
            file.set("x", value);
        }
    };
    let raw = |id, parts: &[&[u8]]| set(GgufValue::Raw(id, parts.concat()));
    let int = |n: u32| n.to_le_bytes();
    let long = |n: u64| n.to_le_bytes();
    for id in [13, 14, 255, u32::MAX] {
        check(raw(id, &[]), "unknown value type");
        check(raw(9, &[&int(id), &long(0)]), "unknown value type");
    }
    check(raw(9, &[&int(9), &long(1), &int(4), &long(1), &int(7)]), "array of arrays");
    check(set(GgufValue::Array(vec![GgufValue::Array(vec![])])), "array of arrays");
    for len in [1 << 63, u64::MAX, u64::MAX / 4, (1 << 26) + 1] {
        check(raw(9, &[&int(4), &long(len)]), "the length of the array \"x\"");
        check(raw(9, &[&int(8), &long(len)]), "the length of the array \"x\"");
    }
    check(raw(9, &[&int(4), &long(1 << 26)]), "truncated");
    check(raw(9, &[&int(8), &long(1 << 26)]), "truncated");
    for len in [1 << 63, u64::MAX, (16 << 20) + 1] {
        check(raw(8, &[&long(len)]), "the length of a string under \"x\"");
        check(raw(9, &[&int(8), &long(2), &long(1), b"a", &long(len)]), "the length of a string under \"x\"");
    }
    check(raw(8, &[&long(16 << 20)]), "truncated");
}

#[test]
fn alignments() {
    for value in [0u32, 3, 33, u32::MAX] {
        check(
            |file| {
                file.set("general.alignment", value);
            },
            "is not a power of two",
        );
    }
    check(
        |file| {
            file.set("general.alignment", "32");
        },
        "is not a power of two",
    );
    check(
        |file| {
            file.set("general.alignment", -32i32);
        },
        "is not a power of two",
    );
    check(
        |file| {
            file.set("general.alignment", 1u64 << 63);
        },
        "is not a power of two",
    );
    // Written with 32, read with another.
    check(
        |file| {
            file.set("general.alignment", 4096u32);
        },
        "is at offset",
    );
    check(
        |file| {
            file.tensors.truncate(1);
            file.set("general.alignment", 1u32 << 24);
        },
        "truncated",
    );
}

#[test]
fn tensor_entries() {
    check_tensor(|tensor| tensor.name = vec![b'n'; 64], "the length of the name of tensor 0 is 64");
    check_tensor(|tensor| tensor.name = b"\xc3\x28".to_vec(), "is not UTF-8");
    check_tensor(|tensor| tensor.name = b"output_norm.weight".to_vec(), "two tensors are named");
    check_tensor(|tensor| tensor.dims = vec![32, 1, 1, 1, 1], "has 5 dimensions");
    check_tensor(|tensor| tensor.dims = vec![33, 64], "has rows of 33, not a multiple of 32 for Q4_0");
    check_tensor(|tensor| tensor.dims = vec![], "has rows of 1, not a multiple of 32");
    for dims in [
        vec![1 << 63],
        vec![u64::MAX],
        vec![1 << 32, 1 << 32],
        vec![1 << 32, 1 << 31, 1],
        vec![32, u64::MAX, u64::MAX, u64::MAX],
        vec![0, u64::MAX],
        vec![1 << 62, 2],
    ] {
        check_tensor(|tensor| tensor.dims = dims, "has impossible dimensions");
    }
    // Within i64, but not within the file; the next one's offset is wrong besides.
    check_tensor(|tensor| tensor.dims = vec![1 << 32, 1 << 30], "is at offset");
    check(
        |file| {
            file.tensors.truncate(1);
            file.tensors[0].dims = vec![1 << 32, 1 << 30];
        },
        "truncated",
    );
}

#[test]
fn tensor_types() {
    for id in [4, 5, 31, 32, 33, 36, 37, 38] {
        check_tensor(|tensor| tensor.type_id = id, &format!("unsupported type {id} (withdrawn"));
    }
    for id in [43, 44, 1000, u32::MAX] {
        check_tensor(|tensor| tensor.type_id = id, &format!("unsupported type {id} (unknown)"));
    }
}

#[test]
fn tensor_offsets() {
    let first_bytes = 64 * 32 / 32 * 18;
    check_tensor(|tensor| tensor.offset = Some(32), "is at offset 32, not at 0");
    check_tensor(|tensor| tensor.offset = Some(u64::MAX), "is at offset");
    let second = |offset| move |file: &mut GgufWriter| file.tensors[1].offset = Some(offset);
    for offset in [0, 1, first_bytes - 32, first_bytes + 1, first_bytes + 32, 1 << 63, u64::MAX] {
        check(second(offset), &format!("is at offset {offset}, not at {first_bytes}"));
    }
    assert!(
        inspect_gguf(&{
            let mut file = GgufWriter::tiny("llama");
            second(first_bytes)(&mut file);
            file
        })
        .is_ok()
    );
}

/// Cut anywhere, the file is refused, and as truncated wherever the rest of its header is in order.
#[test]
fn every_prefix_is_refused() {
    let bytes = GgufWriter::tiny("llama").to_bytes();
    let (_dir, path) = gguf_file(&bytes);
    let file = std::fs::File::options().write(true).open(&path).expect("just written");
    // Every cut through the header and many through the data, from the end.
    for len in (0..bytes.len()).rev().filter(|len| *len < 3000 || len % 101 == 0) {
        file.set_len(len as u64).expect("a shorter file");
        match GgufFile::open(&path).expect_err("a part of a file") {
            ModelFileError::Truncated { have_bytes, need_bytes, .. } => {
                assert_eq!(have_bytes, len as u64);
                assert!(need_bytes > have_bytes && need_bytes <= bytes.len() as u64, "{need_bytes} of {len}");
            }
            ModelFileError::NotAModel { .. } => assert!(len < 4),
            other => panic!("{len} of {} bytes: {other}", bytes.len()),
        }
    }
}

#[test]
fn typed_values() {
    let mut file = GgufWriter::tiny("llama");
    file.set("u8", 200u8).set("i32", -5i32).set("f32", 1.5f32).set("f64", f64::MAX).set("nan", f32::NAN);
    file.set("bool", true)
        .set("text", "wörd")
        .set("bytes", GgufValue::String(vec![0xff]))
        .set("u64", u64::MAX);
    file.set("list", vec![3u32, 1, 2]).set("words", vec!["a", "", "ccc"]).set("none", Vec::<u32>::new());
    file.set("flag", GgufValue::Raw(7, vec![2]));
    let (_dir, path) = gguf_file(&file.to_bytes());
    let file = GgufFile::open(&path).expect("a good file");
    let meta = file.metadata();
    assert_eq!(meta.u32("u8").expect("an integer"), Some(200));
    assert_eq!(meta.u32("absent").expect("nothing"), None);
    assert_eq!(meta.u64("u64").expect("an integer"), Some(u64::MAX));
    assert_eq!(meta.f32("f32").expect("a float"), Some(1.5));
    assert_eq!(meta.f32("u8").expect("a number"), Some(200.0));
    assert_eq!(meta.str("text").expect("a string"), Some("wörd"));
    assert_eq!(meta.bool("bool").expect("a flag"), Some(true));
    assert_eq!(meta.bool("flag").expect("a flag"), Some(true));
    assert_eq!(meta.get("i32"), Some(Value::Signed(-5)));
    let array = |key: &str| meta.array(key).expect("an array").expect("present");
    assert_eq!(array("list").to_u64s(), Some(vec![3, 1, 2]));
    assert_eq!(array("list").to_bools(), None);
    assert_eq!(array("words").to_u64s(), None);
    let words: Vec<&[u8]> = array("words").strings().expect("strings").collect();
    assert_eq!(words, [&b"a"[..], b"", b"ccc"]);
    assert!(array("list").strings().is_none());
    assert!(array("none").is_empty() && array("none").iter().next().is_none());
    check_line(meta.u32("i32"), "\"i32\" is an integer, not an integer of 32 bits");
    check_line(meta.u32("u64"), "\"u64\" is an integer");
    check_line(meta.u32("text"), "\"text\" is a string");
    check_line(meta.f32("nan"), "not a finite number");
    check_line(meta.f32("f64"), "not a finite number");
    check_line(meta.str("bytes"), "not a string of UTF-8");
    check_line(meta.str("list"), "\"list\" is an array");
    check_line(meta.bool("u8"), "not a boolean");
    check_line(meta.array("u8"), "not an array");
    check_line(meta.require_u32("absent"), "\"absent\" is missing");
    check_line(meta.require_str("absent"), "\"absent\" is missing");
}

#[test]
fn tensor_data_is_what_was_written() {
    let mut file = GgufWriter { alignment: 64, ..GgufWriter::default() };
    file.set("general.alignment", 64u32).set("general.architecture", "llama");
    let data = |n: u8, len: usize| (0..len).map(|i| i as u8 ^ n).collect::<Vec<_>>();
    file.tensor("a", &[3], GgmlType::F32, data(1, 12));
    file.tensor("empty", &[0, 7], GgmlType::F32, Vec::new());
    file.tensor("b", &[32, 2], GgmlType::Q4_1, data(2, 40));
    file.tensor("scalar", &[], GgmlType::F64, data(3, 8));
    let (_dir, path) = gguf_file(&file.to_bytes());
    let open = GgufFile::open(&path).expect("a good file");
    for (written, tensor) in file.tensors.iter().zip(open.tensors()) {
        assert_eq!(open.tensor_data(tensor).expect("mapped"), written.data);
        assert_eq!(tensor.offset % 64, 0);
    }
    let b = open.require("b").expect("present");
    assert_eq!((b.n_elements(), b.row_len(), b.n_bytes, b.ggml_type), (64, 32, 40, GgmlType::Q4_1));
    assert_eq!(open.require("scalar").expect("present").n_elements(), 1);
    assert_eq!(open.require("empty").expect("present").n_elements(), 0);
    check_line(open.require("c"), "there is no tensor \"c\"");
    let mut foreign = b.clone();
    foreign.n_bytes = 1 << 40;
    check_line(open.tensor_data(&foreign), "there is no tensor \"b\"");
    foreign.shard = 9;
    check_line(open.tensor_data(&foreign), "there is no tensor \"b\"");
}

#[test]
fn data_of_a_file_that_shrank_is_an_error() {
    let (_dir, path) = gguf_file(&GgufWriter::tiny("llama").to_bytes());
    let open = GgufFile::open(&path).expect("a good file");
    let last = open.tensors().last().expect("tensors");
    let file = std::fs::File::options().write(true).open(&path).expect("just written");
    file.set_len(last.offset).expect("a shorter file");
    check_line(open.tensor_data(last), "truncated");
}

#[test]
fn types_have_their_sizes() {
    let bits = [
        (GgmlType::MXFP4, 4.25),
        (GgmlType::NVFP4, 4.5),
        (GgmlType::Q4_0, 4.5),
        (GgmlType::Q4_1, 5.0),
        (GgmlType::Q8_0, 8.5),
        (GgmlType::Q2_K, 2.625),
        (GgmlType::Q3_K, 3.4375),
        (GgmlType::Q4_K, 4.5),
        (GgmlType::Q5_K, 5.5),
        (GgmlType::Q6_K, 6.5625),
        (GgmlType::IQ1_S, 1.5625),
        (GgmlType::IQ1_M, 1.75),
        (GgmlType::IQ2_XXS, 2.0625),
        (GgmlType::IQ4_XS, 4.25),
        (GgmlType::TQ1_0, 1.6875),
        (GgmlType::TQ2_0, 2.0625),
        (GgmlType::BF16, 16.0),
        (GgmlType::F64, 64.0),
    ];
    for (ty, bits) in bits {
        assert_eq!(ty.bits_per_weight(), bits, "{ty}");
    }
    let mut ids: Vec<u32> = GgmlType::all().map(GgmlType::id).collect();
    assert!(GgmlType::all().all(|ty| GgmlType::from_id(ty.id()) == Some(ty)));
    ids.dedup();
    assert_eq!(ids.len(), 35);
    assert!(ids.is_sorted() && ids.last() == Some(&42));
    assert_eq!(GgmlType::Q4_K.bytes_for(257), None);
    assert_eq!(GgmlType::F64.bytes_for(u64::MAX), None);
    assert_eq!(GgmlType::Q4_K.bytes_for(512), Some(288));
}
