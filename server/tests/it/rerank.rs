//! Reranking over the fake engine, and models that generate nothing.

use duet_core::testing::FakeConfig;
use serde_json::{Value, json};

use crate::support::gguf::Header;
use crate::support::{Answer, Running, World};

const PATH: &str = "/v1/rerank";

/// `m` scores pairs, `encoder` gives states, `decoder` generates.
async fn server() -> Running {
    let ranks = FakeConfig { generates: false, ranks: true, ..FakeConfig::default() };
    let encoder = FakeConfig { generates: false, ..FakeConfig::default() };
    World::replying("x")
        .fake("m", Header::default(), ranks)
        .fake("encoder", Header::default(), encoder)
        .fake("decoder", Header::default(), FakeConfig::default())
        .start()
        .await
}

async fn send(server: &Running, more: Value) -> Answer {
    let mut body = json!({"model": "m", "query": "a?", "documents": ["xx", "aaa", "a"]});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
    server.post(PATH, &body.to_string()).await
}

fn indexes(answer: &Value) -> Vec<u64> {
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    results.iter().map(|result| result["index"].as_u64().expect("an index")).collect()
}

#[tokio::test]
async fn documents_come_in_the_order_of_their_relevance() {
    let server = server().await;
    let all = send(&server, json!({})).await.json();
    assert_eq!(indexes(&all), [1, 2, 0]);
    assert_eq!((&all["model"], &all["object"]), (&json!("m"), &json!("list")));
    // The fake's score is the number of "a", less 3: the query has one.
    let score = |at: usize| all["results"][at]["relevance_score"].as_f64().expect("a number");
    assert!((score(0) - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-6, "{}", score(0));
    assert!(score(0) > score(1) && score(1) > score(2) && score(2) > 0.0);
    // Each pair: <bos>, the query, the document.
    assert_eq!(all["usage"], json!({"prompt_tokens": 3 * 3 + 6, "total_tokens": 15}));
    assert!(all["results"][0].get("document").is_none());

    let best = send(&server, json!({"top_n": 2, "return_documents": true})).await.json();
    assert_eq!(indexes(&best), [1, 2]);
    assert_eq!(best["results"][1]["document"]["text"], "a");
    assert_eq!(indexes(&send(&server, json!({"top_n": 99})).await.json()).len(), 3);
    let objects = json!({"documents": [{"text": "a"}, {"text": "aa", "title": "t"}]});
    assert_eq!(indexes(&send(&server, objects).await.json()), [1, 0]);
}

#[tokio::test]
async fn malformed_rankings() {
    let server = server().await;
    let many = vec!["a"; 2049];
    for (more, code, param) in [
        (json!({"query": null}), "missing_parameter", "query"),
        (json!({"query": ""}), "invalid_value", "query"),
        (json!({"query": ["a"]}), "invalid_type", "query"),
        (json!({"documents": null}), "missing_parameter", "documents"),
        (json!({"documents": "a"}), "invalid_type", "documents"),
        (json!({"documents": []}), "invalid_value", "documents"),
        (json!({"documents": many}), "invalid_value", "documents"),
        (json!({"documents": ["a", 1]}), "invalid_type", "documents[1]"),
        (json!({"documents": [{"text": 1}]}), "invalid_type", "documents[0].text"),
        (json!({"documents": ["a", {"title": "a"}]}), "missing_parameter", "documents[1].text"),
        (json!({"documents": ["a", "b".repeat(5000)]}), "context_length_exceeded", "documents[1]"),
        (json!({"top_n": 0}), "invalid_value", "top_n"),
        (json!({"top_n": "1"}), "invalid_type", "top_n"),
        (json!({"return_documents": 1}), "invalid_type", "return_documents"),
        (json!({"rank_fields": ["text"]}), "unsupported_parameter", "rank_fields"),
        (json!({"model": "decoder"}), "unsupported_parameter", "model"),
        (json!({"model": "encoder"}), "unsupported_parameter", "model"),
        (json!({"model": null}), "missing_parameter", "model"),
    ] {
        let (status, found, at) = send(&server, more.clone()).await.error();
        let shown: String = more.to_string().chars().take(80).collect();
        assert_eq!((status, found.as_str(), at.as_deref()), (400, code, Some(param)), "{shown}");
    }
    assert!(send(&server, json!({"model": "decoder"})).await.text().contains("`fake`"), "names the engine");
    assert_eq!(send(&server, json!({"model": "mm"})).await.error().0, 404);
}

#[tokio::test]
async fn a_model_that_generates_nothing_says_so() {
    let server = server().await;
    for model in ["m", "encoder"] {
        for (path, mut body) in [
            ("/v1/completions", json!({"prompt": "a"})),
            ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "a"}]})),
            ("/v1/responses", json!({"input": "a"})),
        ] {
            body["model"] = model.into();
            let answer = server.post(path, &body.to_string()).await;
            let expected = (400, "unsupported_parameter".into(), Some("model".into()));
            assert_eq!(answer.error(), expected, "{model} {path}");
            assert!(answer.text().contains("`fake`"), "{}", answer.text());
        }
        let capabilities = server.get(&format!("/v1/models/{model}")).await.json()["capabilities"].clone();
        assert_eq!(capabilities["completions"], false, "{model}");
        assert_eq!(capabilities["rerank"], model == "m");
        assert_eq!(capabilities["embeddings"], model == "encoder");
    }
    let body = |model: &str| json!({"model": model, "input": "a"}).to_string();
    assert_eq!(server.post("/v1/embeddings", &body("m")).await.error().0, 400);
    assert_eq!(server.post("/v1/embeddings", &body("encoder")).await.json()["data"][0]["index"], 0);
}
