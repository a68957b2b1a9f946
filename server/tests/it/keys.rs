//! API keys: who gets in where, and what is never written down.

use axum::body::Body;
use axum::http::Request;
use duet_core::testing::Reply;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Answer, Running, World};

const INFER: &str = "key-to-infer-with";
const METRICS: &str = "key-to-measure-with";

async fn locked() -> Running {
    let mut world = World::new().model("m", Reply::text("ok"));
    let file = world.dir.path().join("keys.txt");
    std::fs::write(&file, format!("# keys\n{INFER}\n{METRICS} metrics\n")).expect("a file");
    world.raw.server.api_keys_file = Some(file.into());
    world.start().await
}

async fn get(server: &Running, path: &str, key: Option<&str>) -> Answer {
    let mut request = Request::get(path);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    server.call(request.body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn a_key_is_asked_for_wherever_something_can_be_had() {
    let server = locked().await;
    let code = |answer: &Answer| answer.error().1;
    for path in
        ["/v1/models", "/v1/models/m", "/metrics", "/tokenizer_info", "/nothing-here", "/v1/messages/x"]
    {
        let answer = get(&server, path, None).await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"duet\"", "{path}");
        if !path.starts_with("/v1/messages") {
            assert_eq!(code(&answer), "invalid_api_key", "{path}");
            assert_eq!(code(&get(&server, path, Some("another-key-12")).await), "invalid_api_key", "{path}");
        }
    }
    for path in ["/livez", "/readyz", "/health", "/openapi.json", "/"] {
        assert_eq!(get(&server, path, None).await.status, 200, "{path}");
    }
    assert_eq!(get(&server, "/v1/models", Some(INFER)).await.status, 200);
    assert_eq!(get(&server, "/nothing-here", Some(INFER)).await.error().0, 404);
    assert_eq!(get(&server, "/metrics", Some(METRICS)).await.status, 200);
    for (path, key) in [("/metrics", INFER), ("/v1/models", METRICS)] {
        let answer = get(&server, path, Some(key)).await;
        assert_eq!(answer.error(), (403, "key_scope".into(), None), "{path}");
    }
    // Nothing of a body is read for strangers.
    let answer = server.chat("not even JSON").await;
    assert_eq!(answer.error(), (401, "invalid_api_key".into(), None));
}

#[tokio::test]
async fn nobody_sees_the_responses_of_another_key() {
    const OTHER: &str = "key-of-somebody-else";
    let mut world = World::new().model("m", Reply::text("ok"));
    let file = world.dir.path().join("keys.txt");
    std::fs::write(&file, format!("{INFER}\n{OTHER}\n")).expect("a file");
    world.raw.server.api_keys_file = Some(file.into());
    let server = world.start().await;
    let send = async |method: &str, path: &str, key: &str, body: Value| {
        let request = Request::builder().method(method).uri(path).header("x-api-key", key);
        let request = request.header("content-type", "application/json");
        server.call(request.body(Body::from(body.to_string())).expect("a request")).await
    };
    let asked = json!({"model": "m", "input": "Hi"});
    let first = send("POST", "/v1/responses", INFER, asked).await.json();
    let path = format!("/v1/responses/{}", first["id"].as_str().expect("an id"));
    let further = json!({"model": "m", "input": "More", "previous_response_id": first["id"]});
    for (method, path) in
        [("GET", path.clone()), ("DELETE", path.clone()), ("GET", format!("{path}/input_items"))]
    {
        assert_eq!(send(method, &path, OTHER, json!(null)).await.error().0, 404, "{method} {path}");
    }
    let stolen = send("POST", "/v1/responses", OTHER, further.clone()).await;
    assert_eq!(stolen.error(), (404, "not_found".into(), Some("previous_response_id".into())));
    assert_eq!(send("POST", "/v1/responses", INFER, further).await.status, 200);
    // The same key in the other header.
    assert_eq!(get(&server, &path, Some(INFER)).await.json(), first);
    assert_eq!(send("DELETE", &path, INFER, json!(null)).await.json()["deleted"], true);
}

#[tokio::test]
async fn anthropics_clients_read_their_own_shape() {
    let server = locked().await;
    let answer = get(&server, "/v1/messages/x", None).await.json();
    assert_eq!(answer["type"], "error");
    assert_eq!(answer["error"]["type"], "authentication_error");
    assert!(answer["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{answer}");
    let request =
        Request::get("/v1/messages/x").header("x-api-key", INFER).body(Body::empty()).expect("a request");
    let answer = server.call(request).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["type"].clone()),
        (404, "not_found_error".into())
    );
}

#[tokio::test]
async fn beyond_loopback_nothing_is_served_without_a_key() {
    let listener = async || TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let open = World::replying("ok").start().await;
    let error = open.server.serve(listener().await, async {}).await.expect_err("refused");
    assert!(error.to_string().contains("api_keys_file"), "{error}");
    let keyed = locked().await;
    keyed.server.serve(listener().await, async {}).await.expect("it is served, and told to stop at once");
}
