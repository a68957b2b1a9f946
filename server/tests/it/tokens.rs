//! `/tokenize`, `/detokenize`, `/apply-template`, `/tokenizer_info`, the page and the OpenAPI document.

use duet_core::testing::Reply;
use serde_json::{Value, json};

use crate::support::{Running, World};

async fn ask(server: &Running, path: &str, body: Value) -> Value {
    let answer = server.post(path, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    assert!(!answer.headers.contains_key("x-duet-ignored"), "{body}");
    answer.json()
}

#[tokio::test]
async fn texts_become_tokens_and_back() {
    let server = World::replying("x").start().await;
    let tokens = async |body: Value| ask(&server, "/tokenize", body).await["tokens"].clone();
    let whole = ask(&server, "/tokenize", json!({"prompt": "abc"})).await;
    assert_eq!(
        whole,
        json!({"tokens": [256, 97, 98, 99], "count": 4, "max_model_len": 256, "token_strs": null})
    );
    assert_eq!(tokens(json!({"content": "abc"})).await, json!([97, 98, 99]), "as llama.cpp has it");
    assert_eq!(tokens(json!({"model": "m", "prompt": "a", "add_special_tokens": false})).await, json!([97]));
    assert_eq!(tokens(json!({"content": "a", "add_special": true})).await, json!([256, 97]));
    assert_eq!(tokens(json!({"content": "<eos>"})).await, json!([257]));
    assert_eq!(
        tokens(json!({"content": "<eos>", "parse_special": false})).await,
        json!([60, 101, 111, 115, 62])
    );
    assert_eq!(tokens(json!({"content": ""})).await, json!([]));
    let pieces = json!([{"id": 97, "piece": "a"}, {"id": 195, "piece": [195]}, {"id": 188, "piece": [188]}]);
    assert_eq!(tokens(json!({"content": "aü", "with_pieces": true})).await, pieces);
    let strings = ask(&server, "/tokenize", json!({"content": "ab", "return_token_strs": true})).await;
    assert_eq!(strings["token_strs"], json!(["a", "b"]));
    let text = ask(&server, "/detokenize", json!({"tokens": [97, 195, 188, 99]})).await;
    assert_eq!(text, json!({"content": "aüc", "prompt": "aüc"}));
    assert_eq!(ask(&server, "/detokenize", json!({"tokens": [], "model": "m"})).await["content"], "");
}

#[tokio::test]
async fn what_cannot_be_tokenized() {
    let server = World::new().model("a", Reply::text("")).model("b", Reply::text("")).start().await;
    for (path, body, code, param) in [
        ("/tokenize", json!({"prompt": "x"}), "missing_parameter", "model"),
        ("/tokenize", json!({"model": "a"}), "missing_parameter", "prompt"),
        ("/tokenize", json!({"model": 1, "prompt": "x"}), "invalid_type", "model"),
        ("/tokenize", json!({"model": "a", "prompt": ["x"]}), "invalid_type", "prompt"),
        ("/tokenize", json!({"model": "a", "content": 1}), "invalid_type", "content"),
        ("/tokenize", json!({"model": "a", "content": "x", "prompt": "x"}), "invalid_value", "content"),
        ("/tokenize", json!({"model": "a", "content": "x", "with_pieces": 1}), "invalid_type", "with_pieces"),
        ("/detokenize", json!({"model": "a"}), "missing_parameter", "tokens"),
        ("/detokenize", json!({"model": "a", "tokens": "x"}), "invalid_type", "tokens"),
        ("/detokenize", json!({"model": "a", "tokens": [1, "x"]}), "invalid_type", "tokens[1]"),
        ("/detokenize", json!({"model": "a", "tokens": [-1]}), "invalid_value", "tokens[0]"),
        ("/detokenize", json!({"model": "a", "tokens": [1, 4_000_000]}), "invalid_value", "tokens[1]"),
        ("/apply-template", json!({"model": "a"}), "missing_parameter", "messages"),
        ("/apply-template", json!({"model": "a", "messages": []}), "invalid_value", "messages"),
        (
            "/apply-template",
            json!({"messages": [{"role": "user", "content": "x"}]}),
            "missing_parameter",
            "model",
        ),
    ] {
        let answer = server.post(path, &body.to_string()).await;
        assert_eq!(answer.error(), (400, code.into(), Some(param.into())), "{path} {body}");
    }
    assert_eq!(server.post("/tokenize", r#"{"model":"c","prompt":"x"}"#).await.error().0, 404);
    assert_eq!(
        server.get("/tokenizer_info").await.error(),
        (400, "missing_parameter".into(), Some("model".into()))
    );
    assert_eq!(server.get("/tokenizer_info?model=c").await.error().0, 404);
    assert_eq!(server.get("/tokenizer_info?model=%ff").await.error().0, 404);
    assert_eq!(server.get("/tokenizer_info?model=a&model=b").await.error().0, 400);
}

#[tokio::test]
async fn messages_become_a_prompt() {
    let server = World::replying("x").start().await;
    let prompt = async |body: Value| ask(&server, "/apply-template", body).await["prompt"].clone();
    let user = json!([{"role": "user", "content": "Hi"}]);
    let plain = "<bos><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(prompt(json!({"messages": user})).await, plain);
    let open = json!({"messages": user, "add_generation_prompt": false});
    assert_eq!(prompt(open).await, "<bos><|im_start|>user\nHi<|im_end|>\n");
    let thinking = json!({"messages": user, "enable_thinking": true});
    assert_eq!(prompt(thinking).await, format!("{plain}<think>"));
    let tools =
        json!([{"type": "function", "function": {"name": "weather_in", "parameters": {"type": "object"}}}]);
    let offered = prompt(json!({"messages": user, "tools": tools})).await;
    assert!(offered.as_str().is_some_and(|text| text.contains("weather_in")), "{offered}");
    assert_eq!(prompt(json!({"messages": user, "tools": tools, "tool_choice": "none"})).await, plain);
}

#[tokio::test]
async fn a_tokenizer_tells_its_special_tokens() {
    let server = World::replying("x").start().await;
    let answer = server.get("/tokenizer_info").await.json();
    assert_eq!(answer, server.get("/tokenizer_info?model=m").await.json());
    assert_eq!((answer["bos_token"].clone(), answer["eos_token"].clone()), (json!("<bos>"), json!("<eos>")));
    assert_eq!(
        (answer["eos_token_id"].clone(), answer["model_max_length"].clone()),
        (json!(257), json!(256))
    );
    assert!(
        answer["chat_template"].as_str().is_some_and(|template| template.contains("im_start")),
        "{answer}"
    );
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let server = World::replying("x").start().await;
    let (page, again) = (server.get("/").await, server.get("/").await);
    assert_eq!(
        (page.status.as_u16(), &page.headers["content-type"].to_str().expect("ASCII")[..9]),
        (200, "text/html")
    );
    let policy = page.headers["content-security-policy"].to_str().expect("ASCII");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'nonce-") && !policy.contains("unsafe"),
        "{policy}"
    );
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    assert_eq!(page.text().matches(&format!("nonce=\"{nonce}\"")).count(), 2, "a script and a style");
    assert!(
        !page.text().contains("{{") && !again.text().contains(nonce),
        "each answer has a nonce of its own"
    );
    for elsewhere in ["http://", "https://", " src=", " style=", " onclick", "innerHTML", "eval(", "@import"]
    {
        assert!(!page.text().contains(elsewhere), "{elsewhere}");
    }
}
