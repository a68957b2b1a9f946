//! Servers of known behaviour behind a real socket: each connection gets what a script says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use duet_bench::http::{Client, HttpError};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    /// "POST /v1/completions".
    pub(crate) line: String,
    /// Null where there is none.
    pub(crate) body: Value,
}

/// What is done to a connection, in order; then it is closed.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Send(String),
    Bytes(Vec<u8>),
    /// Waits for a permit.
    Await(Arc<Semaphore>),
    /// Gives this many permits.
    Give(Arc<Semaphore>, usize),
    /// Is slow.
    Slow,
}

/// A listening server; ends with it.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
    n_open: Arc<AtomicUsize>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stub {
    pub(crate) async fn new(script: impl Fn(&Got) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::on(0, script).await
    }

    pub(crate) async fn on(port: u16, script: impl Fn(&Got) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(script);
        let n_open = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn({
            let n_open = n_open.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    n_open.fetch_add(1, Ordering::SeqCst);
                    let (script, n_open) = (script.clone(), n_open.clone());
                    tokio::spawn(async move {
                        serve(stream, script).await;
                        n_open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Self { address, task, n_open }
    }

    /// Resolves when every connection that came has been served or given up.
    pub(crate) async fn idle(&self) {
        until(async || self.n_open.load(Ordering::SeqCst) == 0).await;
    }

    /// Until the process ends.
    pub(crate) async fn serve_for_ever(mut self) {
        let _ = (&mut self.task).await;
    }

    /// Answers every completion by this script.
    pub(crate) async fn completing(acts: Vec<Act>) -> Self {
        Self::new(move |_| acts.clone()).await
    }
}

/// Looks again and again, giving way to others in between; fails after a minute.
pub(crate) async fn until(condition: impl AsyncFn() -> bool) {
    let began = std::time::Instant::now();
    while !condition().await {
        assert!(began.elapsed().as_secs() < 60, "it never came about");
        tokio::task::yield_now().await;
    }
}

/// Resolves when nobody listens where this client looks.
pub(crate) async fn gone(client: &Client) {
    until(async || matches!(client.get("/health").await, Err(HttpError::Connect { .. }))).await;
}

async fn serve(mut stream: TcpStream, script: Arc<impl Fn(&Got) -> Vec<Act>>) {
    let Some(got) = read(&mut stream).await else { return };
    for act in script(&got) {
        let sent = match act {
            Act::Send(text) => stream.write_all(text.as_bytes()).await,
            Act::Bytes(bytes) => stream.write_all(&bytes).await,
            Act::Await(permits) => {
                permits.acquire().await.expect("never closed").forget();
                Ok(())
            }
            Act::Give(permits, n) => {
                permits.add_permits(n);
                Ok(())
            }
            Act::Slow => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(())
            }
        };
        if sent.is_err() {
            return; // the client left
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Got> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
        let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if bytes.len() >= end + 4 + length.unwrap_or(0) {
            break end;
        }
    };
    let line = String::from_utf8_lossy(&bytes[..end]);
    let line = line.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some(Got { line, body: serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default() })
}

/// The head of a stream of events that ends when the connection does.
pub(crate) fn head() -> Act {
    Act::Send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".into())
}

/// A whole answer.
pub(crate) fn whole(status: &str, body: &str) -> Vec<Act> {
    let n = body.len();
    vec![Act::Send(format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {n}\r\n\r\n{body}"
    ))]
}

pub(crate) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// An event with this text.
pub(crate) fn text(text: &str) -> String {
    event(
        &json!({"choices": [{"index": 0, "text": text, "finish_reason": null}], "system_fingerprint": "fp_stub"}),
    )
}

/// The events that end an answer.
pub(crate) fn end(n_prompt: usize, n_cached: usize, n_tokens: usize) -> String {
    let last = json!({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]});
    let usage = json!({
        "prompt_tokens": n_prompt, "completion_tokens": n_tokens, "prompt_tokens_details": {"cached_tokens": n_cached},
    });
    let usage = json!({"choices": [], "usage": usage, "timings": {"prompt_n": n_prompt - n_cached}});
    format!("{}{}data: [DONE]\n\n", event(&last), event(&usage))
}

/// A server that does as it should, with a prefix cache; scenarios are run against it.
pub(crate) mod model {
    use std::sync::Mutex;

    use super::*;

    /// What it saw.
    #[derive(Default)]
    pub(crate) struct Seen {
        pub(crate) prompts: Mutex<Vec<Vec<u64>>>,
    }

    impl Seen {
        pub(crate) fn completions(&self) -> Vec<Vec<u64>> {
            self.prompts.lock().unwrap().clone()
        }

        /// How many leading ids of this prompt an earlier one has, but never all.
        fn note(&self, prompt: Vec<u64>) -> usize {
            let mut prompts = self.prompts.lock().unwrap();
            let shared = |other: &Vec<u64>| other.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
            let n = prompts.iter().map(shared).max().unwrap_or(0).min(prompt.len() - 1);
            prompts.push(prompt);
            n
        }
    }

    /// Every token comes by itself, a millisecond after the one before; none before the request's prompt "is read".
    pub(crate) fn script(seen: Arc<Seen>) -> impl Fn(&Got) -> Vec<Act> + Send + Sync + 'static {
        move |got| match got.line.as_str() {
            "GET /health" => whole("200 OK", "{}"),
            "GET /v1/models" => whole("200 OK", r#"{"data":[{"id":"stub"}]}"#),
            "POST /v1/completions" => complete(&got.body, &seen),
            _ => whole("404 Not Found", "{}"),
        }
    }

    fn complete(body: &Value, seen: &Seen) -> Vec<Act> {
        for (key, value) in [("model", json!("stub")), ("temperature", json!(0.0)), ("stream", json!(true))] {
            assert_eq!(body[key], value, "{key}");
        }
        assert_eq!(
            (&body["ignore_eos"], &body["stream_options"]["include_usage"]),
            (&json!(true), &json!(true))
        );
        let prompt: Vec<u64> = serde_json::from_value(body["prompt"].clone()).expect("ids");
        let n_tokens = body["max_tokens"].as_u64().expect("a number") as usize;
        let n_prompt = prompt.len();
        let n_cached = seen.note(prompt);
        let mut acts = vec![Act::Slow; 1 + (n_prompt - n_cached) / 50];
        acts.push(head());
        for _ in 0..n_tokens {
            acts.extend([Act::Send(text("x")), Act::Slow]);
        }
        acts.push(Act::Send(end(n_prompt, n_cached, n_tokens)));
        acts
    }
}
