//! GGUF models in several files.

use super::*;
use crate::model::gguf::GgufFile;

/// The tiny model in `n` files, each edited before it is written. The first one's path.
fn split(dir: &Path, n: u16, edit: impl Fn(usize, &mut GgufWriter)) -> PathBuf {
    let whole = GgufWriter::tiny("llama");
    let path = |number: u16| dir.join(format!("tiny-{number:05}-of-{n:05}.gguf"));
    let per_shard = whole.tensors.len().div_ceil(n.into());
    for (index, tensors) in whole.tensors.chunks(per_shard).enumerate() {
        let mut shard = match index {
            0 => GgufWriter { tensors: Vec::new(), ..whole.clone() },
            _ => GgufWriter::default(),
        };
        shard.set("split.no", index as u16).set("split.count", n);
        shard.set("split.tensors.count", whole.tensors.len() as i32);
        shard.tensors = tensors.to_vec();
        edit(index, &mut shard);
        shard.write(&path(index as u16 + 1)).expect("a small file");
    }
    path(1)
}

#[track_caller]
fn check(edit: impl Fn(usize, &mut GgufWriter), expected: &str) {
    let dir = folder();
    check_line(inspect(&split(dir.path(), 3, edit)), expected);
}

#[test]
fn shards_are_one_model() {
    let dir = folder();
    let first = split(dir.path(), 3, |_, _| {});
    let info = inspect(&first).expect("three shards");
    let whole = inspect_gguf(&GgufWriter::tiny("llama")).expect("one file");
    assert_eq!((info.n_params, info.weight_bytes), (whole.n_params, whole.weight_bytes));
    assert_eq!(info.files.len(), 3);
    assert_eq!(
        info.file_bytes,
        info.files.iter().map(|file| file.metadata().expect("exists").len()).sum::<u64>()
    );
    let open = GgufFile::open(&first).expect("three shards");
    assert!(
        open.tensors().all(|tensor| open.tensor_data(tensor).expect("mapped").iter().all(|&byte| byte == 0))
    );
    assert_eq!(open.tensors().last().map(|tensor| tensor.shard), Some(2));
}

#[test]
fn a_missing_shard_is_named() {
    for number in [2, 3] {
        let dir = folder();
        let first = split(dir.path(), 3, |_, _| {});
        let name = format!("tiny-{number:05}-of-00003.gguf");
        std::fs::remove_file(dir.path().join(&name)).expect("it was there");
        check_line(inspect(&first), &format!("the shard {name} is missing"));
    }
}

#[test]
fn the_first_shard_is_the_one_to_name() {
    let dir = folder();
    split(dir.path(), 3, |_, _| {});
    check_line(
        inspect(&dir.path().join("tiny-00002-of-00003.gguf")),
        "name the first one, tiny-00001-of-00003.gguf",
    );
    let renamed = dir.path().join("renamed.gguf");
    std::fs::rename(dir.path().join("tiny-00001-of-00003.gguf"), &renamed).expect("it was there");
    check_line(inspect(&renamed), "one of 3 shards by its header, and not so by its name");
}

#[test]
fn contradictions_between_shards() {
    let nth = |n: usize, key: &'static str, value: u16| {
        move |index: usize, file: &mut GgufWriter| {
            if index == n {
                file.set(key, value);
            }
        }
    };
    check(nth(0, "split.count", 2), "one of 2 shards by its header");
    check(nth(0, "split.count", 5000), "split.count is 5000");
    check(nth(0, "split.no", 1), "name the first one");
    check(nth(1, "split.no", 2), "\"split.no\" is Some(2), not 1");
    check(nth(2, "split.count", 4), "and Some(3) in the first shard");
    check(nth(0, "split.tensors.count", 7), "\"split.tensors.count\" is 7");
    check(
        |index, file| {
            if index == 1 {
                file.unset("split.no");
            }
        },
        "\"split.no\" is None",
    );
    check(
        |index, file| {
            if index == 2 {
                file.version = 1;
            }
        },
        "version 1",
    );
    check(
        |index, file| {
            if index == 2 {
                file.tensors[0].name = b"token_embd.weight".to_vec();
            }
        },
        "two tensors are named",
    );
    check(
        |index, file| {
            if index == 2 {
                file.tensors.truncate(1);
            }
        },
        "the shards have",
    );
    check(
        |index, file| {
            if index == 1 {
                file.tensors[0].type_id = 77;
            }
        },
        "unsupported type 77",
    );
}

#[test]
fn numbers_in_a_name_alone_make_no_split_model() {
    let dir = folder();
    let path = dir.path().join("whole-00001-of-00002.gguf");
    GgufWriter::tiny("llama").write(&path).expect("a small file");
    assert_eq!(inspect(&path).expect("a whole model").files.len(), 1);
    let mut one = GgufWriter::tiny("llama");
    one.set("split.count", 1u16);
    assert!(inspect_gguf(&one).is_ok());
}
