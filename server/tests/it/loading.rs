//! Models from their headers to their loads: listed at once, loaded once, failures typed and tried again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use duet_core::model::{KvAllocation, KvType};
use duet_core::testing::{FakeConfig, Reply};
use duet_core::{EngineSettings, WeightsMode};
use tokio::sync::Semaphore;

use crate::support::gguf::Header;
use crate::support::{Answer, Running, World, until};

fn chat(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]}}"#)
}

fn spawn_chat(server: &Arc<Running>, model: &str) -> tokio::task::JoinHandle<Answer> {
    let (server, body) = (server.clone(), chat(model));
    tokio::spawn(async move { server.chat(&body).await })
}

async fn state(server: &Running, model: &str) -> String {
    let object = server.get(&format!("/v1/models/{model}")).await.json();
    object["state"].as_str().expect("a state").to_owned()
}

fn behind_a_door() -> (World, Arc<Semaphore>) {
    let door = Arc::new(Semaphore::new(0));
    let mut world = World::replying("ok").model("other", Reply::text("here"));
    world.backend.door = Some(door.clone());
    (world, door)
}

#[tokio::test]
async fn concurrent_first_requests_share_one_load_and_listings_do_not_wait_for_it() {
    let (world, door) = behind_a_door();
    let server = Arc::new(world.start().await);
    assert_eq!(state(&server, "m").await, "unloaded");
    let requests: Vec<_> = (0..5).map(|_| spawn_chat(&server, "m")).collect();
    until(|| server.backend.n_loads.load(Ordering::SeqCst) == 1).await;
    let object = server.get("/v1/models/m").await.json();
    assert_eq!((object["state"].as_str(), object["context_length"].as_u64()), (Some("loading"), Some(256)));
    assert_eq!(server.get("/v1/models").await.json()["data"][0]["load_progress"], 0.0);
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    door.add_permits(1);
    for request in requests {
        assert_eq!(request.await.expect("no panic").json()["choices"][0]["message"]["content"], "ok");
    }
    assert_eq!(server.backend.n_loads.load(Ordering::SeqCst), 1);
    assert_eq!(state(&server, "m").await, "ready");
    assert_eq!(state(&server, "other").await, "unloaded");
}

#[tokio::test]
async fn a_failed_load_is_told_to_all_who_wait_and_tried_again() {
    let (world, door) = behind_a_door();
    let server = Arc::new(world.start().await);
    server.backend.n_failing.store(1, Ordering::SeqCst);
    let requests: Vec<_> = (0..3).map(|_| spawn_chat(&server, "m")).collect();
    until(|| server.backend.n_loads.load(Ordering::SeqCst) == 1).await;
    door.add_permits(100);
    for request in requests {
        let answer = request.await.expect("no panic");
        assert_eq!(answer.error(), (503, "model_load_failed".into(), None));
        assert_eq!(answer.headers["x-should-retry"], "false");
        assert!(!answer.text().contains(server.dir.path().to_str().expect("UTF-8")), "{}", answer.text());
    }
    let object = server.get("/v1/models/m").await.json();
    assert_eq!(
        (object["state"].as_str(), object["error"]["code"].as_str()),
        (Some("failed"), Some("model_load_failed"))
    );
    assert_eq!(object["context_length"], 256, "the headers are still known");
    assert_eq!(server.chat(&chat("m")).await.status, 200);
    assert_eq!(server.backend.n_loads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn as_many_requests_wait_for_a_load_as_the_queue_holds() {
    let (world, door) = behind_a_door();
    let server = Arc::new(world.change("m", |model| model.max_queue = Some(1)).start().await);
    let first = spawn_chat(&server, "m");
    until(|| server.backend.n_loads.load(Ordering::SeqCst) == 1).await;
    let refused = server.chat(&chat("m")).await;
    assert_eq!(refused.error(), (503, "model_loading".into(), None));
    assert_eq!(refused.headers["retry-after"], "5");
    // The client leaves, and its place is free again.
    first.abort();
    assert!(first.await.is_err());
    let second = spawn_chat(&server, "m");
    until(|| !second.is_finished()).await;
    door.add_permits(1);
    assert_eq!(second.await.expect("no panic").status, 200);
    assert_eq!(
        server.backend.n_loads.load(Ordering::SeqCst),
        1,
        "a client that leaves does not end the load"
    );
}

#[tokio::test]
async fn broken_models_are_listed_and_do_not_disturb_the_others() {
    let whole = Header::default().bytes();
    let mut world = World::replying("ok")
        .raw_model("missing", "missing.gguf", |_| {})
        .raw_model("truncated", "truncated.gguf", |_| {})
        .raw_model("text", "text.gguf", |_| {})
        .raw_model("empty-folder", "folder", |_| {})
        .raw_model("too-long", "m.gguf", |model| model.context = Some(4096))
        .fake("strange", Header { architecture: "unheard-of", ..Header::default() }, FakeConfig::default());
    std::fs::write(world.dir.path().join("truncated.gguf"), &whole[..whole.len() - 100]).expect("a file");
    std::fs::write(world.dir.path().join("text.gguf"), "not a model").expect("a file");
    std::fs::create_dir(world.dir.path().join("folder")).expect("a folder");
    world.raw.server.shutdown_timeout_s = Some(1.0);
    let server = world.start().await;
    for (name, code) in [
        ("missing", "model_load_failed"),
        ("truncated", "model_load_failed"),
        ("text", "model_load_failed"),
        ("empty-folder", "model_load_failed"),
        ("too-long", "model_load_failed"),
        ("strange", "unsupported_architecture"),
    ] {
        let object = server.get(&format!("/v1/models/{name}")).await.json();
        assert_eq!(
            (object["state"].as_str(), object["error"]["code"].as_str()),
            (Some("failed"), Some(code)),
            "{object}"
        );
        let answer = server.chat(&chat(name)).await;
        assert_eq!(answer.error(), (503, code.into(), None));
        assert!(!answer.text().contains(server.dir.path().to_str().expect("UTF-8")), "{}", answer.text());
    }
    assert_eq!(server.chat(&chat("m")).await.status, 200);
    // A file that is mended works with the next request.
    std::fs::write(server.dir.path().join("missing.gguf"), whole).expect("a file");
    assert_eq!(server.chat(&chat("missing")).await.status, 200);
    assert_eq!(server.get("/v1/models").await.json()["data"].as_array().map(Vec::len), Some(7));
}

#[tokio::test]
async fn a_broken_model_is_told_at_once_while_another_loads() {
    let (world, door) = behind_a_door();
    let server = Arc::new(world.raw_model("missing", "missing.gguf", |_| {}).start().await);
    let loading = spawn_chat(&server, "m");
    until(|| server.backend.n_loads.load(Ordering::SeqCst) == 1).await;
    assert_eq!(server.chat(&chat("missing")).await.error().1, "model_load_failed");
    assert!(!loading.is_finished());
    door.add_permits(1);
    assert_eq!(loading.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn a_model_that_does_not_fit_is_refused_with_the_arithmetic() {
    let mut world = World::replying("ok");
    world.memory.available_bytes = 40_000;
    let server = world.start().await;
    let answer = server.chat(&chat("m")).await;
    assert_eq!(answer.error(), (503, "insufficient_memory".into(), None));
    assert_eq!(answer.headers["retry-after"], "30");
    let error = &answer.json()["error"];
    assert!(error["need_bytes"].as_u64() > Some(40_000) && error["budget_bytes"] == 40_000, "{error}");
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains("weights") && text.contains("KV")),
        "{error}"
    );
    assert_eq!(server.backend.n_loads.load(Ordering::SeqCst), 0, "no weight was read");
}

#[tokio::test]
async fn what_is_loaded_is_not_free_for_the_next_model() {
    // Room for one of them: to the system mapped weights look free, so only the sum of plans tells.
    let mut world = World::replying("one").model("n", Reply::text("two"));
    world.memory.total_bytes = 3 << 20;
    world.memory.available_bytes = 3 << 20;
    let server = world.start().await;
    assert_eq!(server.chat(&chat("m")).await.status, 200);
    assert_eq!(server.chat(&chat("n")).await.error().1, "insufficient_memory");
    assert_eq!(server.chat(&chat("m")).await.status, 200);
}

#[tokio::test]
async fn settings_that_the_engine_does_not_have_are_refused_by_name() {
    let world = || {
        World::replying("ok")
            .change("m", |model| model.weights = Some("auto".into()))
            .model("dense", Reply::text("ok"))
            .change("dense", |model| model.weights = Some("dense".into()))
            .model("split", Reply::text("ok"))
            .change("split", |model| model.kv_unified = Some(false))
    };
    let server = world().start().await;
    for (model, key) in [("dense", "models.dense.weights"), ("split", "models.split.kv_unified")] {
        let answer = server.chat(&chat(model)).await;
        assert_eq!(answer.error(), (503, "model_load_failed".into(), None));
        let message = answer.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(&format!("{key} has no effect on the engine `fake`")), "{message}");
        assert_eq!(state(&server, model).await, "failed");
    }
    assert_eq!(server.backend.n_loads.load(Ordering::SeqCst), 0, "no weight was read");
    assert_eq!(server.chat(&chat("m")).await.status, 200, "`auto` asks for nothing");

    let mut world = world();
    world.backend.change_probe =
        Some(|probe| probe.settings = EngineSettings { weights: true, kv_unified: true });
    let server = world.start().await;
    for model in ["dense", "split"] {
        assert_eq!(server.chat(&chat(model)).await.status, 200);
    }
    let specs = server.backend.specs.lock().expect("no panic");
    let asked: Vec<_> = specs.iter().map(|spec| (spec.weights, spec.kv_unified)).collect();
    assert_eq!(asked, [(WeightsMode::Dense, None), (WeightsMode::Auto, Some(false))]);
}

/// The cache's share of the plan, in bytes, and the type it names.
fn planned_kv(object: &serde_json::Value) -> (f64, String) {
    let plan = object["plan"].as_str().expect("a plan");
    let (_, rest) = plan.split_once(" + KV ").expect("a cache");
    let [size, unit, _, kv_type] = rest.split(' ').take(4).collect::<Vec<_>>()[..] else { panic!("{plan}") };
    let unit = ["B", "KiB", "MiB"].iter().position(|name| *name == unit).expect("a unit");
    (size.parse::<f64>().expect("a number") * f64::from(1 << (10 * unit)), kv_type.to_owned())
}

#[tokio::test]
async fn the_plan_counts_the_cache_as_the_engine_holds_it() {
    let world = |kv_type: Option<&str>| {
        let kv_type = kv_type.map(str::to_owned);
        World::replying("ok").change("m", move |model| {
            (model.context, model.parallel, model.kv_tokens) = (Some(100), Some(2), Some(1024));
            model.kv_type = kv_type.clone();
        })
    };
    let planned = async |world: World| planned_kv(&world.start().await.get("/v1/models/m").await.json());
    let (resident, kv_type) = planned(world(None)).await;
    assert_eq!(kv_type, "f16");
    let like_mlx = |mut world: World| {
        world.backend.change_probe = Some(|probe| {
            probe.kv_type = KvType::F32;
            probe.kv_allocation = KvAllocation::Mlx;
        });
        world
    };
    assert_eq!(planned(like_mlx(world(None))).await, (2.0 * resident, "f32".into()));
    assert_eq!(
        planned(like_mlx(world(Some("f16")))).await,
        (resident, "f16".into()),
        "asked for, so counted"
    );
    // Both sequences' parts are whole steps of 256.
    let odd = world(None).change("m", |model| model.kv_tokens = Some(600));
    assert_eq!(planned(like_mlx(odd)).await, (2.0 * resident, "f32".into()));
    let mut split = world(None).change("m", |model| {
        (model.kv_tokens, model.kv_unified) = (Some(600), Some(false));
    });
    split.backend.change_probe = Some(|probe| {
        probe.kv_allocation = KvAllocation::LlamaCpp { n_ubatch: 512, unified: true, swa_full: false };
        probe.settings.kv_unified = true;
    });
    assert_eq!(planned(split).await, (resident, "f16".into()), "an equal part for each, in steps of 256");
}

#[tokio::test]
async fn aliases_share_one_model_and_answers_repeat_the_name_asked_for() {
    let server =
        World::replying("ok").change("m", |model| model.aliases = Some(vec!["gpt-4".into()])).start().await;
    assert_eq!(server.chat(&chat("gpt-4")).await.json()["model"], "gpt-4");
    assert_eq!(server.chat(&chat("m")).await.json()["model"], "m");
    assert_eq!(server.backend.n_loads.load(Ordering::SeqCst), 1);
    let object = server.get("/v1/models/gpt-4").await.json();
    assert_eq!((object["id"].as_str(), object["aliases"][0].as_str()), (Some("m"), Some("gpt-4")));
}

#[tokio::test]
async fn a_crashed_engine_is_told_and_loaded_again() {
    let config = FakeConfig { panic_step: Some(2), reply: Reply::text("abc"), ..FakeConfig::default() };
    let server = World::new().fake("m", Header::default(), config).start().await;
    let answer = server.chat(&chat("m")).await;
    assert_eq!(answer.error(), (503, "engine_crashed".into(), None));
    assert_eq!(answer.headers["retry-after"], "2");
    assert_eq!(state(&server, "m").await, "crashed");
    assert_eq!(server.get("/readyz").await.error(), (503, "engine_crashed".into(), None));
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.chat(&chat("m")).await.error().1, "engine_crashed");
    assert_eq!(server.backend.n_loads.load(Ordering::SeqCst), 2, "the second request has loaded it again");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_request_includes_the_load() {
    let server = slow_to_load().await;
    assert_eq!(server.chat(&chat("m")).await.error(), (503, "model_loading".into(), None));
}

/// A model that never loads, and 20 seconds for a request.
async fn slow_to_load() -> Running {
    let (mut world, _door) = behind_a_door();
    world.raw.server.request_timeout_s = Some(20.0);
    world.start().await
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_begun_ends_with_the_loads_error() {
    let server = slow_to_load().await;
    let answer = server.chat(&chat("m").replace("{\"model\"", "{\"stream\":true,\"model\"")).await;
    assert_eq!(answer.status, 200);
    let events: Vec<&str> =
        answer.text().split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')).collect();
    assert!(matches!(events.as_slice(), [only] if only.contains("model_loading")), "{}", answer.text());
}
