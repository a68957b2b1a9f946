//! Vectors of both engines over HTTP.

use std::io::Write;

use serde_json::{Value, json};

use super::{Server, body_of, config, prerequisite};

/// The vectors of an answer of `/v1/embeddings`.
fn vectors(answer: &str) -> Vec<Vec<f64>> {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer: Value = serde_json::from_str(body_of(answer)).expect("JSON");
    let numbers = |entry: &Value| {
        let numbers = entry["embedding"].as_array().expect("numbers");
        numbers.iter().map(|number| number.as_f64().expect("a number")).collect()
    };
    answer["data"].as_array().expect("vectors").iter().map(numbers).collect()
}

#[test]
fn embeddings_of_both_engines_point_the_same_way() {
    let Some(file) = prerequisite("models/SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let config = config(temporary.path(), &[("smol-gguf", &file, "gguf"), ("smol-mlx", &file, "mlx")]);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // The longest one takes llama.cpp several passes.
    let long = "Rivers carry sand to the sea, and the wind carries it back. ".repeat(20);
    let texts = ["A cat sat on the mat.", "The stock market fell sharply today.", &long];
    for pooling in ["mean", "last", "cls"] {
        let environment =
            ["GGUF", "MLX"].map(|engine| (format!("DUET_MODELS__SMOL_{engine}__POOLING"), pooling));
        let environment = environment.each_ref().map(|(name, value)| (name.as_str(), *value));
        let server = Server::start_with(&["--config", &config], &environment);
        let [gguf, mlx] = ["smol-gguf", "smol-mlx"].map(|model| {
            let body = json!({"model": model, "input": texts});
            vectors(&server.ask("POST", "/v1/embeddings", &body.to_string()))
        });
        for (at, (a, b)) in gguf.iter().zip(&mlx).enumerate() {
            let cosine = dot(a, b);
            let _ = writeln!(std::io::stderr(), "{pooling}, text {at}: cosine {cosine:.6}");
            assert!(cosine >= 0.999, "{pooling}, text {at}: {cosine}");
        }
        if pooling != "cls" {
            assert!(dot(&gguf[0], &gguf[1]) < 0.999, "different texts have different vectors");
        }
    }
}
