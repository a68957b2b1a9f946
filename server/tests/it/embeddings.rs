//! Embeddings over the fake engine.

use serde_json::{Value, json};

use crate::support::{Answer, Running, World};

const PATH: &str = "/v1/embeddings";

async fn send(server: &Running, more: Value) -> Answer {
    let mut body = json!({"model": "m", "input": "Hello"});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
    server.post(PATH, &body.to_string()).await
}

fn vector(answer: &Value, index: usize) -> Vec<f32> {
    let numbers = answer["data"][index]["embedding"].as_array().unwrap_or_else(|| panic!("{answer}"));
    numbers.iter().map(|number| number.as_f64().expect("a number") as f32).collect()
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|value| value * value).sum::<f32>().sqrt()
}

#[tokio::test]
async fn texts_and_tokens_become_vectors_of_unit_length() {
    let server = World::replying("x").start().await;
    let one = send(&server, json!({})).await.json();
    assert_eq!((&one["object"], &one["data"][0]["object"]), (&json!("list"), &json!("embedding")));
    assert_eq!(one["model"], "m");
    assert_eq!(one["usage"], json!({"prompt_tokens": 6, "total_tokens": 6}), "with <bos>");
    let hello = vector(&one, 0);
    assert!((length(&hello) - 1.0).abs() < 1e-5);

    let ids = json!([256, 72, 101, 108, 108, 111]);
    for input in [json!(["Hello"]), ids.clone(), json!([ids])] {
        assert_eq!(vector(&send(&server, json!({"input": input})).await.json(), 0), hello, "{input}");
    }
    let many = send(&server, json!({"input": ["a", "Hello", "b"]})).await.json();
    assert_eq!(many["data"].as_array().map(Vec::len), Some(3));
    assert_eq!((vector(&many, 1), &many["data"][2]["index"]), (hello.clone(), &json!(2)));
    assert_ne!(vector(&many, 0), hello);
    assert_eq!(many["usage"]["total_tokens"], 10);
}

#[tokio::test]
async fn vectors_are_cut_and_encoded_as_asked() {
    let server = World::replying("x").start().await;
    let whole = vector(&send(&server, json!({"encoding_format": "float"})).await.json(), 0);
    let cut = vector(&send(&server, json!({"dimensions": 3})).await.json(), 0);
    assert!(cut.len() == 3 && (length(&cut) - 1.0).abs() < 1e-5, "{cut:?}");
    let ratio = |at: usize| cut[at] / whole[at];
    assert!((ratio(0) - ratio(1)).abs() < 1e-4, "the same direction");
    let encoded = send(&server, json!({"encoding_format": "base64"})).await.json();
    let text = encoded["data"][0]["embedding"].as_str().expect("text");
    assert_eq!(text.len(), (whole.len() * 4).div_ceil(3) * 4);
}

#[tokio::test]
async fn the_settings_say_how_states_are_pooled() {
    let pooled = async |pooling: Option<&str>| {
        let pooling = pooling.map(str::to_owned);
        let server = World::replying("x").change("m", |model| model.pooling = pooling.clone()).start().await;
        let answer = send(&server, json!({"input": "ab"})).await.json();
        (vector(&answer, 0), server.get("/v1/models/m").await.json()["capabilities"].clone())
    };
    let (unset, capabilities) = pooled(None).await;
    assert_eq!((&capabilities["embeddings"], &capabilities["vision"]), (&json!(true), &json!(false)));
    let (mean, last, first) =
        (pooled(Some("mean")).await.0, pooled(Some("last")).await.0, pooled(Some("cls")).await.0);
    assert_eq!(unset, mean, "where the model says nothing");
    assert!(mean != last && last != first && mean != first);
}

#[tokio::test]
async fn malformed_embeddings() {
    let server = World::replying("x").start().await;
    let long = "a".repeat(5000);
    for (more, code, param) in [
        (json!({"input": null}), "missing_parameter", "input"),
        (json!({"input": ""}), "invalid_value", "input"),
        (json!({"input": []}), "invalid_value", "input"),
        (json!({"input": [[]]}), "invalid_value", "input[0]"),
        (json!({"input": ["a", ""]}), "invalid_value", "input[1]"),
        (json!({"input": ["a", 1]}), "invalid_value", "input[1]"),
        (json!({"input": [1, "a"]}), "invalid_value", "input[0]"),
        (json!({"input": {"text": "a"}}), "invalid_type", "input"),
        (json!({"input": 1}), "invalid_type", "input"),
        (json!({"input": [260]}), "invalid_value", "input"),
        (json!({"input": [[1], [999]]}), "invalid_value", "input[1]"),
        (json!({"input": [-1]}), "invalid_value", "input[0]"),
        (json!({"input": long}), "context_length_exceeded", "input"),
        (json!({"dimensions": 0}), "invalid_value", "dimensions"),
        (json!({"dimensions": 100_000}), "invalid_value", "dimensions"),
        (json!({"dimensions": 1.5}), "invalid_type", "dimensions"),
        (json!({"encoding_format": "hex"}), "invalid_value", "encoding_format"),
        (json!({"encoding_format": 1}), "invalid_type", "encoding_format"),
        (json!({"model": null}), "missing_parameter", "model"),
    ] {
        let (status, found, at) = send(&server, more.clone()).await.error();
        assert_eq!((status, found.as_str(), at.as_deref()), (400, code, Some(param)), "{more}");
    }
    let unknown = send(&server, json!({"model": "mm"})).await;
    assert_eq!(unknown.error().0, 404);
}
