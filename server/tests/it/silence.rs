//! What must never be in the log: prompts, answers, keys.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use axum::http::Request;
use duet_core::testing::Reply;
use tracing_subscriber::EnvFilter;

use crate::support::{Answer, World};

/// Everything that any test of this binary logs.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct ToLog;

impl Write for ToLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn prompts_answers_and_keys_are_not_logged_even_where_all_is() {
    // What duet itself can say at most; its libraries as `duet serve` has them.
    let filter = EnvFilter::new("info,duet_server=trace,duet_core=trace");
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| ToLog).finish();
    tracing::subscriber::set_global_default(subscriber).expect("nobody else listens to the log");
    const KEY: &str = "xylophone-key-of-mine";
    let mut world = World::new().model("m", Reply::text("xylophone-answer"));
    let file = world.dir.path().join("keys.txt");
    std::fs::write(&file, KEY).expect("a file");
    world.raw.server.api_keys_file = Some(file.into());
    let server = world.start().await;
    let send = async |path: &str, body: String, key: &str| -> Answer {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {key}"))
            .header("x-request-id", "the-line-that-is-there")
            .body(Body::from(body));
        server.call(request.expect("a request")).await
    };
    let good =
        r#"{"model":"m","messages":[{"role":"user","content":"xylophone-prompt"}],"user":"xylophone-user""#;
    for (path, body, key, status) in [
        ("/v1/chat/completions", format!("{good}}}"), KEY, 200),
        ("/v1/chat/completions", format!("{good},\"stream\":true}}"), KEY, 200),
        ("/v1/chat/completions", format!("{good},\"temperature\":\"xylophone\"}}"), KEY, 400),
        ("/v1/chat/completions", format!("{good},\"stop\":[\"xylophone-stop\",\"\"]}}"), KEY, 400),
        ("/v1/chat/completions", format!("{good},\"xylophone-field\":1}}"), KEY, 200),
        ("/v1/chat/completions", format!("{good} xylophone"), KEY, 400),
        ("/v1/completions", format!(r#"{{"model":"m","prompt":"{}"}}"#, "xylophone ".repeat(100)), KEY, 400),
        ("/v1/chat/completions", format!("{good}}}").replace("\"m\"", "\"xylophone-model\""), KEY, 404),
        ("/tokenize", r#"{"content":"xylophone-text"}"#.to_owned(), KEY, 200),
        ("/v1/chat/completions", format!("{good}}}"), "xylophone-wrong-key", 401),
    ] {
        assert_eq!(send(path, body.clone(), key).await.status, status, "{body}");
    }
    drop(server);
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("the-line-that-is-there"), "the log is read at all: {log}");
    let told: Vec<_> = log.lines().filter(|line| line.contains("xylophone")).collect();
    assert!(told.is_empty(), "{told:#?}");
}
