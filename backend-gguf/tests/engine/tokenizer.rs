//! llama.cpp's vocabulary as core's tokenizer.

use std::sync::Arc;

use duet_backend_gguf::load_tokenizer;
use duet_core::BackendError;
use duet_core::testing::GgufWriter;
use duet_core::text::{EncodeOptions, HfTokenizer, Tokenizer};

use crate::common::fixture;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

fn tokenizer() -> Arc<dyn Tokenizer> {
    load_tokenizer(&fixture("tiny-llama.gguf")).expect("a vocabulary")
}

fn decode(tokenizer: &dyn Tokenizer, ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|&id| tokenizer.token_bytes(id).expect("a token")).copied().collect()
}

#[test]
fn text_comes_back_byte_for_byte() {
    let tokenizer = tokenizer();
    for text in [
        "",
        " ",
        "a",
        "Hello, world!",
        "  two  spaces  ",
        "tab\tnewline\r\n\n\n",
        "naïve café — “quotes”",
        "日本語のテキスト",
        "👩‍👩‍👧‍👦 🇫🇷 é",
        "\u{0} NUL and \u{7f}",
        "mixed Ω≈ç√∫˜µ≤≥÷ 0123456789",
        "\u{10ffff}\u{fffd}",
    ] {
        let ids = tokenizer.encode(text, PLAIN).expect("encodes");
        assert_eq!(decode(tokenizer.as_ref(), &ids), text.as_bytes(), "{text:?}");
        assert!(ids.iter().all(|&id| id < tokenizer.vocab_size()));
    }
}

#[test]
fn empty_text_gives_special_tokens_at_most() {
    let tokenizer = tokenizer();
    assert!(tokenizer.encode("", PLAIN).expect("encodes").is_empty());
    let with =
        tokenizer.encode("", EncodeOptions { add_special: true, parse_special: false }).expect("encodes");
    assert_eq!(
        with,
        if tokenizer.adds_bos() { vec![tokenizer.bos().expect("it adds one")] } else { Vec::new() }
    );
}

#[test]
fn special_tokens_are_parsed_only_if_asked_for() {
    let tokenizer = tokenizer();
    let control: Vec<u32> = (0..tokenizer.vocab_size()).filter(|&id| tokenizer.is_control(id)).collect();
    assert!(!control.is_empty(), "the fixture has control tokens");
    for id in control {
        let written =
            String::from_utf8(tokenizer.token_bytes(id).expect("written form").to_vec()).expect("text");
        let text = format!("a{written}b");
        let parsed = tokenizer
            .encode(&text, EncodeOptions { add_special: false, parse_special: true })
            .expect("encodes");
        assert!(parsed.contains(&id), "{written} as a token: {parsed:?}");
        let plain = tokenizer.encode(&text, PLAIN).expect("encodes");
        assert!(!plain.contains(&id), "{written} as text: {plain:?}");
        assert_eq!(decode(tokenizer.as_ref(), &plain), text.as_bytes());
    }
}

#[test]
fn one_bos_and_no_more() {
    let tokenizer = tokenizer();
    let (Some(bos), true) = (tokenizer.bos(), tokenizer.adds_bos()) else {
        panic!("the fixture adds a BOS");
    };
    let count = |options, text: &str| {
        tokenizer.encode(text, options).expect("encodes").into_iter().filter(|&id| id == bos).count()
    };
    let written =
        String::from_utf8(tokenizer.token_bytes(bos).expect("written form").to_vec()).expect("text");
    let templated = format!("{written}Hello");
    assert_eq!(count(EncodeOptions { add_special: true, parse_special: false }, "Hello"), 1);
    // A template writes its own; core encodes it without adding another.
    assert_eq!(count(EncodeOptions { add_special: false, parse_special: true }, &templated), 1);
    assert_eq!(count(PLAIN, "Hello"), 0);
}

#[test]
fn the_tables_are_whole() {
    let tokenizer = tokenizer();
    let n = tokenizer.vocab_size();
    assert!(n > 256);
    for id in [n, n + 1, u32::MAX] {
        assert_eq!(tokenizer.token_bytes(id), None);
        assert!(!tokenizer.is_control(id));
    }
    let eog = tokenizer.end_of_generation();
    assert!(!eog.is_empty() && eog.windows(2).all(|pair| pair[0] < pair[1]), "{eog:?}");
    assert!(tokenizer.eos().is_some_and(|eos| eog.contains(&eos)));
    assert!(tokenizer.kind().ends_with("(gguf)"), "{}", tokenizer.kind());
}

/// A pre-tokenizer on `std::regex` recurses for every character of a match.
#[test]
fn long_words_do_not_overflow_the_stack() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bytes = std::fs::read(fixture("tiny-llama-tied.gguf")).expect("a fixture");
    let key = bytes.windows(18).position(|window| window == b"tokenizer.ggml.pre").expect("the key");
    let value = key + 18 + 12; // type and length of the value
    assert_eq!(&bytes[value..value + 6], b"smollm");
    bytes[value..value + 6].copy_from_slice(b"gpt-4o");
    let path = dir.path().join("gpt-4o.gguf");
    std::fs::write(&path, bytes).expect("a temporary file");
    for tokenizer in [tokenizer(), load_tokenizer(&path).expect("a vocabulary")] {
        // On a thread with as little stack as an executor's worker has.
        let worker = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
            for unit in ["a", "A", "1", " ", "\n", "!", "é", "日"] {
                for n_bytes in [1000, 1023, 1025, 100_000] {
                    let text = unit.repeat(n_bytes / unit.len());
                    let ids = tokenizer.encode(&text, PLAIN).expect("encodes");
                    assert_eq!(decode(tokenizer.as_ref(), &ids), text.as_bytes());
                }
            }
        });
        worker.expect("a thread").join().expect("no overflow");
    }
}

#[test]
fn any_thread_may_encode() {
    let tokenizer = tokenizer();
    let expected = tokenizer.encode("The same text on every thread.", PLAIN).expect("encodes");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let ids = tokenizer.encode("The same text on every thread.", PLAIN).expect("encodes");
                    assert_eq!(ids, expected);
                }
            });
        }
    });
}

/// The letters of GPT-2's byte alphabet in the order of their bytes.
fn byte_letters() -> Vec<String> {
    let mut next = (0x100..).filter_map(char::from_u32);
    (0..=u8::MAX)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => next.next().expect("letters are left"),
        })
        .map(String::from)
        .collect()
}

/// A vocabulary of all bytes and these names in both formats; of the names, those at even places are control tokens, and
/// `eos` is the one that the files give as the end.
fn in_both_formats(names: &[&str], eos: usize) -> (Arc<dyn Tokenizer>, HfTokenizer) {
    let dir = tempfile::tempdir().expect("a folder");
    let letters = byte_letters();
    let tokens: Vec<&str> = letters.iter().map(String::as_str).chain(names.iter().copied()).collect();
    let n = letters.len();
    let is_control = |place: usize| place.is_multiple_of(2);
    let types = (0..tokens.len()).map(|id| match id.checked_sub(n) {
        None => 1,
        Some(place) if is_control(place) => 3,
        Some(_) => 4, // text that is never cut
    });
    let mut file = GgufWriter::tiny("llama");
    file.set("tokenizer.ggml.pre", "gpt-2").set("tokenizer.ggml.tokens", tokens.clone());
    file.set("tokenizer.ggml.token_type", types.collect::<Vec<i32>>());
    file.set("tokenizer.ggml.merges", vec!["a b"]).set("tokenizer.ggml.add_bos_token", false);
    file.set("llama.vocab_size", tokens.len() as u32);
    file.set("tokenizer.ggml.bos_token_id", 0u32).set("tokenizer.ggml.eos_token_id", (n + eos) as u32);
    let path = dir.path().join("names.gguf");
    file.write(&path).expect("a temporary file");

    let mut vocab: serde_json::Map<String, serde_json::Value> = serde_json::Map::new();
    for (id, letter) in letters.iter().enumerate() {
        vocab.insert(letter.clone(), id.into());
    }
    let added = names.iter().enumerate().map(|(place, name)| {
        serde_json::json!({"id": n + place, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": is_control(place)})
    });
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).expect("a temporary file");
    let config = serde_json::json!({"eos_token": names[eos]}).to_string();
    std::fs::write(dir.path().join("tokenizer_config.json"), config).expect("a temporary file");
    let of_file = load_tokenizer(&path).unwrap_or_else(|error| panic!("{}", error.chain()));
    (of_file, HfTokenizer::from_model_dir(dir.path()).expect("a tokenizer"))
}

/// What ends a generation, what is shown and what plain text may contain, by llama.cpp and by core.
#[test]
fn names_mean_the_same_in_both_formats() {
    const FAMILIES: [&[&str]; 14] = [
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>"],
        &[
            "<|im_end|>",
            "<|fim_prefix|>",
            "<|fim_middle|>",
            "<|fim_suffix|>",
            "<|endoftext|>",
            "<|fim_pad|>",
            "xx",
            "<|repo_name|>",
            "yy",
            "<|file_sep|>",
        ],
        &["<|end_of_text|>", "<|eot_id|>", "<|begin_of_text|>", "<|eom_id|>", "<|python_tag|>"],
        &["<eos>", "<end_of_turn>", "<start_of_turn>", "<PAD>", "<pad>"],
        &["<|turn>", "<turn|>", "<eos>", "</s>", "xx", "<|tool_response>"],
        &["</s>", "<s>", "<|end|>", "<|user|>", "<|endoftext|>"],
        &["<|return|>", "<|end|>", "<|call|>", "<|endoftext|>"],
        &["<|return|>", "<|end|>", "<|endoftext|>"],
        &["<|calls|>", "<|end|>", "<|flush|>", "<|im_end|>"],
        &["<｜end▁of▁sentence｜>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
        &["[EOS]", "[EOT]", "[PAD]", "[BOS]", "_<EOT>", "<EOT>"],
        &["<|plamo:eos|>", "</s>", "<s>"],
        &["<end_of_utterance>", "[e~[", "<image>", "<fim-pad>"],
        &["end", "<|im_end|", "|im_end|>", "<|IM_END|>"],
    ];
    for names in FAMILIES {
        let (of_file, of_folder) = in_both_formats(names, 0);
        let named = |ids: &[u32]| ids.iter().map(|&id| names[id as usize - 256]).collect::<Vec<_>>();
        assert_eq!(named(of_folder.end_of_generation()), named(of_file.end_of_generation()));
        for (place, name) in names.iter().enumerate() {
            let id = 256 + place as u32;
            assert_eq!(of_folder.is_control(id), of_file.is_control(id), "{name} in {names:?}");
            assert_eq!(of_folder.token_bytes(id), of_file.token_bytes(id), "{name}");
            // Where it is no end, llama.cpp goes on as if nobody had added it to the vocabulary.
            if *name == "</s>" && !of_file.is_control(id) {
                continue;
            }
            let text = format!("a{name}b");
            for parse_special in [false, true] {
                let options = EncodeOptions { add_special: false, parse_special };
                let ids = of_folder.encode(&text, options).expect("encodes");
                assert_eq!(ids, of_file.encode(&text, options).expect("encodes"), "{text:?} {parse_special}");
            }
        }
    }
}

#[test]
fn two_tokens_of_one_form_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("twice.gguf");
    for (tokens, wanted) in [(vec!["a", "b", "a"], "\"a\""), (vec!["", "b", "[EMPTY_0]"], "[EMPTY_0]")] {
        let mut file = GgufWriter::tiny("llama");
        file.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.merges", vec!["a b"]);
        file.write(&path).expect("a temporary file");
        let error = load_tokenizer(&path).expect_err("llama.cpp would end the process");
        assert!(matches!(error, BackendError::LoadFailed { .. }), "{error:?}");
        assert!(error.chain().contains("written") && error.chain().contains(wanted), "{}", error.chain());
    }
}
