//! User CPU per streamed token, beside a bare axum stream of the same events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::Request;
use tokio::sync::mpsc::UnboundedSender;
use tower::ServiceExt;

use crate::bare::{self, Readers};
use crate::cpu::Cpu;
use crate::fake::{PARALLEL, World};
use crate::figures::median;
use crate::{chat, client, listen};

const N_STREAMS: usize = PARALLEL as usize;
const N_TOKENS: usize = 1000;
/// No multiple or part of a usual tick rate, at which user time is sampled.
const STEPS_PER_SECOND: u32 = 433;
const ROUNDS: usize = 7;
const PATH: &str = "/v1/chat/completions";

struct Setting {
    world: World,
    duet: SocketAddr,
    bare: SocketAddr,
    readers: Readers,
    body: String,
    /// A token's event as the server writes it, without `data: `.
    event: String,
}

pub(crate) async fn measure() {
    let setting = Setting::new().await;
    println!(
        "{N_STREAMS} streams of {N_TOKENS} tokens at {STEPS_PER_SECOND} steps/s, events of {} bytes, {ROUNDS} alternating \
         rounds; us of CPU per token of all threads but the one that makes the tokens",
        setting.event.len() + 8
    );
    let (mut bare, mut duet, mut above) = (Cpu::default(), Cpu::default(), Vec::new());
    for _ in 0..ROUNDS {
        let (one, other) = (setting.bare_round().await, setting.duet_round().await);
        let per_token = |cpu: Cpu| cpu.whole / (N_STREAMS * N_TOKENS) as f64;
        above.push(per_token(other) - per_token(one));
        println!("  whole CPU: bare {:5.1}, duet {:5.1}", per_token(one), per_token(other));
        bare = bare + one;
        duet = duet + other;
    }
    let n = (ROUNDS * N_STREAMS * N_TOKENS) as f64;
    println!(
        "  all rounds: bare {:.1}, of which user {:.1}; duet {:.1}, of which user {:.1}",
        bare.whole / n,
        bare.user(n),
        duet.whole / n,
        duet.user(n)
    );
    println!(
        "  above bare axum: user {:.1}; user and system {:.1} (median of rounds {:.1})",
        duet.user(n) - bare.user(n),
        (duet.whole - bare.whole) / n,
        median(above)
    );
}

impl Setting {
    async fn new() -> Self {
        let world = World::new(2).await;
        world.model().await;
        let readers = Readers::default();
        let duet = listen(world.server.router()).await;
        let bare = listen(bare::router(readers.clone(), Bytes::new())).await;
        let body = chat(&format!(r#","max_tokens":{N_TOKENS},"stream":true"#));
        let event = {
            world.gate.let_through(4);
            let request = Request::post(PATH).header("content-type", "application/json");
            let body = body.replace(&format!(":{N_TOKENS}"), ":2");
            let response =
                world.server.router().oneshot(request.body(Body::from(body)).expect("a request")).await;
            let all = to_bytes(response.expect("infallible").into_body(), 1 << 20).await.expect("a body");
            let text = String::from_utf8(all.to_vec()).expect("UTF-8");
            // The role's event comes before it.
            text.split("\n\n")
                .nth(1)
                .and_then(|event| event.strip_prefix("data: "))
                .expect("a token")
                .to_owned()
        };
        Self { world, duet, bare, readers, body, event }
    }

    async fn duet_round(&self) -> Cpu {
        let before = Cpu::of_serving_threads();
        let reading = {
            let (address, body) = (self.duet, self.body.clone());
            tokio::spawn(async move { client::streams(address, PATH, &body, N_STREAMS).await })
        };
        while self.world.n_active().await < N_STREAMS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let pacer = std::thread::spawn({
            let (gate, stop) = (self.world.gate.clone(), stop.clone());
            move || {
                paced(|| {
                    gate.let_through(1);
                    !stop.load(Ordering::Relaxed)
                });
            }
        });
        let n_events = reading.await.expect("no panic");
        let after = Cpu::of_serving_threads();
        stop.store(true, Ordering::Relaxed);
        pacer.join().expect("no panic");
        // Role, tokens, end, end mark.
        assert_eq!(n_events, N_STREAMS * (N_TOKENS + 3), "every token was an event");
        after - before
    }

    async fn bare_round(&self) -> Cpu {
        let maker = std::thread::spawn({
            let (readers, event) = (self.readers.clone(), self.event.clone());
            move || make_events(&readers, &event)
        });
        let before = Cpu::of_serving_threads();
        let n_events = client::streams(self.bare, "/stream", "", N_STREAMS).await;
        let after = Cpu::of_serving_threads();
        maker.join().expect("no panic");
        assert_eq!(n_events, N_STREAMS * N_TOKENS, "every token was an event");
        after - before
    }
}

/// As the engine's thread does: at each step one event for each stream.
fn make_events(readers: &Readers, event: &str) {
    while readers.lock().expect("no panic").len() < N_STREAMS {
        std::thread::yield_now();
    }
    let streams: Vec<UnboundedSender<String>> = std::mem::take(&mut *readers.lock().expect("no panic"));
    let mut n = 0;
    paced(|| {
        for stream in &streams {
            stream.send(event.to_owned()).expect("it is read");
        }
        n += 1;
        n < N_TOKENS
    });
}

/// Calls it at each step's time until it says stop.
#[expect(clippy::disallowed_methods, reason = "an engine takes its time for a step")]
fn paced(mut step: impl FnMut() -> bool) {
    let began = Instant::now();
    for n in 1.. {
        let due = began + Duration::from_secs(1) / STEPS_PER_SECOND * n;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if !step() {
            return;
        }
    }
}
