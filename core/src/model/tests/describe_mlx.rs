//! From config.json and safetensors headers to a description.

use serde_json::{Value, json};

use super::*;
use crate::model::{GenerationDefaults, ModelFormat, TokenizerKind};

/// The tiny model of this family with these fields of config.json replaced (null: removed).
fn family(model_type: &str, fields: Value) -> Result<ModelInfo, ModelFileError> {
    let mut writer = MlxWriter::tiny(model_type);
    for (key, value) in fields.as_object().expect("an object") {
        writer.set(key, value.clone());
    }
    inspect_mlx(&writer)
}

#[track_caller]
fn check(fields: Value, expected: &str) {
    check_line(family("llama", fields), expected);
}

fn with_file(name: &str, text: &str) -> Result<ModelInfo, ModelFileError> {
    let mut writer = MlxWriter::tiny("llama");
    writer.others.push((name.to_owned(), text.as_bytes().to_vec()));
    inspect_mlx(&writer)
}

#[test]
fn a_plain_model() {
    let info = inspect_mlx(&MlxWriter::tiny("llama")).expect("a good model");
    assert_eq!(info.format, ModelFormat::MlxDirectory);
    let n_params = 2 * 64 * 32 + 64 + 2 * (2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128);
    assert_eq!((info.n_params, info.weight_bytes), (n_params, n_params * 2));
    assert_eq!((info.quantization.as_str(), info.bits_per_weight), ("BF16", 16.0));
    assert_eq!((info.context_length, info.n_layers, info.hidden_size), (2048, 2, 64));
    assert_eq!((info.n_heads, info.n_kv_heads, info.head_dim_k, info.head_dim_v), (4, 2, 16, 16));
    assert_eq!((info.vocab_size, info.tied_embeddings), (32, false));
    assert_eq!((info.bos_token_id, info.eos_token_ids), (Some(1), vec![2]));
    assert_eq!(info.tokenizer, TokenizerKind::HuggingFace);
    assert_eq!((info.rope.freq_base, info.rope.n_rot), (10_000.0, 16));
    assert_eq!(info.window, WindowPattern::Full);
    assert_eq!((info.split.embedding_params, info.split.embedding_bytes), (64 * 32, 64 * 64));
    assert_eq!(info.files.len(), 1);
    assert!(info.file_bytes > info.weight_bytes);
}

#[test]
fn packed_weights_are_counted_as_values() {
    let dense = inspect_mlx(&MlxWriter::tiny("llama")).expect("a good model");
    for (group_size, bits, label) in [
        (32, 4, "affine 4-bit g32"),
        (64, 4, "affine 4-bit g64"),
        (64, 8, "affine 8-bit g64"),
        (32, 6, "affine 6-bit g32"),
    ] {
        let info = inspect_mlx(MlxWriter::tiny("llama").quantize(group_size, bits)).expect("a good model");
        assert_eq!(info.n_params, dense.n_params);
        assert_eq!(info.quantization, label);
        let norms = 64 + 4 * 64;
        let packed = (dense.n_params - norms) as f64 * (bits as f64 + 32.0 / group_size as f64);
        assert_eq!(info.bits_per_weight, (packed + norms as f64 * 16.0) / dense.n_params as f64);
        let embedding = 64 * 32 * bits as u64 / 8 + 2 * 2 * 64 * 32 / group_size as u64;
        assert_eq!((info.split.embedding_params, info.split.embedding_bytes), (64 * 32, embedding));
    }
}

#[test]
fn shapes_win_over_config() {
    let mut writer = MlxWriter::tiny("llama");
    writer.quantize(32, 4).set("quantization", json!({ "group_size": 32, "bits": 8 }));
    assert_eq!(inspect_mlx(&writer).expect("a good model").quantization, "affine 4-bit g32");
    // A group size that the shapes rule out, and none at all.
    writer.set("quantization", json!({ "group_size": 128, "bits": 8 }));
    let info = inspect_mlx(&writer).expect("a good model");
    let norms = 64 + 4 * 64;
    let dense = inspect_mlx(&MlxWriter::tiny("llama")).expect("a good model");
    // Groups of 64 at 2 bits: the next possibility, and twice as many values as were packed.
    assert_eq!(info.n_params, (dense.n_params - norms) * 2 + norms);
    writer.set("quantization", Value::Null);
    assert!(inspect_mlx(&writer).is_ok());
    let mut mixed = MlxWriter::tiny("llama");
    mixed.quantize(32, 4);
    let head = mixed.shards[0].1.iter_mut().find(|(name, ..)| name == "lm_head.weight").expect("a head");
    head.2[1] *= 2;
    mixed.config["quantization"]["lm_head"] = json!({ "group_size": 32, "bits": 8 });
    assert_eq!(inspect_mlx(&mixed).expect("a good model").quantization, "affine 4-bit g32 (mixed)");
}

#[test]
fn words_without_their_scales() {
    let broken = |edit: fn(&mut Vec<usize>, &mut crate::model::safetensors::Dtype)| {
        let mut writer = MlxWriter::tiny("llama");
        writer.quantize(32, 4);
        let words =
            writer.shards[0].1.iter_mut().find(|(name, ..)| name == "lm_head.weight").expect("a head");
        edit(&mut words.2, &mut words.1);
        check_line(inspect_mlx(&writer), "the words and scales of \"lm_head\" do not belong together");
    };
    broken(|shape, _| shape[0] += 1);
    broken(|shape, _| shape[1] = 7);
    broken(|shape, _| shape.push(1));
    broken(|_, dtype| *dtype = crate::model::safetensors::Dtype::F32);
}

#[test]
fn other_libraries_quantisation_goes_by_its_name() {
    let label = |config: Value| {
        family("llama", json!({ "quantization_config": config })).expect("a good model").quantization
    };
    assert_eq!(label(json!({ "quant_method": "AWQ", "bits": 4 })), "awq 4-bit");
    assert_eq!(label(json!({ "quant_method": "fp8" })), "fp8");
    assert_eq!(label(json!({ "quant_method": "compressed-tensors", "bits": "x" })), "compressed-tensors");
}

#[test]
fn window_patterns() {
    let six = |fields: Value| {
        let mut all = json!({ "num_hidden_layers": 6, "sliding_window": 512 });
        all.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        all
    };
    let of = |model_type: &str, fields| pattern(&family(model_type, six(fields)).expect("a good model"));
    assert_eq!(of("gemma3_text", json!({})), "wwwww.");
    assert_eq!(of("gemma3_text", json!({ "sliding_window_pattern": 3 })), "ww.ww.");
    assert_eq!(of("gemma3_text", json!({ "_sliding_window_pattern": 2 })), "w.w.w.");
    assert_eq!(of("gpt_oss", json!({})), "w.w.w.");
    assert_eq!(of("cohere2", json!({ "sliding_window_pattern": 4 })), "www.ww");
    let types = |letters: &str| {
        let names = letters.chars().map(|c| if c == 'w' { "sliding_attention" } else { "full_attention" });
        json!({ "layer_types": names.collect::<Vec<_>>() })
    };
    assert_eq!(of("gpt_oss", types("ww..w.")), "ww..w.");
    assert_eq!(of("olmo3", types("www.ww")), "www.ww");
    // A window that neither engine honours.
    for model_type in ["qwen2", "qwen3", "mistral", "phi3", "llama"] {
        assert_eq!(of(model_type, json!({ "use_sliding_window": false })), "......");
        assert_eq!(of(model_type, types("......")), "......");
    }
    assert_eq!(of("gemma3_text", json!({ "sliding_window": 0 })), "......");
    let chunked = json!({ "attention_chunk_size": 8192, "sliding_window": null });
    assert_eq!(family("llama4_text", chunked).expect("a good model").layers[0].window, Some(8192));
}

#[test]
fn published_configs_that_leave_much_out() {
    let text = json!({
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": { "factor": 8.0, "rope_type": "linear" }, "sliding_window": 1024,
    });
    let mut writer = MlxWriter::tiny("gemma3");
    writer.config =
        json!({ "model_type": "gemma3", "text_config": text, "eos_token_id": [1, 106], "vision_config": {} });
    let info = inspect_mlx(&writer).expect("the form of Gemma 3 4B");
    assert_eq!(info.architecture, "gemma3_text");
    assert_eq!((info.n_heads, info.n_kv_heads, info.head_dim_k), (8, 4, 256));
    assert_eq!(info.window, WindowPattern::Sliding { window: 1024, n_windowed: 29, n_full: 5 });
    assert_eq!((info.context_length, info.vocab_size), (131_072, 262_208));
    assert_eq!(info.eos_token_ids, [1, 106]);
    assert_eq!(info.rope.scaling.as_ref().map(|scaling| scaling.kind.as_str()), Some("linear"));
    let mut oss = MlxWriter::tiny("gpt_oss");
    oss.set("num_hidden_layers", 24).set("num_attention_heads", 64).set("num_key_value_heads", 8);
    oss.set("hidden_size", 2880).set("head_dim", Value::Null).set("num_local_experts", 32);
    oss.set("num_experts_per_tok", 4).set("max_position_embeddings", 131_072).set("sliding_window", 128);
    let info = inspect_mlx(&oss).expect("the form of GPT-OSS 20B");
    assert_eq!(crate::model::kv_bytes(&info, 131_072, crate::model::KvType::F16), Ok(3_224_371_200));
    assert_eq!((info.n_experts, info.n_experts_used), (32, 4));
}

#[test]
fn nested_fields_come_first() {
    let fields = json!({ "text_config": { "num_hidden_layers": 3, "vocab_size": 99, "model_type": "qwen3" }, "num_hidden_layers": 2 });
    let info = family("wrapper", fields).expect("a good model");
    assert_eq!((info.n_layers, info.vocab_size, info.hidden_size), (3, 99, 64));
    assert_eq!(info.architecture, "qwen3");
}

#[test]
fn caches_of_another_kind() {
    let kinds =
        |fields| family("x", fields).expect("a good model").layers.iter().map(|l| l.kind).collect::<Vec<_>>();
    use LayerKind::*;
    assert_eq!(kinds(json!({ "kv_lora_rank": 512 })), [Latent; 2]);
    assert_eq!(kinds(json!({ "kv_lora_rank": null })), [Attention; 2]);
    assert_eq!(
        kinds(json!({ "layer_types": ["linear_attention", "full_attention"] })),
        [Recurrent, Attention]
    );
    assert_eq!(kinds(json!({ "layer_types": ["conv", "full_attention"] })), [Recurrent, Attention]);
    assert_eq!(
        kinds(json!({ "linear_conv_kernel_dim": 4, "full_attention_interval": 2 })),
        [Recurrent, Attention]
    );
    assert_eq!(kinds(json!({ "mamba_d_state": 16 })), [Recurrent; 2]);
    assert_eq!(kinds(json!({ "num_kv_shared_layers": 1 })), [Attention, SharedKv]);
    assert_eq!(kinds(json!({ "num_kv_shared_layers": 99 })), [SharedKv; 2]);
}

#[test]
fn ends_of_generation_and_sampling() {
    let text = r#"{"eos_token_id": [7, 3, 7], "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1,
        "repetition_penalty": 1.05, "do_sample": true}"#;
    let info = with_file("generation_config.json", text).expect("a good model");
    assert_eq!(info.eos_token_ids, [3, 7]);
    let defaults = info.generation_defaults;
    assert_eq!((defaults.temperature, defaults.top_p, defaults.top_k), (Some(0.6), Some(0.95), Some(20)));
    assert_eq!((defaults.min_p, defaults.repetition_penalty), (Some(0.1), Some(1.05)));
    let silent = with_file("generation_config.json", r#"{"do_sample": false, "eos_token_id": null}"#);
    let silent = silent.expect("a good model");
    assert_eq!((silent.eos_token_ids, silent.generation_defaults), (vec![2], GenerationDefaults::default()));
    let odd = with_file("generation_config.json", r#"{"temperature": "hot", "top_k": -1, "top_p": 1e999}"#);
    // 1e999 is no number in JSON's grammar as serde_json reads it.
    check_line(odd, "it is no JSON");
    let odd = with_file("generation_config.json", r#"{"temperature": "hot", "top_k": -1, "top_p": null}"#);
    assert_eq!(odd.expect("a good model").generation_defaults, GenerationDefaults::default());
    for text in [r#"{"eos_token_id": "</s>"}"#, r#"{"eos_token_id": [1, -1]}"#, r#"{"eos_token_id": 1e10}"#] {
        check_line(with_file("generation_config.json", text), "no token id or list of them");
    }
    for text in ["", "[]", "{", "\u{feff}{}", "null"] {
        check_line(
            with_file("generation_config.json", text),
            "generation_config.json: malformed: it is no JSON",
        );
    }
}

#[test]
fn templates() {
    let template = |name: &str, text: &str| with_file(name, text).expect("a good model").chat_template;
    assert_eq!(template("chat_template.jinja", "{{ a }}").as_deref(), Some("{{ a }}"));
    assert_eq!(template("chat_template.json", r#"{"chat_template": "b"}"#).as_deref(), Some("b"));
    assert_eq!(template("tokenizer_config.json", r#"{"chat_template": "c"}"#).as_deref(), Some("c"));
    let named =
        r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    assert_eq!(template("tokenizer_config.json", named).as_deref(), Some("d"));
    for without in [
        "{}",
        r#"{"chat_template": 7}"#,
        r#"{"chat_template": []}"#,
        r#"{"chat_template": [7, {"name": 3}]}"#,
    ] {
        assert_eq!(template("tokenizer_config.json", without), None);
    }
    check_line(with_file("tokenizer_config.json", "nope"), "it is no JSON");
    check_line(with_file("chat_template.jinja", &"x".repeat((4 << 20) + 1)), "the file's length is");
    let mut latin = MlxWriter::tiny("llama");
    latin.others.push(("chat_template.jinja".to_owned(), vec![0xe9]));
    check_line(inspect_mlx(&latin), "it is not UTF-8");
}

#[test]
fn rope_in_its_spellings() {
    let rope = |fields| family("llama", fields).expect("a good model").rope;
    let llama3 = rope(
        json!({ "rope_scaling": { "rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8192 } }),
    );
    let scaling = llama3.scaling.expect("stated");
    assert_eq!(
        (scaling.kind.as_str(), scaling.factor, scaling.original_context_length),
        ("llama3", Some(32.0), Some(8192))
    );
    assert_eq!(
        rope(json!({ "rope_scaling": { "type": "yarn", "factor": 4 } })).scaling.expect("stated").kind,
        "yarn"
    );
    assert_eq!(rope(json!({ "rope_scaling": null })).scaling, None);
    assert_eq!(rope(json!({ "rope_scaling": { "rope_type": "default" } })).scaling, None);
    let new = rope(
        json!({ "rope_theta": null, "rope_parameters": { "rope_theta": 5e5, "rope_type": "yarn", "factor": 2.0 } }),
    );
    assert_eq!((new.freq_base, new.scaling.expect("stated").factor), (5e5, Some(2.0)));
    let by_type = json!({ "rope_theta": null, "rope_parameters": {
        "full_attention": { "rope_theta": 1e6, "rope_type": "linear", "factor": 8.0 },
        "sliding_attention": { "rope_theta": 1e4, "rope_type": "default" } } });
    let gemma = rope(by_type);
    assert_eq!((gemma.freq_base, gemma.freq_base_window), (1e6, Some(1e4)));
    assert_eq!(rope(json!({ "partial_rotary_factor": 0.5 })).n_rot, 8);
    check(json!({ "rope_scaling": "yarn" }), "\"rope_scaling\" is not an object");
    check(json!({ "rope_theta": "big" }), "\"rope_theta\" is not a finite number");
}

#[test]
fn tied_heads() {
    let mut writer = MlxWriter::tiny("llama");
    writer.set("tie_word_embeddings", Value::Null);
    assert!(!inspect_mlx(&writer).expect("a good model").tied_embeddings);
    writer.shards[0].1.retain(|(name, ..)| name != "lm_head.weight");
    assert!(inspect_mlx(&writer).expect("a good model").tied_embeddings);
    writer.set("tie_word_embeddings", "yes");
    check_line(inspect_mlx(&writer), "\"tie_word_embeddings\" is not a boolean");
}

#[test]
fn fields_missing_or_of_the_wrong_type() {
    for key in
        ["model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "max_position_embeddings"]
    {
        check(json!({ (key): null }), &format!("the field {key:?} is missing"));
        for wrong in [json!([]), json!({}), json!(true), json!(-1), json!(1.5), json!(1e300)] {
            check(json!({ (key): wrong }), &format!("the field {key:?} is not"));
        }
    }
    for key in
        ["head_dim", "num_key_value_heads", "vocab_size", "sliding_window", "kv_lora_rank", "num_experts"]
    {
        for wrong in [json!("8"), json!(-1), json!(u64::MAX)] {
            check(json!({ (key): wrong }), &format!("the field {key:?} is not an integer of 32 bits"));
        }
    }
    check(json!({ "num_hidden_layers": 0 }), "it has no layers");
    check(json!({ "num_hidden_layers": u32::MAX }), "num_hidden_layers is 4294967295");
    check(json!({ "num_key_value_heads": 0 }), "no number or no size");
    check(
        json!({ "num_attention_heads": 0, "head_dim": null, "num_key_value_heads": 1 }),
        "no number or no size",
    );
    check(json!({ "layer_types": ["full_attention"] }), "no list of 2 names");
    check(json!({ "layer_types": [1, 2] }), "no list of 2 names");
    check(json!({ "layer_types": ["sliding_attention", "full_attention"] }), "no \"sliding_window\"");
    check(json!({ "layer_types": ["chunked_attention", "full_attention"] }), "no \"attention_chunk_size\"");
}
