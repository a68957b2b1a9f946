//! What the server itself costs, on an engine that computes nothing. Prints, judges nothing:
//! `cargo run --release -p duet-server --example overhead`.
//!
//! * latency of `GET /v1/models` over a socket with 100 models, one of them loading on every core;
//! * latency of a chat answer of one token, over a socket;
//! * CPU time per streamed token: the engine alone, with the server's body on top, over a socket, and for comparison a
//!   bare axum stream of the same bytes over a socket.

#![expect(clippy::print_stdout, reason = "printing is its purpose")]

#[path = "../tests/it/support/gguf.rs"]
mod gguf;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use duet_core::model::ModelInfo;
use duet_core::testing::{ByteTokenizer, FakeBackend, FakeConfig, Reply};
use duet_core::text::ChatTemplate;
use duet_core::{
    BackendError, BackendInfo, GenerateRequest, InferenceBackend, LoadProgress, LoadSpec, LoadedModel, Probe,
    Registry, TextAssets,
};
use duet_server::{RawConfig, RawModel, Server, ServerConfig};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

const N_TOKENS: usize = 128;
const N_STREAMS: usize = 8;
const N_ROUNDS: usize = 40;

/// The fake engine, but loads of "slow" never end and keep every core busy until `stop`.
struct Backend {
    fake: FakeBackend,
    stop: Arc<AtomicBool>,
}

#[async_trait]
impl InferenceBackend for Backend {
    fn info(&self) -> BackendInfo {
        self.fake.info()
    }

    fn probe(&self, model: &ModelInfo) -> Result<Probe, BackendError> {
        self.fake.probe(model)
    }

    async fn load(
        &self,
        spec: LoadSpec,
        progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        if spec.model.path.ends_with("slow.gguf") {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                let stop = self.stop.clone();
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop()
                    }
                });
            }
            std::future::pending::<()>().await;
        }
        self.fake.load(spec, progress).await
    }
}

fn server(dir: &std::path::Path) -> (Server, Arc<Backend>) {
    let mut raw = RawConfig::default();
    let header = gguf::Header { context_length: 512, ..gguf::Header::default() };
    for index in 0..100 {
        let name = if index == 0 { "slow".to_owned() } else { format!("model-{index}") };
        let path = dir.join(format!("{name}.gguf"));
        std::fs::write(&path, header.bytes()).expect("a file");
        let model =
            RawModel { path: Some(path.into()), parallel: Some(N_STREAMS as u32), ..RawModel::default() };
        raw.models.insert(name, model);
    }
    let config =
        FakeConfig { reply: Reply::Tokens(vec![97; 400]), device_sampling: true, ..FakeConfig::default() };
    let backend = Arc::new(Backend { fake: FakeBackend { config }, stop: Arc::default() });
    let text = Arc::new(|_: &ModelInfo| {
        let template = ChatTemplate::new("{{ messages[0].content }}", "", "").map(Arc::new);
        Ok(TextAssets {
            tokenizer: Arc::new(ByteTokenizer::default()),
            template: template.map_err(|e| e.to_string()),
        })
    });
    let registry = Registry::new(vec![backend.clone()], text);
    (Server::new(ServerConfig::from_raw(&raw).expect("valid"), registry).expect("known engines"), backend)
}

/// A keep-alive connection; an answer ends where its length or its last chunk says.
struct Client(TcpStream);

impl Client {
    async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        Self(stream)
    }

    async fn call(&mut self, method: &str, path: &str, body: &str) {
        let n = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {n}\r\n\r\n"
        );
        self.0.write_all((head + body).as_bytes()).await.expect("sent");
        let mut got = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = self.0.read(&mut buffer).await.expect("read");
            assert!(n > 0, "the connection ended");
            got.extend_from_slice(&buffer[..n]);
            if got.ends_with(b"0\r\n\r\n") || is_complete(&got) {
                assert!(got.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&got));
                return;
            }
        }
    }
}

fn is_complete(got: &[u8]) -> bool {
    let Some(end) = got.windows(4).position(|part| part == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&got[..end]);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| got.len() >= end + 4 + length)
}

async fn listen(router: axum::Router) -> SocketAddr {
    use axum::serve::ListenerExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("nodelay"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn latency(name: &str, client: &mut Client, method: &str, path: &str, body: &str) {
    let mut times = Vec::new();
    for _ in 0..2000 {
        let began = Instant::now();
        client.call(method, path, body).await;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{name:<44} p50 {:6.0} us   p99 {:6.0} us   max {:6.0} us", at(0.5), at(0.99), at(1.0));
}

/// User and system time of this process so far, in microseconds.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
    ticks * 1e4 // a tick is 10 ms
}

async fn per_token<F: Future<Output = ()> + Send + 'static>(name: &str, one: impl Fn() -> F) {
    let (cpu, began) = (cpu_us(), Instant::now());
    for _ in 0..N_ROUNDS {
        let streams: Vec<_> = (0..N_STREAMS).map(|_| tokio::spawn(one())).collect();
        for stream in streams {
            stream.await.expect("no panic");
        }
    }
    let n = (N_ROUNDS * N_STREAMS * N_TOKENS) as f64;
    println!(
        "{name:<44} {:6.1} us of CPU, {:6.1} us of time per token",
        (cpu_us() - cpu) / n,
        began.elapsed().as_secs_f64() * 1e6 / n
    );
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let (server, backend) = server(dir.path());
    server.inspect().await;
    println!("100 headers read in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let address = listen(server.router()).await;
    let mut client = Client::new(address).await;

    latency("GET /v1/models, 100 models", &mut client, "GET", "/v1/models", "").await;
    let loading = {
        let server = server.clone();
        tokio::spawn(async move { server.load("slow").await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await; // let the spinning begin
    latency("GET /v1/models, one loading on all cores", &mut client, "GET", "/v1/models", "").await;
    let state = server.models().into_iter().find(|model| model.name == "slow").map(|model| model.state);
    assert_eq!(state, Some("loading"), "the comparison above means nothing otherwise");
    backend.stop.store(true, Ordering::Relaxed);
    loading.abort();
    measure_tokens().await;
}

async fn measure_tokens() {
    let dir = tempfile::tempdir().expect("a folder");
    let (server, backend) = server(dir.path());
    let chat = r#"{"model":"model-1","messages":[{"role":"user","content":"Hello there"}],"max_tokens":1,"temperature":0}"#;
    let address = listen(server.router()).await;
    latency(
        "chat, 1 token, over a socket",
        &mut Client::new(address).await,
        "POST",
        "/v1/chat/completions",
        chat,
    )
    .await;

    let stream = chat.replace("\"max_tokens\":1", &format!("\"max_tokens\":{N_TOKENS},\"stream\":true"));
    let spec = LoadSpec {
        parallel: N_STREAMS as u32,
        kv_tokens: 4096,
        context_length: 512,
        ..duet_core::testing::fake_spec(8)
    };
    let model = backend.load(spec, Arc::new(|_| true)).await.expect("it loads");
    per_token("engine alone", || {
        let events =
            model.generate(GenerateRequest::new("x", vec![72; 11], N_TOKENS as u32)).expect("accepted");
        async move { events.for_each(async |event| drop(event.expect("no failure"))).await }
    })
    .await;
    let router = server.router();
    per_token("engine + server, no socket", || {
        let request = Request::post("/v1/chat/completions").header("content-type", "application/json");
        let call = router.clone().oneshot(request.body(Body::from(stream.clone())).expect("a request"));
        async move {
            let body = call.await.expect("infallible").into_body();
            body.into_data_stream().for_each(async |frame| drop(frame.expect("no failure"))).await;
        }
    })
    .await;
    per_token("engine + server + socket and client", || {
        let stream = stream.clone();
        async move { Client::new(address).await.call("POST", "/v1/chat/completions", &stream).await }
    })
    .await;
    let chunk = format!("data: {}\n\n", "x".repeat(200));
    let bare = axum::Router::new().route(
        "/",
        axum::routing::post(move || {
            let chunk = chunk.clone();
            // Gives way after each chunk, so that each is written by itself as tokens are.
            let chunks = futures_util::stream::iter(0..N_TOKENS).then(move |_| {
                let chunk = chunk.clone();
                async move {
                    tokio::task::yield_now().await;
                    Ok::<_, std::convert::Infallible>(chunk)
                }
            });
            async move { Body::from_stream(chunks) }
        }),
    );
    let address = listen(bare).await;
    per_token("bare axum stream + socket and client", || async move {
        Client::new(address).await.call("POST", "/", "").await;
    })
    .await;
}
