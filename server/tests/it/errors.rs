//! What is wrong around a body: paths, methods, media types, sizes, names, guards. Always the envelope.

use axum::body::Body;
use axum::http::{Method, Request};
use duet_core::testing::Reply;

use crate::support::gguf::Header;
use crate::support::{World, post};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

const OK_CHAT: &str = r#""model":"m","messages":[{"role":"user","content":"Hi"}]"#;

#[tokio::test]
async fn a_prompt_beyond_the_context_tells_both_counts() {
    let server = World::replying("").start().await;
    let long = "x".repeat(300);
    let answer = server.post(TEXT, &format!(r#"{{"model":"m","prompt":"{long}"}}"#)).await;
    assert_eq!(answer.error(), (400, "context_length_exceeded".into(), Some("prompt".into())));
    let error = &answer.json()["error"];
    assert_eq!((error["n_prompt_tokens"].as_u64(), error["n_ctx"].as_u64()), (Some(301), Some(256)));
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{long}"}}]}}"#);
    assert_eq!(
        server.chat(&body).await.error(),
        (400, "context_length_exceeded".into(), Some("messages".into()))
    );
    // One token of room is enough.
    let fits = format!(r#"{{"model":"m","prompt":"{}","max_tokens":1000}}"#, "x".repeat(254));
    assert_eq!(server.post(TEXT, &fits).await.status, 200);
}

#[tokio::test]
async fn unknown_models_are_404_with_near_matches() {
    let server =
        World::new().model("qwen3-0.6b", Reply::text("")).model("smollm2", Reply::text("")).start().await;
    let chat = |name: &str| format!(r#"{{"model":"{name}","messages":[{{"role":"user","content":"Hi"}}]}}"#);
    let answer = server.chat(&chat("qwen3")).await;
    assert_eq!(answer.error(), (404, "model_not_found".into(), Some("model".into())));
    assert!(answer.text().contains("did you mean `qwen3-0.6b`?"), "{}", answer.text());
    assert!(server.chat(&chat("gpt-4o")).await.text().contains("GET /v1/models"));
    for path in ["/v1/models/smollm", "/v1/models/a/b", "/v1/models/%FF", "/v1/models/%00"] {
        assert_eq!(server.get(path).await.error().0, 404, "{path}");
    }
}

#[tokio::test]
async fn every_path_and_method_answers_json() {
    let server = World::replying("").start().await;
    for path in
        ["/v1", "/v1/", "/v1/chat/completions/", "/V1/models", "/v1/models/", "/favicon.ico", "/v1/embedding"]
    {
        assert_eq!(server.get(path).await.error(), (404, "not_found".into(), None), "{path}");
    }
    let paths = [
        (CHAT, "POST"),
        (TEXT, "POST"),
        ("/v1/models", "GET,HEAD"),
        ("/v1/models/m", "GET,HEAD"),
        ("/health", "GET,HEAD"),
    ];
    for (path, allow) in paths {
        for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::TRACE] {
            let request =
                Request::builder().method(method.clone()).uri(path).body(Body::empty()).expect("a request");
            let answer = server.call(request).await;
            assert_eq!(answer.error(), (405, "method_not_allowed".into(), None), "{method} {path}");
            assert_eq!(answer.headers["allow"], allow, "{method} {path}");
        }
    }
    assert_eq!(server.get(CHAT).await.error().0, 405);
    assert_eq!(server.post("/v1/models", "{}").await.error().0, 405);
}

#[tokio::test]
async fn media_types_sizes_and_encodings() {
    let mut world = World::replying("ok");
    world.raw.server.max_body_bytes = Some(1024);
    let server = world.start().await;
    let body = format!("{{{OK_CHAT}}}");
    let with = |name: &'static str, value: &'static str| {
        let mut request = post(CHAT, &body);
        request.headers_mut().insert(name, value.parse().expect("a header"));
        request
    };
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "",
        "multipart/form-data; a=b",
    ] {
        let answer = server.call(with("content-type", content_type)).await;
        assert_eq!(answer.error(), (415, "unsupported_media_type".into(), None), "{content_type}");
    }
    let bare = Request::post(CHAT).body(Body::from(body.clone())).expect("a request");
    assert_eq!(server.call(bare).await.error().0, 415);
    assert_eq!(server.call(with("content-encoding", "gzip")).await.error().0, 415);
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"] {
        assert_eq!(server.call(with("content-type", content_type)).await.status, 200, "{content_type}");
    }
    let long = format!("{{{OK_CHAT},\"x\":\"{}\"}}", "x".repeat(1024));
    let answer = server.chat(&long).await;
    assert_eq!(answer.error(), (413, "request_too_large".into(), None));
    assert!(answer.text().contains("1024"));
    // Without a length, as chunks come: counted while reading.
    let chunks = futures_util::stream::iter((0..200).map(|_| Ok::<_, std::io::Error>("          ")));
    let request = Request::post(CHAT).header("content-type", "application/json");
    let request = request.body(Body::from_stream(chunks)).expect("a request");
    assert_eq!(server.call(request).await.error().0, 413);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408() {
    let server = World::replying("ok").start().await;
    let never = futures_util::stream::pending::<Result<&str, std::io::Error>>();
    let request = Request::post(CHAT).header("content-type", "application/json");
    let answer = server.call(request.body(Body::from_stream(never)).expect("a request")).await;
    assert_eq!(answer.error(), (408, "request_timeout".into(), None));
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_403_on_every_route() {
    let server = World::replying("ok").start().await;
    for path in ["/v1/models", "/health", "/nowhere", CHAT] {
        for (name, code) in [("host", "host_not_allowed"), ("origin", "origin_not_allowed")] {
            let request = Request::get(path)
                .header(name, "http://evil.example")
                .body(Body::empty())
                .expect("a request");
            assert_eq!(server.call(request).await.error(), (403, code.into(), None), "{path}");
        }
    }
}

#[tokio::test]
async fn unknown_fields_are_listed_or_denied() {
    let body = format!(r#"{{{OK_CHAT},"zzz":1,"a\nb":2,"stop":null,"user":"u","tools":[],"seed":-1}}"#);
    let server = World::replying("ok").start().await;
    let answer = server.chat(&body).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["x-duet-ignored"].to_str().unwrap()),
        (200, "a?b, zzz")
    );
    let mut world = World::replying("ok");
    world.raw.server.unknown_fields = Some("deny".into());
    let server = world.start().await;
    assert_eq!(server.chat(&body).await.error(), (400, "unknown_parameter".into(), Some("a\nb".into())));
    assert_eq!(server.chat(&format!("{{{OK_CHAT}}}")).await.status, 200);
}

#[tokio::test]
async fn a_model_without_a_template_cannot_chat() {
    let header = Header { chat_template: None, ..Header::default() };
    let server = World::new().fake("base", header, Default::default()).start().await;
    let answer = server.chat(r#"{"model":"base","messages":[{"role":"user","content":"Hi"}]}"#).await;
    assert_eq!(answer.error(), (400, "unsupported_parameter".into(), Some("messages".into())));
    assert_eq!(server.get("/v1/models/base").await.json()["capabilities"]["chat"], false);
}

#[tokio::test]
async fn request_ids_are_given_back_or_made() {
    let server = World::replying("").start().await;
    let ask = |id: &str| {
        let request =
            Request::get("/nowhere").header("x-request-id", id).body(Body::empty()).expect("a request");
        server.call(request)
    };
    assert_eq!(ask("my-id.1").await.headers["x-request-id"], "my-id.1");
    for bad in ["", "two words", &"x".repeat(129)] {
        let made = ask(bad).await.headers["x-request-id"].to_str().expect("ASCII").to_owned();
        assert!(made.starts_with("req_") && made.len() == 36, "{made}");
    }
}
