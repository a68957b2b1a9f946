//! Quantisation settings in config.json.

use serde_json::{Value, json};

use super::*;
use crate::model::config::ModelConfig;
use crate::model::{QuantMode, QuantSpec, Quantization};

fn config(root: Value) -> ModelConfig {
    ModelConfig::from_value(Path::new("/"), root)
}

fn parse(value: Value) -> Result<Option<Quantization>, ModelFileError> {
    config(json!({ "quantization": value })).quantization()
}

fn good(value: Value) -> Quantization {
    parse(value).expect("good settings").expect("some settings")
}

fn affine(group_size: u32, bits: u32) -> QuantSpec {
    QuantSpec { mode: QuantMode::Affine, group_size, bits }
}

#[test]
fn general_rules() {
    assert_eq!(good(json!({ "group_size": 32, "bits": 8 })).default, affine(32, 8));
    assert_eq!(good(json!({ "group_size": 64, "bits": 4, "mode": "affine" })).default, affine(64, 4));
    assert_eq!(good(json!({})).default, affine(64, 4));
    let mxfp4 = good(json!({ "group_size": 32, "bits": 4, "mode": "mxfp4" })).default;
    assert_eq!((mxfp4.mode, mxfp4.to_string()), (QuantMode::Mxfp4, "mxfp4".to_owned()));
    assert_eq!(good(json!({ "mode": "nvfp4" })).default.group_size, 16);
    assert_eq!(good(json!({ "mode": "mxfp8" })).default.bits, 8);
    assert_eq!(parse(Value::Null).expect("none"), None);
    assert_eq!(config(json!({})).quantization().expect("none"), None);
}

#[test]
fn exceptions_by_module() {
    let rules = good(json!({
        "group_size": 32, "bits": 4, "mode": "mxfp4",
        "lm_head": false,
        "model.layers.0.mlp.down_proj": { "group_size": 64, "bits": 8 },
        "model.layers.1.mlp.down_proj": true,
        "model.embed_tokens": { "bits": 6, "mode": "affine" },
    }));
    assert_eq!(rules.for_module("lm_head"), None);
    // Without a mode an exception is affine, whatever the general mode is.
    assert_eq!(rules.for_module("model.layers.0.mlp.down_proj"), Some(affine(64, 8)));
    assert_eq!(rules.for_module("model.layers.1.mlp.down_proj"), Some(rules.default));
    assert_eq!(rules.for_module("model.embed_tokens"), Some(affine(64, 6)));
    assert_eq!(rules.for_module("model.layers.7.mlp.up_proj"), Some(rules.default));
    assert_eq!(rules.overrides.len(), 4);
}

#[test]
fn settings_under_the_other_name() {
    let own = config(json!({ "quantization_config": { "group_size": 64, "bits": 4 } }));
    assert_eq!(own.quantization().expect("good").expect("some").default, affine(64, 4));
    assert_eq!(own.foreign_quantization(), None);
    let foreign =
        config(json!({ "quantization_config": { "quant_method": "gptq", "bits": 4, "group_size": 128 } }));
    assert_eq!(foreign.quantization().expect("none"), None);
    assert_eq!(foreign.foreign_quantization().expect("some").to_string(), "gptq 4-bit");
    // A converted model may keep the other library's settings beside its own.
    let both =
        config(json!({ "quantization": { "bits": 8 }, "quantization_config": { "quant_method": "mxfp4" } }));
    assert_eq!(both.quantization().expect("good").expect("some").default, affine(64, 8));
    assert_eq!(both.foreign_quantization(), None);
}

#[test]
fn what_is_refused() {
    for (value, expected) in [
        (json!(7), "is no object"),
        (json!([4, 32]), "is no object"),
        (json!({ "bits": "4" }), "\"bits\", which is no small integer"),
        (json!({ "bits": -4 }), "no small integer"),
        (json!({ "bits": 4.5 }), "no small integer"),
        (json!({ "bits": 0 }), "has 0 bits"),
        (json!({ "bits": 7 }), "has 7 bits"),
        (json!({ "bits": 16 }), "has 16 bits"),
        (json!({ "group_size": 0 }), "has groups of 0"),
        (json!({ "group_size": 48 }), "has groups of 48"),
        (json!({ "group_size": 1u64 << 40 }), "no small integer"),
        (json!({ "mode": "int4" }), "unknown mode \"int4\""),
        (json!({ "mode": 4 }), "unknown mode 4"),
        (json!({ "lm_head": { "bits": 1 } }), "for \"lm_head\" has 1 bits"),
        (json!({ "lm_head": { "mode": "x" } }), "for \"lm_head\" has the unknown mode"),
    ] {
        check_line(parse(value), expected);
    }
}
