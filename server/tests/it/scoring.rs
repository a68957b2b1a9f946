//! Prompts that are scored over HTTP, as lm-eval does it.

use duet_core::testing::Reply;
use serde_json::{Value, json};

use crate::support::World;

async fn scored(reply: &str, more: Value) -> Value {
    let server = World::new().model("m", Reply::text(reply)).start().await;
    let mut body = json!({"model": "m", "prompt": "abc", "echo": true, "logprobs": 1, "max_tokens": 1, "temperature": 0});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    server.post("/v1/completions", &body.to_string()).await.json()["choices"][0].take()
}

/// lm-eval drops the last entry, whatever it is: it has to be one of the answer's.
#[tokio::test]
async fn the_entry_behind_the_prompt_is_there_also_where_the_answer_is_empty() {
    let going_on = scored("xyz", json!({})).await;
    let n_prompt = going_on["logprobs"]["tokens"].as_array().expect("tokens").len() - 1;
    assert_eq!(
        (going_on["text"].as_str(), going_on["finish_reason"].as_str()),
        (Some("abcx"), Some("length"))
    );
    for (reply, more, text) in [("", json!({}), "abc"), ("x", json!({"max_tokens": 9}), "abcx")] {
        let choice = scored(reply, more).await;
        assert_eq!((choice["text"].as_str(), choice["finish_reason"].as_str()), (Some(text), Some("stop")));
        let logprobs = &choice["logprobs"];
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let entries = logprobs[name].as_array().expect("a list");
            assert_eq!(entries.len(), n_prompt + reply.len() + 1, "{name}: {choice}");
        }
        assert!(logprobs["token_logprobs"][n_prompt].is_number(), "{choice}");
        for (of_end, of_other) in
            (0..n_prompt).map(|at| (&logprobs["tokens"][at], &going_on["logprobs"]["tokens"][at]))
        {
            assert_eq!(of_end, of_other, "the prompt's own are the same");
        }
    }
}

/// Nothing ends the answer there, or it is not the engine's token that does.
#[tokio::test]
async fn no_entry_is_made_up() {
    let cut = scored("xyz", json!({"max_tokens": 9, "stop": "y"})).await;
    let alone = scored("xyz", json!({"max_tokens": 0})).await;
    let n = |choice: &Value| choice["logprobs"]["tokens"].as_array().expect("tokens").len();
    assert_eq!(n(&cut), n(&alone) + 2, "x and y");
    let unscored = scored("", json!({"echo": false})).await;
    assert_eq!(n(&unscored), 0);
}
