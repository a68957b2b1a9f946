//! Small tokenizers of both great families, written by hand, and broken ones.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::{Map, Value, json};

use super::HfTokenizer;
use crate::text::{Detokenizer, EncodeOptions, TokenId, Tokenizer, TokenizerError};

const TEXTS: [&str; 8] = [
    "",
    "the cat sat on the mat",
    " leading and trailing ",
    "Grüße, 世界! 👩‍👩‍👧 \u{0} \u{7f}\u{feff}",
    "a\n\n  b\tc\r\n",
    "<s> is <|im_end|> as text <tool>",
    "▁ and Ġ as letters",
    "they're can't 1234567890",
];

/// GPT-2's manner: 256 letters, some merges, two control tokens and one visible added token.
fn byte_level() -> Value {
    let mut letters: Vec<char> =
        (0u8..=255).map(char::from).filter(|c| matches!(c, '!'..='~' | '¡'..='¬' | '®'..='ÿ')).collect();
    letters.extend((0x100..).filter_map(char::from_u32).take(68));
    let mut vocab: Map<String, Value> = Map::new();
    for letter in letters {
        vocab.insert(letter.to_string(), json!(vocab.len()));
    }
    let merges = ["Ġ t", "h e", "Ġt he", "a t", "Ġ c", "Ġc at", "Ã ¼", "à ¸"];
    for merge in merges {
        vocab.insert(merge.replace(' ', ""), json!(vocab.len()));
    }
    let n = vocab.len();
    let added = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "!"},
        "added_tokens": [
            added(n, "<s>", true), added(n + 1, "<|im_end|>", true), added(n + 2, "<tool>", false),
            added(n + 3, "    ", false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [n], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
    })
}

/// Llama 2's manner: `▁` for spaces, bytes for what has no piece, the first space dropped again.
fn sentence_piece() -> Value {
    let mut vocab: Map<String, Value> = Map::new();
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let letters = ('!'..='~').map(String::from);
    let pieces = ["▁", "▁t", "he", "▁the", "at", "▁c", "▁cat", "ü", "▁▁"].map(String::from);
    for piece in
        ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain(bytes).chain(letters).chain(pieces)
    {
        vocab.insert(piece, json!(vocab.len()));
    }
    let special = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": ["▁ t", "h e", "▁t he", "a t", "▁ c", "▁c at", "▁ ▁"]},
    })
}

fn write(dir: &Path, name: &str, value: &Value) {
    fs::write(dir.join(name), value.to_string()).expect("written");
}

fn load(tokenizer: &Value, config: &Value) -> Result<HfTokenizer, TokenizerError> {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), "tokenizer.json", tokenizer);
    write(dir.path(), "tokenizer_config.json", config);
    HfTokenizer::from_model_dir(dir.path())
}

fn options(add_special: bool, parse_special: bool) -> EncodeOptions {
    EncodeOptions { add_special, parse_special }
}

fn detokenize(tokenizer: &Arc<dyn Tokenizer>, ids: &[TokenId]) -> String {
    let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer));
    let mut text = String::new();
    for &id in ids {
        text += detokenizer.push(id);
    }
    text + detokenizer.flush()
}

#[test]
fn texts_survive_and_agree_with_the_library() {
    for file in [byte_level(), sentence_piece()] {
        let library: tokenizers::Tokenizer = file.to_string().parse().expect("it loads");
        let tokenizer: Arc<dyn Tokenizer> = Arc::new(load(&file, &json!({})).expect("it loads"));
        for text in TEXTS {
            let ids = tokenizer.encode(text, options(false, false)).expect("encoded");
            // SentencePiece cannot tell its own sign for a space from a space.
            let text = if tokenizer.strips_leading_space() { &text.replace('▁', " ") } else { text };
            assert_eq!(detokenize(&tokenizer, &ids), *text);
            let special = tokenizer.encode(text, options(false, true)).expect("encoded");
            let decoded = library.decode(&special, true).expect("decoded");
            assert_eq!(detokenize(&tokenizer, &special), decoded, "{text:?}");
        }
    }
}

/// Ids in any order, so that characters break apart in every way.
#[test]
fn any_ids_decode_as_the_library_decodes_them() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let file = byte_level();
    let library: tokenizers::Tokenizer = file.to_string().parse().expect("it loads");
    let tokenizer: Arc<dyn Tokenizer> = Arc::new(load(&file, &json!({})).expect("it loads"));
    for _ in 0..500 {
        let ids: Vec<TokenId> = (0..random.next_u32() % 12).map(|_| random.next_u32() % 300).collect();
        assert_eq!(detokenize(&tokenizer, &ids), library.decode(&ids, true).expect("decoded"), "{ids:?}");
    }
}

#[test]
fn control_tokens_in_a_text_are_read_only_if_asked() {
    let tokenizer = load(&byte_level(), &json!({})).expect("it loads");
    let end = tokenizer.vocab_size() - 3;
    let encode = |text: &str, parse| tokenizer.encode(text, options(false, parse)).expect("encoded");
    assert_eq!(encode("<|im_end|>", true), [end]);
    assert_eq!(encode("<|im_end|>", false).len(), 10);
    assert!(encode("the<|im_end|>the", true).contains(&end));
    // Added tokens that are no control tokens are part of the vocabulary either way.
    assert_eq!(encode("<tool>", true), [end + 1]);
    assert_eq!(encode("<tool>", false), [end + 1]);
    assert!(tokenizer.is_control(end) && !tokenizer.is_control(end + 1));
    assert_eq!(tokenizer.token_bytes(end), Some(&b"<|im_end|>"[..]));
    assert_eq!(tokenizer.token_bytes(end + 1), Some(&b"<tool>"[..]));
    assert_eq!(tokenizer.token_bytes(end + 2), Some(&b"    "[..]));
}

#[test]
fn truncation_and_padding_in_the_file_are_left_out() {
    let tokenizer = load(&byte_level(), &json!({})).expect("it loads");
    for parse in [false, true] {
        assert_eq!(tokenizer.encode(&"xy ".repeat(50), options(false, parse)).expect("encoded").len(), 150);
        assert_eq!(tokenizer.encode("xy", options(false, parse)).expect("encoded").len(), 2);
    }
}

#[test]
fn special_tokens_are_added_only_if_asked() {
    let tokenizer = load(&byte_level(), &json!({"bos_token": "<s>"})).expect("it loads");
    let bos = tokenizer.vocab_size() - 4;
    assert!(tokenizer.adds_bos());
    assert_eq!(tokenizer.bos(), Some(bos));
    for parse in [false, true] {
        assert_eq!(tokenizer.encode("", options(true, parse)).expect("encoded"), [bos]);
        assert!(tokenizer.encode("", options(false, parse)).expect("encoded").is_empty());
        assert_eq!(tokenizer.encode("x", options(true, parse)).expect("encoded").len(), 2);
    }
    assert!(!load(&sentence_piece(), &json!({"bos_token": "<s>"})).expect("it loads").adds_bos());
    assert!(
        !load(&byte_level(), &json!({})).expect("it loads").adds_bos(),
        "no token is known to be the first"
    );
}

#[test]
fn tokens_have_their_bytes() {
    let bytes = |tokenizer: &HfTokenizer, text: &str| {
        let ids = tokenizer.encode(text, options(false, false)).expect("encoded");
        ids.iter().map(|&id| tokenizer.token_bytes(id).expect("a token").to_vec()).collect::<Vec<_>>()
    };
    let tokenizer = load(&byte_level(), &json!({})).expect("it loads");
    assert_eq!(bytes(&tokenizer, " the ü"), [b" the".to_vec(), b" ".to_vec(), "ü".as_bytes().to_vec()]);
    assert_eq!(bytes(&tokenizer, "世"), [[0xe4], [0xb8], [0x96]]);
    assert!(!tokenizer.strips_leading_space());
    let tokenizer = load(&sentence_piece(), &json!({})).expect("it loads");
    assert_eq!(bytes(&tokenizer, "the cat"), [b" the".to_vec(), b" cat".to_vec()]);
    assert_eq!(bytes(&tokenizer, "世"), [b" ".to_vec(), vec![0xe4], vec![0xb8], vec![0x96]]);
    assert!(tokenizer.strips_leading_space());
    assert_eq!(tokenizer.token_bytes(tokenizer.vocab_size()), None);
    assert_eq!(tokenizer.token_bytes(TokenId::MAX), None);
    assert!(!tokenizer.is_control(TokenId::MAX));
}

#[test]
fn holes_in_the_vocabulary_have_no_token() {
    let mut file = byte_level();
    file["model"]["vocab"]["zz"] = json!(1000);
    let tokenizer = load(&file, &json!({})).expect("it loads");
    assert_eq!(tokenizer.vocab_size(), 1001);
    assert_eq!(tokenizer.token_bytes(1000), Some(&b"zz"[..]));
    assert_eq!(tokenizer.token_bytes(999), None);
}

#[test]
fn the_end_of_generation_comes_from_all_files() {
    #[track_caller]
    fn check(tokenizer: Value, generation: Value, model: Value, eos: Option<TokenId>, ends: &[TokenId]) {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), "tokenizer.json", &byte_level());
        write(dir.path(), "tokenizer_config.json", &tokenizer);
        write(dir.path(), "generation_config.json", &generation);
        write(dir.path(), "config.json", &model);
        let tokenizer = HfTokenizer::from_model_dir(dir.path()).expect("it loads");
        assert_eq!((tokenizer.eos(), tokenizer.end_of_generation()), (eos, ends));
    }
    let none = || json!({});
    // 264 <s>, 265 <|im_end|>, which ends a turn whatever the files say.
    check(none(), none(), none(), None, &[265]);
    check(json!({"eos_token": "<s>"}), none(), none(), Some(264), &[264, 265]);
    check(json!({"eos_token": {"content": "<s>"}}), none(), none(), Some(264), &[264, 265]);
    check(none(), none(), json!({"eos_token_id": 7}), Some(7), &[7, 265]);
    check(none(), json!({"eos_token_id": [9, 8, 9]}), json!({"eos_token_id": 7}), Some(9), &[8, 9, 265]);
    check(none(), none(), json!({"text_config": {"eos_token_id": [3]}}), Some(3), &[3, 265]);
    // Damage and strangers are passed over.
    check(json!({"eos_token": 5}), none(), none(), None, &[265]);
    check(json!({"eos_token": "<none>"}), json!({"eos_token_id": -1}), none(), None, &[265]);
    check(none(), json!({"eos_token_id": [1e20, "x", null, 99_999]}), json!([]), None, &[265]);
}

#[test]
fn decoders_without_bytes_per_token_are_refused() {
    for decoder in [
        json!(null),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true}),
        json!({"type": "Strip", "content": "x", "start": 1, "stop": 0}),
        json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": " "}),
    ] {
        let mut file = byte_level();
        file["decoder"] = decoder.clone();
        let result = load(&file, &json!({}));
        assert!(matches!(result, Err(TokenizerError::Unsupported { .. })), "{decoder} gave {result:?}");
    }
}

#[test]
fn missing_and_damaged_files_are_typed_errors() {
    let dir = tempfile::tempdir().expect("a folder");
    let load = || HfTokenizer::from_model_dir(dir.path());
    assert!(matches!(load(), Err(TokenizerError::Io { .. })));
    for text in
        ["", "{", "null", "[]", "{}", "\u{feff}{}", r#"{"model": {}}"#, r#"{"version": "1.0", "model": 1}"#]
    {
        fs::write(dir.path().join("tokenizer.json"), text).expect("written");
        assert!(matches!(load(), Err(TokenizerError::Malformed { .. })), "{text:?}");
    }
    let mut huge = byte_level();
    huge["model"]["vocab"]["zz"] = json!(u32::MAX);
    write(dir.path(), "tokenizer.json", &huge);
    assert!(matches!(load(), Err(TokenizerError::Malformed { .. })));
    let mut empty = byte_level();
    (empty["model"]["vocab"], empty["model"]["merges"], empty["added_tokens"]) =
        (json!({}), json!([]), json!([]));
    empty["post_processor"] = json!(null);
    write(dir.path(), "tokenizer.json", &empty);
    assert!(matches!(load(), Err(TokenizerError::Malformed { .. })));
    write(dir.path(), "tokenizer.json", &byte_level());
    for name in ["tokenizer_config.json", "generation_config.json", "config.json"] {
        fs::write(dir.path().join(name), "{\"eos_token_id\": ").expect("written");
        assert!(matches!(load(), Err(TokenizerError::Malformed { .. })), "{name}");
        fs::remove_file(dir.path().join(name)).expect("removed");
    }
    load().expect("whole again");
}

/// Files cut off and files with other bytes in random places: an error or a tokenizer, never a panic.
#[test]
fn broken_files_never_panic() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let mut n_loaded = 0;
    for file in [byte_level(), sentence_piece()] {
        let whole = file.to_string().into_bytes();
        for round in 0..150 {
            let mut bytes = whole.clone();
            let place = random.next_u64() as usize % bytes.len();
            if round % 3 == 0 {
                bytes.truncate(place);
            } else {
                // Mostly digits and punctuation, which change meanings rather than break the syntax.
                let alphabet = b"0123456789-{}[]\",:ntx\\\x00\xff";
                for _ in 0..1 + round % 4 {
                    let place = random.next_u64() as usize % bytes.len();
                    bytes[place] = alphabet[random.next_u64() as usize % alphabet.len()];
                }
            }
            fs::write(dir.path().join("tokenizer.json"), &bytes).expect("written");
            if let Ok(tokenizer) = HfTokenizer::from_model_dir(dir.path()) {
                n_loaded += 1;
                for text in TEXTS {
                    // Whether it still encodes depends on the damage; what it gives are tokens.
                    if let Ok(ids) = tokenizer.encode(text, options(true, true)) {
                        assert!(ids.iter().all(|&id| id < tokenizer.vocab_size()), "{ids:?}");
                    }
                }
            }
        }
    }
    assert!(n_loaded > 20, "only {n_loaded} loaded: the damage is too plain to be of interest");
}
