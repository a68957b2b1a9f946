//! What a request takes longer through the server than with the engine alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use duet_core::{GenerateRequest, LoadedModel};
use futures_util::StreamExt;
use tower::ServiceExt;

use crate::client::Load;
use crate::fake::World;
use crate::figures::{latencies, median, percentile};
use crate::{bare, chat, listen};

const RATES: [u32; 4] = [100, 250, 500, 1000];
const SECONDS: u32 = 4;
const ROUNDS: usize = 3;
const CONNECTIONS: u32 = 16;

pub(crate) async fn measure() {
    let world = World::new(2).await;
    world.gate.open();
    let model = world.model().await;
    let body = chat(r#","max_tokens":1"#);
    let answer = {
        let request = Request::post("/v1/chat/completions").header("content-type", "application/json");
        let request = request.body(Body::from(body.clone())).expect("a request");
        let response = world.server.router().oneshot(request).await.expect("infallible");
        to_bytes(response.into_body(), 1 << 20).await.expect("a body")
    };
    let served = listen(world.server.router()).await;
    let bare = listen(bare::router(Arc::default(), answer)).await;
    println!(
        "chat, one token, {CONNECTIONS} connections, open loop, {ROUNDS} alternating rounds of {SECONDS} s"
    );
    for per_second in RATES {
        let load = |address, path| Load {
            address,
            method: "POST",
            path,
            body: body.clone(),
            per_second,
            seconds: SECONDS,
            connections: CONNECTIONS,
        };
        let [mut through, mut without, mut alone] = [const { Vec::new() }; 3];
        let before = world.own_time().await;
        for _ in 0..ROUNDS {
            through.push(load(served, "/v1/chat/completions").run().await);
            without.push(load(bare, "/").run().await);
            alone.push(engine_alone(&model, per_second).await);
        }
        let after = world.own_time().await;
        println!("at {per_second}/s");
        for (name, rounds) in [("duet", &through), ("bare axum route", &without), ("engine alone", &alone)] {
            println!("  {name:<18} {}", latencies(&all(rounds)));
        }
        let own_us = (after.0 - before.0) / (after.1 - before.1) * 1e6;
        println!("  the server's own time until the engine has a request: mean {own_us:.0} us");
        let added = |share: f64| {
            let pairs = through.iter().zip(&alone);
            median(pairs.map(|(a, b)| percentile(a, share) - percentile(b, share)).collect())
        };
        println!(
            "  added to the engine's, median of rounds: p50 {:.0} us, p99 {:.0} us",
            added(0.5),
            added(0.99)
        );
    }
}

fn all(rounds: &[Vec<f64>]) -> Vec<f64> {
    let mut all = rounds.concat();
    all.sort_by(f64::total_cmp);
    all
}

/// The same request handed to the engine at the same rate, in this process.
async fn engine_alone(model: &Arc<dyn LoadedModel>, per_second: u32) -> Vec<f64> {
    let began = Instant::now();
    let mut requests = Vec::new();
    for n in 0..per_second * SECONDS {
        let due = began + Duration::from_secs(1) / per_second * n;
        tokio::time::sleep_until(due.into()).await;
        let model = model.clone();
        requests.push(tokio::spawn(async move {
            let began = Instant::now();
            let events = model.generate(GenerateRequest::new("x", vec![72; 11], 1)).expect("accepted");
            events.for_each(async |event| drop(event.expect("no failure"))).await;
            began.elapsed().as_secs_f64() * 1e6
        }));
    }
    let mut times = Vec::new();
    for request in requests {
        times.push(request.await.expect("no panic"));
    }
    times.sort_by(f64::total_cmp);
    times
}
