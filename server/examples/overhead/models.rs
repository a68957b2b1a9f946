//! The listing, while nothing happens and while a model loads.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::client::Load;
use crate::fake::World;
use crate::figures::latencies;
use crate::listen;

const N_MODELS: usize = 100;

pub(crate) async fn measure() {
    let began = Instant::now();
    let world = World::new(N_MODELS).await;
    println!("{N_MODELS} headers written and read in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let load = Load {
        address: listen(world.server.router()).await,
        method: "GET",
        path: "/v1/models",
        body: String::new(),
        per_second: 100,
        seconds: 10,
        connections: 4,
    };
    println!("GET /v1/models at 100/s, {N_MODELS} models          {}", latencies(&load.run().await));
    let loading = tokio::spawn({
        let server = world.server.clone();
        async move { server.load("slow").await }
    });
    let is_loading = || {
        let models = world.server.models();
        models.iter().any(|model| model.name == "slow" && model.state == "loading")
    };
    while !is_loading() {
        tokio::task::yield_now().await;
    }
    let times = load.run().await;
    assert!(is_loading(), "the comparison means nothing otherwise");
    println!("… while one loads on all cores            {}", latencies(&times));
    world.backend.stop_spinning.store(true, Ordering::Relaxed);
    loading.await.expect("no panic").expect("it loads");
}
