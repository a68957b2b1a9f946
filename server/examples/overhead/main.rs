//! What the server itself costs, on an engine that computes nothing. Prints, judges nothing:
//! `cargo run --release -p duet-server --example overhead`, with `models`, `requests` or `streams` behind `--` for a part of
//! it.
//!
//! * `models`: `GET /v1/models` with 100 models, and the same while one of them loads on every core;
//! * `requests`: a chat answer of one token, sent at fixed rates whether or not earlier ones are back (open loop), beside the
//!   engine called directly and a bare axum route that answers as many bytes;
//! * `streams`: CPU per streamed token, paced as an engine paces them, beside a bare axum stream of the same events. The
//!   threads that make the tokens are left out on both sides. Rounds alternate. Linux only.
//!
//! Clients are another process, so that their CPU time is not counted.

#![expect(clippy::print_stdout, reason = "printing is its purpose")]

mod bare;
mod client;
mod cpu;
mod fake;
mod figures;
#[path = "../../tests/it/support/gguf.rs"]
mod gguf;
mod models;
mod requests;
mod streams;

use std::net::SocketAddr;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

/// A chat request of one short message.
fn chat(fields: &str) -> String {
    format!(
        r#"{{"model":"model-1","messages":[{{"role":"user","content":"Hello there"}}],"temperature":0{fields}}}"#
    )
}

/// Serves a router as the server does: small packets do not wait for one another.
async fn listen(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("nodelay"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::main]
async fn measure(part: Option<&str>) {
    println!("{}", figures::machine());
    if part.is_none_or(|part| part == "models") {
        models::measure().await;
    }
    if part.is_none_or(|part| part == "requests") {
        requests::measure().await;
    }
    if part.is_none_or(|part| part == "streams") {
        streams::measure().await;
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["client", rest @ ..] => client::run(rest),
        [] => measure(None),
        [part @ ("models" | "requests" | "streams")] => measure(Some(part)),
        other => println!("unknown: {other:?}"),
    }
}
