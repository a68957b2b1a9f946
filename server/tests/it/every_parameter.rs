//! The table of parameters, row by row, against a server: what is in it has its effect or is refused by name.

use duet_core::testing::{FakeConfig, Reply};
use duet_server::params::probe::{Tokens, basic, comparable};
use duet_server::params::{self, Endpoint, Probe, Rule};
use serde_json::{Value, json};

use crate::support::gguf::Header;
use crate::support::{Answer, Running, World};

/// Of the byte tokenizer.
const TOKENS: Tokens = Tokens { eos: 257, c: 99 };

const ENDPOINTS: [Endpoint; 2] = [Endpoint::Chat, Endpoint::Text];

async fn ask(server: &Running, endpoint: Endpoint, body: &Value) -> Answer {
    server.post(endpoint.path(), &body.to_string()).await
}

#[tokio::test]
async fn every_parameter_has_an_effect_or_is_refused_with_its_name_and_the_engine() {
    // Room for tools in a prompt of bytes.
    let header = Header { context_length: 2048, ..Header::default() };
    let config = FakeConfig { reply: Reply::Hash, ..FakeConfig::default() };
    let server = World::new().fake("m", header, config).start().await;
    for endpoint in ENDPOINTS {
        let basic = basic(endpoint, "m").expect("it generates");
        for row in params::of(endpoint) {
            let Some((without, with)) = row.bodies(&basic, TOKENS) else { continue };
            let base = ask(&server, endpoint, &without).await;
            assert_eq!(base.status, 200, "{without}: {}", base.text());
            let again = ask(&server, endpoint, &without).await;
            assert_eq!(
                comparable(base.text()),
                comparable(again.text()),
                "the same request twice: {without}"
            );
            let answer = ask(&server, endpoint, &with).await;
            if answer.status == 400 {
                let (_, _, param) = answer.error();
                assert!(param.is_some_and(|param| param.starts_with(row.name)), "{with}: {}", answer.text());
                assert!(
                    answer.text().contains("engine") || answer.text().contains("template"),
                    "{}",
                    answer.text()
                );
                continue;
            }
            assert_eq!(answer.status, 200, "{with}: {}", answer.text());
            assert!(!answer.headers.contains_key("x-duet-ignored"), "{with}: {:?}", answer.headers);
            assert_ne!(
                comparable(base.text()),
                comparable(answer.text()),
                "`{}` changes nothing: {with}",
                row.name
            );
        }
    }
}

#[tokio::test]
async fn what_has_no_effect_changes_nothing_and_what_is_refused_is_named() {
    let server = World::new().model("m", Reply::Hash).start().await;
    let values = [json!(true), json!(2), json!("x"), json!(["x"]), json!({"a": 1})];
    for endpoint in ENDPOINTS {
        let basic = basic(endpoint, "m").expect("it generates");
        let base = ask(&server, endpoint, &basic).await;
        for row in params::of(endpoint) {
            for value in &values {
                let mut body = basic.clone();
                body[row.name] = value.clone();
                match row.rule {
                    Rule::Refused { asks_nothing, .. } if !asks_nothing(value) => {
                        let answer = ask(&server, endpoint, &body).await;
                        let expected = (400, "unsupported_parameter".into(), Some(row.name.into()));
                        assert_eq!(answer.error(), expected, "{body}");
                        assert!(answer.text().contains("engine"), "{}", answer.text());
                    }
                    Rule::NoEffect => {
                        let answer = ask(&server, endpoint, &body).await;
                        assert_eq!(comparable(answer.text()), comparable(base.text()), "{body}");
                        assert!(!answer.headers.contains_key("x-duet-ignored"), "{body}");
                    }
                    Rule::Refused { .. } | Rule::Honoured => {}
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_required_is_missed_by_name() {
    let server = World::replying("x").start().await;
    for endpoint in ENDPOINTS {
        for row in params::of(endpoint).filter(|row| row.is_required()) {
            let mut body = basic(endpoint, "m").expect("it generates");
            body.as_object_mut().expect("an object").remove(row.name);
            let expected = (400, "missing_parameter".into(), Some(row.name.into()));
            assert_eq!(ask(&server, endpoint, &body).await.error(), expected, "{body}");
        }
    }
}

/// Where rows point to for what one answer does not show.
const TESTS: &[&str] = &[
    include_str!("cache.rs"),
    include_str!("params.rs"),
    include_str!("errors.rs"),
    include_str!("tools.rs"),
    include_str!("tokens.rs"),
    include_str!("embeddings.rs"),
    include_str!("messages.rs"),
    include_str!("rerank.rs"),
    include_str!("responses.rs"),
];

#[test]
fn rows_point_to_tests_that_exist() {
    for row in params::all() {
        let Probe::Test(name) = row.probe else { continue };
        let is_there = TESTS.iter().any(|file| file.contains(&format!("fn {name}(")));
        assert!(is_there, "`{}` is said to be shown by a test `{name}`", row.name);
    }
}
