//! Everything that can be wrong with a request: status, `code`, `param`, and always the envelope.

use axum::body::Body;
use axum::http::{Method, Request};
use duet_core::testing::Reply;

use crate::support::gguf::Header;
use crate::support::{Running, World, post};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// `(body, code, param)`: what is refused with 400.
type Refusals<'a> = &'a [(&'a str, &'a str, Option<&'a str>)];

#[track_caller]
fn same(body: &str, got: (u16, String, Option<String>), code: &str, param: Option<&str>) {
    assert_eq!((got.0, got.1.as_str(), got.2.as_deref()), (400, code, param), "{body}");
}

async fn check(server: &Running, path: &str, refusals: Refusals<'_>) {
    for (body, code, param) in refusals {
        same(body, server.post(path, body).await.error(), code, *param);
    }
}

/// Each of these beside a valid rest.
async fn check_fields(server: &Running, path: &str, rest: &str, refusals: Refusals<'_>) {
    for (fields, code, param) in refusals {
        let body = format!("{{{rest},{fields}}}");
        same(&body, server.post(path, &body).await.error(), code, *param);
    }
}

#[tokio::test]
async fn bodies() {
    let server = World::replying("").start().await;
    let deep = format!("{{\"model\":\"m\",\"messages\":{}1{}}}", "[".repeat(1000), "]".repeat(1000));
    for path in [CHAT, TEXT] {
        check(
            &server,
            path,
            &[
                ("", "invalid_json", None),
                ("{", "invalid_json", None),
                ("{\"model\":\"m\"", "invalid_json", None),
                ("{'model':'m'}", "invalid_json", None),
                (&deep, "invalid_json", None),
                ("[]", "invalid_type", None),
                ("\"model\"", "invalid_type", None),
                ("null", "invalid_type", None),
                ("{}", "missing_parameter", Some("model")),
                ("{\"model\":null}", "missing_parameter", Some("model")),
                ("{\"model\":1}", "invalid_type", Some("model")),
                ("{\"model\":[\"m\"]}", "invalid_type", Some("model")),
            ],
        )
        .await;
    }
    check(&server, CHAT, &[(r#"{"model":"m"}"#, "missing_parameter", Some("messages"))]).await;
    check(&server, TEXT, &[(r#"{"model":"m"}"#, "missing_parameter", Some("prompt"))]).await;
}

#[tokio::test]
async fn messages() {
    let server = World::replying("").start().await;
    let refusals: Refusals<'_> = &[
        ("[]", "invalid_value", Some("messages")),
        ("{}", "invalid_type", Some("messages")),
        ("\"Hi\"", "invalid_type", Some("messages")),
        ("[1]", "invalid_type", Some("messages[0]")),
        ("[{}]", "missing_parameter", Some("messages[0]")),
        (r#"[{"role":"user"}]"#, "missing_parameter", Some("messages[0].content")),
        (r#"[{"role":"user","content":null}]"#, "missing_parameter", Some("messages[0].content")),
        (r#"[{"role":"assistant"}]"#, "missing_parameter", Some("messages[0].content")),
        (r#"[{"content":"Hi"}]"#, "missing_parameter", Some("messages[0]")),
        (r#"[{"role":"wizard","content":"Hi"}]"#, "invalid_value", Some("messages[0].role")),
        (r#"[{"role":1,"content":"Hi"}]"#, "invalid_type", Some("messages[0].role")),
        (
            r#"[{"role":"user","content":"a"},{"role":"user","content":7}]"#,
            "invalid_type",
            Some("messages[1].content"),
        ),
        (r#"[{"role":"user","content":["a"]}]"#, "invalid_type", Some("messages[0].content[0]")),
        (
            r#"[{"role":"user","content":[{"type":"text"}]}]"#,
            "missing_parameter",
            Some("messages[0].content[0].text"),
        ),
        (
            r#"[{"role":"user","content":[{"text":"a"}]}]"#,
            "missing_parameter",
            Some("messages[0].content[0]"),
        ),
        (
            r#"[{"role":"user","content":[{"type":"x"}]}]"#,
            "invalid_value",
            Some("messages[0].content[0].type"),
        ),
        (
            r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:,"}}]}]"#,
            "unsupported_parameter",
            Some("messages[0].content[1]"),
        ),
        (r#"[{"role":"tool","content":"1"}]"#, "missing_parameter", Some("messages[0].tool_call_id")),
        (
            r#"[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"arguments":"{}"}}]}]"#,
            "missing_parameter",
            Some("messages[0].tool_calls[0].function"),
        ),
        (
            r#"[{"role":"assistant","tool_calls":[{"id":"1","type":"magic","function":{"name":"f"}}]}]"#,
            "unsupported_parameter",
            Some("messages[0].tool_calls[0].type"),
        ),
        (
            r#"[{"role":"user","content":"a","tool_calls":[{"id":"1","function":{"name":"f"}}]}]"#,
            "invalid_value",
            Some("messages[0].tool_calls"),
        ),
    ];
    for (messages, code, param) in refusals {
        let body = format!(r#"{{"model":"m","messages":{messages}}}"#);
        same(&body, server.chat(&body).await.error(), code, *param);
    }
}

#[tokio::test]
async fn prompts() {
    let server = World::replying("").start().await;
    let refusals: Refusals<'_> = &[
        ("[]", "invalid_value", Some("prompt")),
        ("{}", "invalid_type", Some("prompt")),
        ("1", "invalid_type", Some("prompt")),
        ("true", "invalid_type", Some("prompt")),
        ("[true]", "invalid_type", Some("prompt[0]")),
        ("[-1]", "invalid_value", Some("prompt[0]")),
        ("[1.5]", "invalid_type", Some("prompt[0]")),
        ("[5000000000]", "invalid_value", Some("prompt[0]")),
        ("[[1],[2,\"a\"]]", "invalid_type", Some("prompt[1][1]")),
        ("[[1],[]]", "invalid_value", Some("prompt[1]")),
        ("[\"a\",1]", "invalid_value", Some("prompt[1]")),
        ("[1,\"a\"]", "invalid_value", Some("prompt[0]")),
        ("[[1],\"a\"]", "invalid_value", Some("prompt[1]")),
        ("[260]", "invalid_value", Some("prompt")),
        ("[[1],[4000000000]]", "invalid_value", Some("prompt[1]")),
    ];
    for (prompt, code, param) in refusals {
        let body = format!(r#"{{"model":"m","prompt":{prompt}}}"#);
        same(&body, server.post(TEXT, &body).await.error(), code, *param);
    }
    let many = vec!["\"a\""; 2049].join(",");
    let body = format!(r#"{{"model":"m","prompt":[{many}]}}"#);
    same("many prompts", server.post(TEXT, &body).await.error(), "invalid_value", Some("prompt"));
}

const OK_CHAT: &str = r#""model":"m","messages":[{"role":"user","content":"Hi"}]"#;
const OK_TEXT: &str = r#""model":"m","prompt":"Hi""#;

#[tokio::test]
async fn parameters_of_both_routes() {
    let server = World::replying("").start().await;
    let refusals: Refusals<'_> = &[
        (r#""max_tokens":"1""#, "invalid_type", Some("max_tokens")),
        (r#""max_tokens":-1"#, "invalid_value", Some("max_tokens")),
        (r#""max_tokens":1.5"#, "invalid_type", Some("max_tokens")),
        (r#""max_tokens":0"#, "unsupported_parameter", Some("max_tokens")),
        (r#""max_tokens":1,"max_completion_tokens":2"#, "invalid_value", Some("max_completion_tokens")),
        (r#""max_tokens":1,"min_tokens":2"#, "invalid_value", Some("min_tokens")),
        (r#""ignore_eos":"yes""#, "invalid_type", Some("ignore_eos")),
        (r#""stop":1"#, "invalid_type", Some("stop")),
        (r#""stop":["a",1]"#, "invalid_type", Some("stop[1]")),
        (r#""stop":["a",""]"#, "invalid_value", Some("stop[1]")),
        (r#""stop":"""#, "invalid_value", Some("stop[0]")),
        (r#""stop_token_ids":["a"]"#, "invalid_type", Some("stop_token_ids[0]")),
        (r#""stop_token_ids":[260]"#, "invalid_value", Some("stop_token_ids")),
        (r#""temperature":"hot""#, "invalid_type", Some("temperature")),
        (r#""temperature":-0.1"#, "invalid_value", Some("temperature")),
        (r#""temperature":2.1"#, "invalid_value", Some("temperature")),
        (r#""temperature":1e39"#, "invalid_value", Some("temperature")),
        (r#""top_p":1.1"#, "invalid_value", Some("top_p")),
        (r#""top_k":-2"#, "invalid_value", Some("top_k")),
        (r#""top_k":0.5"#, "invalid_type", Some("top_k")),
        (r#""min_p":-1"#, "invalid_value", Some("min_p")),
        (r#""typical_p":2"#, "invalid_value", Some("typical_p")),
        (r#""top_n_sigma":-3"#, "invalid_value", Some("top_n_sigma")),
        (r#""xtc_probability":2"#, "invalid_value", Some("xtc_probability")),
        (r#""xtc_threshold":-1"#, "invalid_value", Some("xtc_threshold")),
        (r#""dry_multiplier":-1"#, "invalid_value", Some("dry_multiplier")),
        (r#""dry_base":0.5"#, "invalid_value", Some("dry_base")),
        (r#""dry_allowed_length":0"#, "invalid_value", Some("dry_allowed_length")),
        (r#""dry_penalty_last_n":-2"#, "invalid_value", Some("dry_penalty_last_n")),
        (
            r#""dry_multiplier":1,"dry_sequence_breakers":[""]"#,
            "invalid_value",
            Some("dry_sequence_breakers"),
        ),
        (
            r#""dry_multiplier":1,"dry_sequence_breakers":["no token"]"#,
            "invalid_value",
            Some("dry_sequence_breakers[0]"),
        ),
        (r#""seed":1.5"#, "invalid_value", Some("seed")),
        (r#""seed":"1""#, "invalid_type", Some("seed")),
        (r#""presence_penalty":3"#, "invalid_value", Some("presence_penalty")),
        (r#""frequency_penalty":-3"#, "invalid_value", Some("frequency_penalty")),
        (r#""repetition_penalty":0"#, "invalid_value", Some("repetition_penalty")),
        (r#""repetition_penalty":1.1,"repeat_penalty":1.2"#, "invalid_value", Some("repeat_penalty")),
        (r#""repeat_last_n":-2"#, "invalid_value", Some("repeat_last_n")),
        (r#""logit_bias":[]"#, "invalid_type", Some("logit_bias")),
        (r#""logit_bias":{"a":1}"#, "invalid_value", Some("logit_bias.a")),
        (r#""logit_bias":{"-1":1}"#, "invalid_value", Some("logit_bias.-1")),
        (r#""logit_bias":{"260":1}"#, "invalid_value", Some("logit_bias")),
        (r#""logit_bias":{"1":101}"#, "invalid_value", Some("logit_bias")),
        (r#""logit_bias":{"1":"x"}"#, "invalid_type", Some("logit_bias.1")),
        (r#""n":0"#, "invalid_value", Some("n")),
        (r#""n":3"#, "invalid_value", Some("n")),
        (r#""n":1.0"#, "invalid_type", Some("n")),
        (r#""best_of":2"#, "unsupported_parameter", Some("best_of")),
        (r#""stream":1"#, "invalid_type", Some("stream")),
        (r#""stream_options":{}"#, "invalid_value", Some("stream_options")),
        (r#""stream":true,"stream_options":[]"#, "invalid_type", Some("stream_options")),
        (
            r#""stream":true,"stream_options":{"include_usage":1}"#,
            "invalid_type",
            Some("stream_options.include_usage"),
        ),
        (
            r#""stream":true,"stream_options":{"continuous_usage_stats":true}"#,
            "unsupported_parameter",
            Some("stream_options.continuous_usage_stats"),
        ),
        (r#""response_format":"json""#, "invalid_type", Some("response_format")),
        (r#""response_format":{"type":"xml"}"#, "invalid_value", Some("response_format.type")),
    ];
    for (path, rest) in [(CHAT, OK_CHAT), (TEXT, OK_TEXT)] {
        check_fields(&server, path, rest, refusals).await;
    }
}

#[tokio::test]
async fn what_is_not_there_yet_is_refused_by_name() {
    let server = World::replying("").start().await;
    for (field, param) in [
        (r#""response_format":{"type":"json_object"}"#, "response_format"),
        (r#""response_format":{"type":"json_schema","json_schema":{}}"#, "response_format"),
        (r#""tools":[{"type":"function","function":{"name":"f"}}]"#, "tools"),
        (r#""tool_choice":"auto""#, "tool_choice"),
        (r#""tool_choice":{"type":"function","function":{"name":"f"}}"#, "tool_choice"),
        (r#""functions":[{}]"#, "functions"),
        (r#""function_call":"auto""#, "function_call"),
        (r#""grammar":"root ::= x""#, "grammar"),
        (r#""guided_json":{}"#, "guided_json"),
        (r#""audio":{}"#, "audio"),
        (r#""modalities":["text","audio"]"#, "modalities"),
        (r#""web_search_options":{}"#, "web_search_options"),
        (r#""prediction":{}"#, "prediction"),
        (r#""store":true"#, "store"),
        (r#""service_tier":"priority""#, "service_tier"),
        (r#""mirostat":2"#, "mirostat"),
        (r#""priority":"batch""#, "priority"),
        (r#""keep_alive":"5m""#, "keep_alive"),
        (r#""bad_words":["x"]"#, "bad_words"),
        (r#""n_predict":5"#, "n_predict"),
        (r#""prompt_logprobs":1"#, "prompt_logprobs"),
    ] {
        for (path, rest) in [(CHAT, OK_CHAT), (TEXT, OK_TEXT)] {
            check_fields(&server, path, rest, &[(field, "unsupported_parameter", Some(param))]).await;
        }
    }
    check_fields(
        &server,
        CHAT,
        OK_CHAT,
        &[
            (r#""top_logprobs":2"#, "invalid_value", Some("top_logprobs")),
            (r#""logprobs":true,"top_logprobs":21"#, "invalid_value", Some("top_logprobs")),
            (r#""logprobs":2"#, "invalid_type", Some("logprobs")),
            (
                r#""continue_final_message":true,"add_generation_prompt":true"#,
                "invalid_value",
                Some("continue_final_message"),
            ),
            (r#""chat_template_kwargs":[]"#, "invalid_type", Some("chat_template_kwargs")),
            (r#""chat_template_kwargs":{"messages":[]}"#, "invalid_value", Some("messages")),
            (r#""reasoning_effort":"high""#, "unsupported_parameter", Some("reasoning_effort")),
            (
                r#""enable_thinking":true,"chat_template_kwargs":{"enable_thinking":false}"#,
                "invalid_value",
                Some("enable_thinking"),
            ),
        ],
    )
    .await;
    check_fields(
        &server,
        TEXT,
        OK_TEXT,
        &[
            (r#""logprobs":21"#, "invalid_value", Some("logprobs")),
            (r#""logprobs":true"#, "invalid_type", Some("logprobs")),
            (r#""echo":1"#, "invalid_type", Some("echo")),
            (r#""echo":true,"logprobs":1"#, "unsupported_parameter", Some("echo")),
            (r#""suffix":"end""#, "unsupported_parameter", Some("suffix")),
        ],
    )
    .await;
}

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
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/chat/completions/",
        "/V1/models",
        "/v1/models/",
        "/favicon.ico",
        "/v1/embeddings",
    ] {
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
