//! Clients that hold connections without doing anything, and TLS. A limit of one connection makes the end of one visible:
//! the next is answered.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use duet_core::testing::Reply;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{Running, World};

struct Live {
    address: SocketAddr,
    _server: Arc<Running>,
}

async fn live(world: World) -> Live {
    let server = Arc::new(world.start().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = server.server.clone();
    tokio::spawn(async move { served.serve(listener, std::future::pending()).await });
    Live { address, _server: server }
}

/// One connection at once, and hardly any patience.
async fn impatient() -> Live {
    let mut world = World::new().model("m", Reply::text("ok"));
    world.raw.server.max_connections = Some(1);
    world.raw.server.header_timeout_s = Some(0.3);
    world.raw.server.write_timeout_s = Some(0.3);
    live(world).await
}

const LIVE: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it is answered");
    answer
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_cut() {
    for beginning in ["", "GET", "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: "] {
        let server = impatient().await;
        let mut slow = connect(server.address).await;
        slow.write_all(beginning.as_bytes()).await.expect("it is sent");
        let answer = ask(connect(server.address).await, LIVE).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{beginning:?}: {answer}");
        // Cut, whether by an end or by a reset.
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn who_trickles_a_head_is_cut_as_well() {
    let server = impatient().await;
    let slow = connect(server.address).await;
    let trickle = tokio::spawn(async move {
        let (mut read, mut write) = slow.into_split();
        let drip = async {
            let mut sent = write.write_all(b"GET /livez HTTP/1.1\r\n").await;
            while sent.is_ok() {
                // The pace of the client, not a wait for something.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                sent = write.write_all(b"x: y\r\n").await;
            }
        };
        let mut answer = Vec::new();
        tokio::select! { () = drip => {}, _ = read.read_to_end(&mut answer) => {} }
    });
    assert!(ask(connect(server.address).await, LIVE).await.starts_with("HTTP/1.1 200"));
    trickle.await.expect("it was cut");
}

#[tokio::test]
async fn who_keeps_a_connection_idle_after_an_answer_is_cut() {
    let server = impatient().await;
    let mut idle = connect(server.address).await;
    idle.write_all(LIVE.replace("close", "keep-alive").as_bytes()).await.expect("it is sent");
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.expect("it is answered");
    assert_eq!(&first, b"HTTP/1.1 200");
    assert!(ask(connect(server.address).await, LIVE).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_does_not_read_is_cut() {
    let server = impatient().await;
    let (read, mut write) = connect(server.address).await.into_split();
    // More than the buffers of both ends hold, and nothing of it is read.
    let flood = tokio::spawn(async move {
        let request = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
        while write.write_all(request.as_bytes()).await.is_ok() {}
    });
    assert!(ask(connect(server.address).await, LIVE).await.starts_with("HTTP/1.1 200"));
    flood.await.expect("it was cut");
    drop(read);
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    let server = live(World::replying("ok")).await;
    let many = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(200));
    let long = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(2 << 20));
    let path = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "y".repeat(2 << 20));
    for head in [many.as_str(), &long, &path, "GET\r\n\r\n", "\u{0}\u{1}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let mut stream = connect(server.address).await;
        let _ = stream.write_all(head.as_bytes()).await; // it may be cut before all of it is sent
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert!(ask(connect(server.address).await, LIVE).await.starts_with("HTTP/1.1 200"));
}

/// A certificate for localhost in these files; gives it for clients to trust.
fn certificate(chain: &Path, key: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(key, signing_key.serialize_pem()).expect("a file");
    std::fs::write(chain, cert.pem()).expect("a file");
    cert.der().clone()
}

fn connector(trusted: &CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    TlsConnector::from(Arc::new(
        config.expect("versions").with_root_certificates(roots).with_no_client_auth(),
    ))
}

async fn trusts(address: SocketAddr, certificate: &CertificateDer<'static>) -> bool {
    let name = ServerName::try_from("localhost").expect("a name");
    match connector(certificate).connect(name, connect(address).await).await {
        Ok(stream) => ask(stream, LIVE).await.starts_with("HTTP/1.1 200"),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_certificate_is_read_again_and_a_broken_one_is_not_taken() {
    let mut world = World::replying("ok");
    let (chain, key) = (world.dir.path().join("chain.pem"), world.dir.path().join("key.pem"));
    let first = certificate(&chain, &key);
    world.raw.server.tls_cert = Some(chain.clone().into());
    world.raw.server.tls_key = Some(key.clone().into());
    let server = live(world).await;
    assert!(trusts(server.address, &first).await);
    // Plain HTTP gets no answer there.
    let mut plain = connect(server.address).await;
    plain.write_all(LIVE.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    std::fs::write(&chain, "no certificate").expect("a file");
    let looked = std::time::Instant::now();
    while looked.elapsed().as_millis() < 1500 {
        assert!(trusts(server.address, &first).await, "the old one stays");
    }
    let second = certificate(&chain, &key);
    let began = std::time::Instant::now();
    while !trusts(server.address, &second).await {
        assert!(began.elapsed().as_secs() < 60, "it is never read again");
    }
    assert!(!trusts(server.address, &first).await);
}

#[tokio::test]
async fn files_that_are_no_certificates_stop_the_start() {
    for (chain_text, key_text) in [("", ""), ("nothing", "nothing")] {
        let mut world = World::replying("ok");
        let (chain, key) = (world.dir.path().join("chain.pem"), world.dir.path().join("key.pem"));
        std::fs::write(&chain, chain_text).expect("a file");
        std::fs::write(&key, key_text).expect("a file");
        world.raw.server.tls_cert = Some(chain.into());
        world.raw.server.tls_key = Some(key.into());
        let server = world.start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let error = server.server.serve(listener, async {}).await.expect_err("refused");
        assert!(error.to_string().contains("chain.pem"), "{error}");
    }
}
