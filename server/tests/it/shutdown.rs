//! A real socket, and the way down.

use std::net::SocketAddr;
use std::sync::Arc;

use duet_core::testing::{FakeConfig, FakeGate, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::gguf::Header;
use crate::support::{Running, World, until_async};

struct Live {
    server: Arc<Running>,
    gate: Arc<FakeGate>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn live(shutdown_timeout_s: f64) -> Live {
    let gate = FakeGate::closed();
    let config = FakeConfig { gate: Some(gate.clone()), reply: Reply::text("abc"), ..FakeConfig::default() };
    let mut world = World::new().fake("m", Header::default(), config);
    world.raw.server.shutdown_timeout_s = Some(shutdown_timeout_s);
    let server = Arc::new(world.start().await);
    server.server.load("m").await.expect("it loads");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel();
    let served = server.server.clone();
    let task = tokio::spawn(async move { served.serve(listener, async { drop(stopped.await) }).await });
    Live { server, gate, address, stop, task }
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
}

async fn send(stream: &mut TcpStream, method: &str, path: &str, body: &str) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("it is sent");
}

/// Reads until the text so far contains `end`.
async fn read_until(stream: &mut TcpStream, text: &mut String, end: &str) {
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        let n = stream.read(&mut buffer).await.expect("it is read");
        assert!(n > 0, "the connection ended before {end:?}: {text}");
        text.push_str(std::str::from_utf8(&buffer[..n]).expect("ASCII"));
    }
}

const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;

#[tokio::test]
async fn streams_end_new_requests_are_refused_and_the_server_returns() {
    let Live { server, gate, address, stop, task } = live(60.0).await;
    gate.let_through(1);
    let (mut running, mut text) = (connect(address).await, String::new());
    send(&mut running, "POST", "/v1/chat/completions", STREAM).await;
    read_until(&mut running, &mut text, "\"content\":\"a\"").await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    stop.send(()).expect("the server runs");
    until_async(async || server.get("/health").await.json()["status"] == "stopping").await;
    let (mut late, mut refusal) = (connect(address).await, String::new());
    send(&mut late, "POST", "/v1/chat/completions", STREAM).await;
    read_until(&mut late, &mut refusal, "shutting_down").await;
    assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("retry-after: 10"), "{refusal}");
    gate.open();
    read_until(&mut running, &mut text, "data: [DONE]").await;
    task.await.expect("no panic").expect("a clean end");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_with_an_error_event() {
    let Live { gate, address, stop, task, .. } = live(0.05).await;
    gate.let_through(1);
    let (mut running, mut text) = (connect(address).await, String::new());
    send(&mut running, "POST", "/v1/chat/completions", STREAM).await;
    read_until(&mut running, &mut text, "\"content\":\"a\"").await;
    let (mut whole, mut answer) = (connect(address).await, String::new());
    send(&mut whole, "POST", "/v1/chat/completions", &STREAM.replace("true", "false")).await;
    // It is in when it is counted.
    let (mut health, mut state) = (connect(address).await, String::new());
    while !state.contains("\"n_active_requests\":2") {
        state.clear();
        send(&mut health, "GET", "/health", "").await;
        read_until(&mut health, &mut state, "\"models\"").await;
    }
    stop.send(()).expect("the server runs");
    read_until(&mut running, &mut text, "shutting_down").await;
    assert!(!text.contains("[DONE]") && !text.contains("\"finish_reason\":\"stop\""), "{text}");
    read_until(&mut whole, &mut answer, "shutting_down").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    gate.open(); // else the engine's thread stands in the gate and cannot free its model
    task.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_server_without_requests_stops_at_once() {
    let Live { gate, address, stop, task, .. } = live(60.0).await;
    gate.open();
    let (mut idle, mut text) = (connect(address).await, String::new());
    send(&mut idle, "GET", "/livez", "").await;
    read_until(&mut idle, &mut text, "ok").await;
    stop.send(()).expect("the server runs");
    task.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_broken_connection_frees_the_sequence() {
    let Live { server, gate, address, stop, task } = live(60.0).await;
    gate.let_through(1);
    let (mut running, mut text) = (connect(address).await, String::new());
    send(&mut running, "POST", "/v1/chat/completions", STREAM).await;
    read_until(&mut running, &mut text, "\"content\":\"a\"").await;
    drop(running);
    until_async(async || server.get("/health").await.json()["n_active_requests"] == 0).await;
    gate.let_through(1);
    until_async(async || server.get("/health").await.json()["models"]["m"]["n_running"] == 0).await;
    gate.open();
    stop.send(()).expect("the server runs");
    task.await.expect("no panic").expect("a clean end");
}
