//! From GGUF metadata to a description.

use super::*;
use crate::model::gguf::GgmlType;
use crate::model::{GenerationDefaults, ModelFormat, TokenizerKind};
use crate::testing::GgufValue;

#[track_caller]
fn check(edit: impl FnOnce(&mut GgufWriter), expected: &str) {
    let mut file = GgufWriter::tiny("llama");
    edit(&mut file);
    check_line(inspect_gguf(&file), expected);
}

#[test]
fn a_plain_model() {
    let file = GgufWriter::tiny("llama");
    let info = inspect_gguf(&file).expect("a good file");
    assert_eq!(info.format, ModelFormat::Gguf);
    assert_eq!((info.name.as_deref(), info.architecture.as_str()), (Some("Tiny"), "llama"));
    let n_params = 64 * 32 + 64 + 2 * (2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128);
    assert_eq!(info.n_params, n_params);
    let dense = 64 + 4 * 64;
    assert_eq!(info.weight_bytes, (n_params - dense) / 32 * 18 + dense * 4);
    assert!(info.bits_per_weight > 4.5 && info.bits_per_weight < 4.7);
    assert_eq!(info.quantization, "Q4_0");
    assert_eq!((info.context_length, info.n_layers, info.hidden_size), (2048, 2, 64));
    assert_eq!((info.n_heads, info.n_kv_heads, info.head_dim_k, info.head_dim_v), (4, 2, 16, 16));
    assert_eq!(info.intermediate_size, 128);
    assert_eq!(info.layers, [LayerInfo { n_heads: 4, ..layer(2, 16, None) }; 2]);
    assert_eq!(info.window, WindowPattern::Full);
    assert_eq!((info.vocab_size, info.tied_embeddings), (32, true));
    assert_eq!((info.bos_token_id, info.eos_token_ids), (Some(1), vec![2]));
    assert_eq!(info.tokenizer, TokenizerKind::Gguf { model: "gpt2".to_owned(), pre: None });
    assert_eq!((info.rope.freq_base, info.rope.n_rot, info.rope.scaling), (10_000.0, 16, None));
    assert_eq!((info.split.embedding_params, info.split.embedding_bytes), (64 * 32, 64 * 18));
    assert_eq!(info.generation_defaults, GenerationDefaults::default());
    assert_eq!(info.file_bytes, file.to_bytes().len() as u64);
    assert_eq!(info.chat_template, None);
}

#[test]
fn what_metadata_adds() {
    let info = family("llama", 2, |file| {
        file.set("tokenizer.chat_template", "{{ x }}").set("tokenizer.ggml.pre", "smollm");
        file.set("tokenizer.ggml.eot_token_id", 9u32).set("tokenizer.ggml.eom_token_id", 2u32);
        file.set("general.sampling.temp", 0.6f32).set("general.sampling.top_p", 0.95f32);
        file.set("general.sampling.top_k", 20i32).set("general.sampling.min_p", 0.0f32);
        file.set("general.sampling.penalty_repeat", 1.1f32);
        file.set("llama.rope.scaling.type", "yarn").set("llama.rope.scaling.factor", 4.0f32);
        file.set("llama.rope.scaling.original_context_length", 512u32).set("llama.rope.freq_base", 1e6f32);
        file.set("llama.expert_count", 8u32).set("llama.expert_used_count", 2u32);
        file.zeros("output.weight", &[64, 32], GgmlType::F16);
        file.zeros("blk.0.ffn_gate_exps.weight", &[64, 128, 16], GgmlType::MXFP4);
    });
    assert_eq!(info.chat_template.as_deref(), Some("{{ x }}"));
    assert_eq!(info.eos_token_ids, [2, 9]);
    let defaults = info.generation_defaults;
    assert_eq!((defaults.temperature, defaults.top_p, defaults.top_k), (Some(0.6), Some(0.95), Some(20)));
    assert_eq!((defaults.min_p, defaults.repetition_penalty), (Some(0.0), Some(1.1)));
    let scaling = info.rope.scaling.as_ref().expect("stated");
    assert_eq!(
        (scaling.kind.as_str(), scaling.factor, scaling.original_context_length),
        ("yarn", Some(4.0), Some(512))
    );
    assert!(!info.tied_embeddings && info.is_moe());
    assert_eq!((info.n_experts, info.n_experts_used), (8, 2));
    assert_eq!((info.split.expert_params, info.split.expert_bytes), (64 * 128 * 16, 64 * 128 * 16 / 32 * 17));
    assert_eq!(info.quantization, "MXFP4");
}

#[test]
fn sampling_advice_of_the_wrong_type_is_ignored() {
    let info = family("llama", 2, |file| {
        file.set("general.sampling.temp", "hot").set("general.sampling.top_k", -1i32);
    });
    assert_eq!(info.generation_defaults, GenerationDefaults::default());
}

#[test]
fn rope_factors_count_as_scaling() {
    let info = family("llama", 2, |file| {
        file.zeros("rope_freqs.weight", &[8], GgmlType::F32);
    });
    assert_eq!(info.rope.scaling.expect("factors").kind, "factors");
}

#[test]
fn labels() {
    let with = |file_type: u32, ty| {
        family("llama", 2, |file| {
            file.set("general.file_type", file_type).zeros("big", &[256, 4096], ty);
        })
        .quantization
    };
    assert_eq!(with(15, GgmlType::Q4_K), "Q4_K_M");
    assert_eq!(with(14, GgmlType::Q4_K), "Q4_K_S");
    assert_eq!(with(18, GgmlType::Q6_K), "Q6_K");
    assert_eq!(with(0, GgmlType::F32), "F32");
    assert_eq!(with(32, GgmlType::BF16), "BF16");
    // The tensors are right where the stated mixture is not built on them.
    assert_eq!(with(15, GgmlType::Q5_K), "Q5_K");
    assert_eq!(with(9999, GgmlType::IQ4_XS), "IQ4_XS");
    assert_eq!(with(38, GgmlType::MXFP4), "MXFP4");
}

#[test]
fn layers_that_differ() {
    let info = family("deci", 3, |file| {
        file.set("deci.attention.head_count", vec![8u32, 0, 4]);
        file.set("deci.attention.head_count_kv", vec![2u32, 0, 4]);
        file.set("deci.attention.key_length", 24u32).set("deci.attention.value_length", 8u32);
    });
    assert_eq!(info.layers.iter().map(|layer| layer.n_kv_heads).collect::<Vec<_>>(), [2, 0, 4]);
    assert_eq!(info.layers[1].kind, LayerKind::Stateless);
    assert_eq!((info.n_heads, info.n_kv_heads, info.head_dim_k, info.head_dim_v), (8, 4, 24, 8));
    let info = family("gemma4", 2, |file| {
        file.set("gemma4.attention.sliding_window", 512u32);
        file.set("gemma4.attention.sliding_window_pattern", vec![true, false]);
        file.set("gemma4.attention.key_length", 64u32).set("gemma4.attention.key_length_swa", 32u32);
        file.set("gemma4.attention.value_length", 64u32).set("gemma4.attention.value_length_swa", 16u32);
        file.set("gemma4.attention.shared_kv_layers", 1u32);
    });
    assert_eq!(
        info.layers.iter().map(|layer| (layer.head_dim_k, layer.head_dim_v)).collect::<Vec<_>>(),
        [(32, 16), (64, 64)]
    );
    assert_eq!([info.layers[0].kind, info.layers[1].kind], [LayerKind::Attention, LayerKind::SharedKv]);
}

#[test]
fn caches_of_another_kind() {
    let kinds = |info: &ModelInfo| info.layers.iter().map(|layer| layer.kind).collect::<Vec<_>>();
    let latent = family("deepseek2", 2, |file| {
        file.set("deepseek2.attention.kv_lora_rank", 512u32);
    });
    assert_eq!(kinds(&latent), [LayerKind::Latent; 2]);
    let mamba = family("mamba", 2, |file| {
        file.set("mamba.ssm.state_size", 16u32).unset("mamba.attention.head_count");
        file.unset("mamba.attention.head_count_kv");
    });
    assert_eq!(kinds(&mamba), [LayerKind::Recurrent; 2]);
    let hybrid = family("qwen35", 4, |file| {
        file.set("qwen35.ssm.state_size", 128u32).set("qwen35.full_attention_interval", 4u32);
    });
    assert_eq!(
        kinds(&hybrid),
        [LayerKind::Recurrent, LayerKind::Recurrent, LayerKind::Recurrent, LayerKind::Attention]
    );
    let listed = family("lfm2", 2, |file| {
        file.set("lfm2.shortconv.l_cache", 3u32).set("lfm2.attention.recurrent_layers", vec![true, false]);
    });
    assert_eq!(kinds(&listed), [LayerKind::Recurrent, LayerKind::Attention]);
    // gemma3n's number of layers with caches of their own is in llama.cpp's code.
    let gemma3n = family("gemma3n", 30, |_| {});
    assert_eq!(gemma3n.layers.iter().filter(|layer| layer.kind == LayerKind::Attention).count(), 20);
    let with_mtp = family("glm4moe", 5, |file| {
        file.set("glm4moe.nextn_predict_layers", 1u32);
    });
    assert_eq!(with_mtp.n_layers, 4);
}

#[test]
fn missing_keys() {
    for key in ["general.architecture", "llama.block_count", "llama.embedding_length", "llama.context_length"]
    {
        check(
            |file| {
                file.unset(key);
            },
            &format!("the key {key:?} is missing"),
        );
    }
}

#[test]
fn keys_of_the_wrong_type() {
    for key in [
        "llama.block_count",
        "llama.embedding_length",
        "llama.context_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
        "llama.attention.sliding_window",
        "llama.rope.freq_base",
        "llama.expert_count",
        "llama.nextn_predict_layers",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
    ] {
        check(
            |file| {
                file.set(key, "many");
            },
            &format!("{key:?} is a string"),
        );
        if key != "llama.rope.freq_base" {
            check(
                |file| {
                    file.set(key, GgufValue::I32(-1));
                },
                &format!("{key:?} is an integer, not"),
            );
        }
        check(
            |file| {
                file.set(key, vec!["a", "b"]);
            },
            &format!("the key {key:?} is"),
        );
    }
    for key in ["general.architecture", "general.name", "tokenizer.chat_template", "tokenizer.ggml.model"] {
        check(
            |file| {
                file.set(key, 7u32);
            },
            &format!("{key:?} is an integer, not a string"),
        );
        check(
            |file| {
                file.set(key, GgufValue::String(vec![0xff]));
            },
            "not a string of UTF-8",
        );
    }
    check(
        |file| {
            file.set("tokenizer.ggml.tokens", 7u32);
        },
        "not an array",
    );
}

#[test]
fn values_that_no_model_has() {
    check(
        |file| {
            file.set("llama.block_count", 0u32);
        },
        "it has no layers",
    );
    check(
        |file| {
            file.set("llama.nextn_predict_layers", 2u32);
        },
        "it has no layers",
    );
    check(
        |file| {
            file.set("llama.nextn_predict_layers", u32::MAX);
        },
        "it has no layers",
    );
    for n in [513, 1 << 20, u32::MAX] {
        check(
            |file| {
                file.set("llama.block_count", n);
            },
            "the number of layers is",
        );
    }
    check(
        |file| {
            file.set("llama.block_count", 1u64 << 40);
        },
        "not an integer of 32 bits",
    );
    check(
        |file| {
            file.set("llama.attention.head_count", 0u32);
        },
        "attention heads have no size",
    );
    check(
        |file| {
            file.set("llama.embedding_length", 2u32);
        },
        "attention heads have no size",
    );
    check(
        |file| {
            file.set("llama.attention.head_count_kv", vec![2u32]);
        },
        "no array of 2 small integers",
    );
    check(
        |file| {
            file.set("llama.attention.head_count", Vec::<u32>::new());
        },
        "no array of 2 small integers",
    );
    check(
        |file| {
            file.set("llama.attention.head_count", vec![u64::MAX; 2]);
        },
        "no array of 2 small integers",
    );
    check(
        |file| {
            file.set("llama.feed_forward_length", vec!["a"]);
        },
        "no array of small integers",
    );
    check(
        |file| {
            file.set("general.architecture", "");
        },
        "is empty",
    );
    check(
        |file| {
            file.set("general.architecture", "clip");
        },
        "vision projector",
    );
    check(
        |file| {
            file.set("general.type", "adapter");
        },
        "\"adapter\"",
    );
    let window = |value: GgufValue| {
        |file: &mut GgufWriter| {
            file.set("llama.attention.sliding_window", 64u32);
            file.set("llama.attention.sliding_window_pattern", value);
        }
    };
    check(window(vec![true].into()), "no array of 2 booleans");
    check(window(vec![7u32, 8].into()), "no array of 2 booleans");
    check(window("all".into()), "is a string");
    check(window(GgufValue::I32(-2)), "not an integer of 32 bits");
}

#[test]
fn parts_of_an_mlx_directory_are_sent_to_it() {
    let dir = folder();
    MlxWriter::tiny("llama").write(dir.path()).expect("a small model");
    for name in ["model.safetensors", "config.json"] {
        check_line(inspect(&dir.path().join(name)), &format!("name its directory, {}", dir.path().display()));
    }
}
