//! llama.cpp's vocabulary as core's tokenizer.

use std::sync::Arc;

use duet_backend_gguf::load_tokenizer;
use duet_core::text::{EncodeOptions, Tokenizer};

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
