//! What is wrong inside of a body: `code` and `param`, always 400.

use crate::support::{Running, World};

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
        (r#""max_tokens":0"#, "invalid_value", Some("max_tokens")),
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
        (r#""seed":1.5"#, "invalid_type", Some("seed")),
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
        (r#""best_of":3"#, "invalid_value", Some("best_of")),
        (r#""best_of":1,"n":2"#, "invalid_value", Some("best_of")),
        (r#""best_of":2,"stream":true"#, "invalid_value", Some("best_of")),
        (r#""mirostat":3"#, "invalid_value", Some("mirostat")),
        (r#""mirostat":true"#, "invalid_type", Some("mirostat")),
        (r#""mirostat_tau":-1"#, "invalid_value", Some("mirostat_tau")),
        (r#""mirostat":1,"mirostat_eta":"fast""#, "invalid_type", Some("mirostat_eta")),
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
        (r#""priority":"""#, "invalid_value", Some("priority")),
        (r#""priority":"Batch""#, "invalid_value", Some("priority")),
        (r#""priority":"high""#, "invalid_value", Some("priority")),
        (r#""priority":1"#, "invalid_value", Some("priority")),
        (r#""priority":-0.5"#, "invalid_value", Some("priority")),
        (r#""priority":true"#, "invalid_type", Some("priority")),
        (r#""priority":["batch"]"#, "invalid_type", Some("priority")),
        (r#""priority":{}"#, "invalid_type", Some("priority")),
        (r#""cache_prompt":0"#, "invalid_type", Some("cache_prompt")),
        (r#""cache_prompt":"false""#, "invalid_type", Some("cache_prompt")),
        (r#""cache_prompt":[]"#, "invalid_type", Some("cache_prompt")),
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
        (r#""functions":[{}]"#, "functions"),
        (r#""function_call":"auto""#, "function_call"),
        (r#""audio":{}"#, "audio"),
        (r#""modalities":["text","audio"]"#, "modalities"),
        (r#""web_search_options":{}"#, "web_search_options"),
        (r#""prediction":{}"#, "prediction"),
        (r#""store":true"#, "store"),
        (r#""service_tier":"priority""#, "service_tier"),
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
            (r#""echo":true,"logprobs":1,"stream":true"#, "unsupported_parameter", Some("stream")),
            (r#""suffix":"end""#, "unsupported_parameter", Some("suffix")),
            (r#""suffix":["end"]"#, "invalid_type", Some("suffix")),
            (r#""suffix":"end","echo":true,"logprobs":1"#, "invalid_value", Some("suffix")),
        ],
    )
    .await;
}
