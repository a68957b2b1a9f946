//! Every row of the contract's table of errors as a client sees it: status, the headers that matter, the body. And requests
//! that nobody thought of: whatever comes, the answer is one of these.

use axum::body::Body;
use axum::http::Request;
use duet_core::testing::Reply;
use duet_server::params::{self, Endpoint};
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::support::{Answer, Running, World, post};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

pub(crate) fn line(what: &str, answer: &Answer) -> String {
    let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
    let headers: Vec<String> = ["allow", "retry-after", "www-authenticate", "x-should-retry"]
        .into_iter()
        .filter_map(|name| Some(format!(" {name}: {};", header(name)?)))
        .collect();
    assert_eq!(header("content-type").as_deref(), Some("application/json"), "{what}");
    format!("{what}\n  {}{}\n  {}\n", answer.status.as_u16(), headers.concat(), answer.text())
}

#[tokio::test]
async fn rows_of_the_table_as_clients_see_them() {
    let mut world = World::new().model("m", Reply::text("ok")).model("qwen3-0.6b", Reply::text("ok"));
    world.raw.server.max_body_bytes = Some(2048);
    world.raw.server.unknown_fields = Some("deny".to_owned());
    let server = world.start().await;
    let mut all = String::new();
    let ok = r#""model":"m","messages":[{"role":"user","content":"Hi"}]"#;
    let deep = format!("{{{ok},\"metadata\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let long = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(300));
    for (what, path, body) in [
        ("broken JSON", CHAT, "{\"model\":".to_owned()),
        ("no object", CHAT, "[]".to_owned()),
        ("nesting", CHAT, deep),
        ("a name twice", CHAT, format!("{{{ok},\"n\":1,\"n\":2}}")),
        ("a huge number", CHAT, format!("{{{ok},\"seed\":1e999}}")),
        ("half a character", CHAT, format!("{{{ok},\"user\":\"\\ud800\"}}")),
        ("a wrong type", CHAT, format!("{{{ok},\"temperature\":\"hot\"}}")),
        ("a wrong type inside", CHAT, format!("{{{ok},\"stop\":[\"a\",1]}}")),
        ("out of range", CHAT, format!("{{{ok},\"temperature\":2.5}}")),
        ("below zero", CHAT, format!("{{{ok},\"max_tokens\":-1}}")),
        ("a number of more than 64 bits", CHAT, format!("{{{ok},\"seed\":99999999999999999999}}")),
        ("more than the model can", CHAT, format!("{{{ok},\"n\":1000}}")),
        ("nothing required", CHAT, "{}".to_owned()),
        ("no messages", CHAT, r#"{"model":"m"}"#.to_owned()),
        ("a field that nobody knows", CHAT, format!("{{{ok},\"temprature\":1}}")),
        ("what no engine has", CHAT, format!("{{{ok},\"audio\":{{}}}}")),
        ("a prompt that is too long", TEXT, long),
        ("a model that is not there", TEXT, r#"{"model":"qwen3","prompt":"a"}"#.to_owned()),
        ("a long body", TEXT, format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(3000))),
        ("a path where nothing is", "/v1/chat", "{}".to_owned()),
        ("beneath Anthropic's path", "/v1/messages/nothing", "{}".to_owned()),
        ("a route that only reads", "/v1/models", "{}".to_owned()),
    ] {
        all += &line(what, &server.post(path, &body).await);
    }
    let with = |name: &'static str, value: &'static str| {
        let mut request = post(CHAT, &format!("{{{ok}}}"));
        request.headers_mut().insert(name, value.parse().expect("a header"));
        request
    };
    for (what, request) in [
        ("a form", with("content-type", "application/x-www-form-urlencoded")),
        ("a compressed body", with("content-encoding", "gzip")),
        ("another host", with("host", "evil.example")),
        ("another page", with("origin", "https://evil.example")),
        ("bytes that are no UTF-8", post(CHAT, "").map(|_| Body::from(&b"{\"model\":\"\xff\"}"[..]))),
        ("the wrong method", Request::get(CHAT).body(Body::empty()).expect("a request")),
    ] {
        all += &line(what, &server.call(request).await);
    }
    insta::with_settings!({filters => vec![(r"req_[0-9a-f]{32}", "req_[id]")], prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("error_rows", all);
    });
}

/// Whatever came: an answer in time, never a failure of the server's, always the envelope.
async fn send(server: &Running, path: &str, body: Vec<u8>) -> Result<(), TestCaseError> {
    let shown = String::from_utf8_lossy(&body).into_owned();
    let answer = server.call(post(path, "").map(|_| Body::from(body))).await;
    let status = answer.status.as_u16();
    prop_assert!(matches!(status, 200 | 400 | 404), "{status} for {path} {shown}: {}", answer.text());
    if status != 200 {
        let error = &answer.json()["error"];
        let kind = if path.starts_with("/v1/messages") { "type" } else { "code" };
        prop_assert!(error["message"].is_string() && error[kind].is_string(), "{shown}: {}", answer.text());
    }
    Ok(())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..40).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        (-1.0..3.0f64).prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::from),
        select(vec!["text", "json_object", "auto", "none", "user", "batch", "1", "m"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            hash_map(
                select(vec!["role", "content", "type", "text", "function", "name", "1", "99", ""]),
                inner,
                0..4
            )
            .prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

fn basic(endpoint: Endpoint) -> Value {
    let messages = json!([{"role": "user", "content": "abcabcab"}]);
    match endpoint {
        Endpoint::Messages => json!({"model": "m", "max_tokens": 24, "messages": messages}),
        Endpoint::Responses => json!({"model": "m", "max_output_tokens": 24, "input": messages}),
        _ => params::probe::basic(endpoint, "m").expect("chat and completions have one"),
    }
}

/// A body that is right but for some fields of the endpoint.
fn any_body(endpoint: Endpoint) -> impl Strategy<Value = Value> {
    let names: Vec<_> = params::of(endpoint).map(|row| row.name).collect();
    (Just(basic(endpoint)), hash_map(select(names), any_json(), 1..4)).prop_map(|(mut body, fields)| {
        for (name, value) in fields {
            body[name] = value;
        }
        // Answers that nobody wants to wait for.
        for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            if body[name].as_u64().is_some_and(|n| n > 32) {
                body[name] = 4.into();
            }
        }
        body
    })
}

/// `DUET_FUZZ_CASES` says how many of each kind.
fn cases() -> u32 {
    std::env::var("DUET_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

fn fuzz(strategy: impl Strategy<Value = (&'static str, Vec<u8>)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = runtime.block_on(World::new().model("m", Reply::Hash).start());
    let config = ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&strategy, |(path, body)| runtime.block_on(send(&server, path, body)));
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn no_body_makes_the_server_fail() {
    let of = |endpoint: Endpoint| {
        any_body(endpoint).prop_map(move |body| (endpoint.path(), body.to_string().into_bytes()))
    };
    fuzz(prop_oneof![
        of(Endpoint::Chat),
        of(Endpoint::Text),
        of(Endpoint::Messages),
        of(Endpoint::Responses)
    ]);
}

#[test]
fn no_bytes_make_the_server_fail() {
    let paths = select(vec![
        CHAT,
        TEXT,
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
        "/tokenize",
        "/detokenize",
        "/apply-template",
    ]);
    let cut = (any_body(Endpoint::Chat), any::<prop::sample::Index>()).prop_map(|(body, at)| {
        let mut bytes = body.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 0x55;
        bytes
    });
    let bytes = prop_oneof![
        vec(any::<u8>(), 0..64),
        cut,
        any_json().prop_map(|value| value.to_string().into_bytes())
    ];
    fuzz((paths, bytes));
}
