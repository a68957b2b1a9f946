//! The contract's errors in the words of each API: chat's, Responses' and Anthropic's, a snapshot for each.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use duet_core::testing::{FakeConfig, FakeGate, Reply};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::error_rows::line;
use crate::support::gguf::Header;
use crate::support::{Running, World, post, until, until_async};

/// One API: its route, and a good body of it with the given beginning and more fields.
struct Family {
    name: &'static str,
    path: &'static str,
    fields: fn(&str) -> String,
    most: &'static str,
}

const FAMILIES: [Family; 3] = [
    Family {
        name: "chat",
        path: "/v1/chat/completions",
        fields: |text| format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#),
        most: "max_completion_tokens",
    },
    Family {
        name: "responses",
        path: "/v1/responses",
        fields: |text| format!(r#""input":"{text}""#),
        most: "max_output_tokens",
    },
    Family {
        name: "messages",
        path: "/v1/messages",
        fields: |text| format!(r#""max_tokens":9,"messages":[{{"role":"user","content":"{text}"}}]"#),
        most: "max_tokens",
    },
];

impl Family {
    fn body(&self, more: &str) -> String {
        format!(r#"{{"model":"m",{}{more}}}"#, (self.fields)("Hi"))
    }

    async fn post(&self, server: &Running, what: &str, body: &str, all: &mut String) {
        *all += &line(what, &server.post(self.path, body).await);
    }

    /// What is wrong with bodies.
    async fn bodies(&self, all: &mut String) {
        let mut world = World::new().model("m", Reply::text("ok")).model("qwen3-0.6b", Reply::text("ok"));
        world.raw.server.max_body_bytes = Some(2048);
        world.raw.server.unknown_fields = Some("deny".to_owned());
        let server = world.start().await;
        let unknown = self.body("").replace("\"m\"", "\"qwen3\"");
        let far = self.body("").replace("\"m\"", "\"gpt-4o\"");
        for (what, body) in [
            ("broken JSON", "{\"model\":".to_owned()),
            ("no object", "[]".to_owned()),
            ("a name twice", self.body(",\"top_p\":1,\"top_p\":1")),
            ("a wrong type", self.body(",\"temperature\":\"hot\"")),
            ("out of range", self.body(",\"temperature\":2.5")),
            ("nothing required", "{}".to_owned()),
            ("only a model", "{\"model\":\"m\"}".to_owned()),
            (
                "no tokens at all",
                self.body("").replace("\"max_tokens\":9,", "").replacen(
                    '{',
                    &format!("{{\"{}\":-1,", self.most),
                    1,
                ),
            ),
            ("an unknown field", self.body(",\"temprature\":1")),
            ("a tool without a name", self.body(",\"tools\":[{\"type\":\"function\"}]")),
            ("a tool of another's", self.body(",\"tools\":[{\"type\":\"web_search\",\"name\":\"a\"}]")),
            ("a prompt that is too long", format!(r#"{{"model":"m",{}}}"#, (self.fields)(&"x".repeat(300)))),
            ("a model that is almost there", unknown),
            ("a model that is not there", far),
            ("a long body", self.body(&format!(",\"user\":\"{}\"", "x".repeat(3000)))),
        ] {
            self.post(&server, what, &body, all).await;
        }
        let with = |name: &'static str, value: &'static str| {
            let mut request = post(self.path, &self.body(""));
            request.headers_mut().insert(name, value.parse().expect("a header"));
            request
        };
        for (what, request) in [
            ("a form", with("content-type", "application/x-www-form-urlencoded")),
            ("a compressed body", with("content-encoding", "gzip")),
            ("another host", with("host", "evil.example")),
            ("another page", with("origin", "https://evil.example")),
            ("the wrong method", Request::put(self.path).body(Body::empty()).expect("a request")),
            ("a path beneath", post(&format!("{}/x/y", self.path), "{}")),
        ] {
            *all += &line(what, &server.call(request).await);
        }
    }

    async fn keys(&self, all: &mut String) {
        let mut world = World::replying("ok");
        let file = world.dir.path().join("keys.txt");
        std::fs::write(&file, "key-to-measure-with metrics\n").expect("a file");
        world.raw.server.api_keys_file = Some(file.into());
        let server = world.start().await;
        self.post(&server, "no key", &self.body(""), all).await;
        for (what, key) in
            [("a wrong key", "Bearer another-key-12"), ("no scope", "Bearer key-to-measure-with")]
        {
            let mut request = post(self.path, &self.body(""));
            request.headers_mut().insert("authorization", key.parse().expect("a header"));
            *all += &line(what, &server.call(request).await);
        }
    }

    async fn full_queue(&self, all: &mut String) {
        let gate = FakeGate::closed();
        let config =
            FakeConfig { gate: Some(gate.clone()), reply: Reply::text("ok"), ..FakeConfig::default() };
        let world = World::new().fake("m", Header::default(), config).change("m", |model| {
            model.parallel = Some(1);
            model.max_queue = Some(1);
        });
        let server = Arc::new(world.start().await);
        server.server.load("m").await.expect("it loads");
        let call = || {
            let (server, path, body) = (server.clone(), self.path, self.body(""));
            tokio::spawn(async move { server.post(path, &body).await })
        };
        let load = async || {
            let model = server.get("/health").await.json()["models"]["m"].clone();
            (model["n_running"].as_u64(), model["n_waiting"].as_u64())
        };
        gate.let_through(1); // the engine counts between steps
        let first = call();
        until_async(async || load().await == (Some(1), Some(0))).await;
        let second = call();
        until_async(async || load().await == (Some(1), Some(1))).await;
        self.post(&server, "a full queue", &self.body(""), all).await;
        gate.open();
        for answer in [first, second] {
            assert_eq!(answer.await.expect("no panic").status, 200);
        }
    }

    /// Engines and loads that fail; streams that break.
    async fn failures(&self, all: &mut String) {
        let failing = |config: FakeConfig| World::new().fake("m", Header::default(), config).start();
        let reply = || Reply::text("abc");
        let server =
            failing(FakeConfig { fail_step: Some(0), reply: reply(), ..FakeConfig::default() }).await;
        self.post(&server, "the engine fails", &self.body(""), all).await;
        let server = failing(FakeConfig { fail_load: true, ..FakeConfig::default() }).await;
        self.post(&server, "the load fails", &self.body(""), all).await;
        let server = failing(FakeConfig { panic_step: Some(0), ..FakeConfig::default() }).await;
        self.post(&server, "the engine's thread is gone", &self.body(""), all).await;
        let strange = Header { architecture: "unheard-of", ..Header::default() };
        let server = World::new().fake("m", strange, FakeConfig::default()).start().await;
        self.post(&server, "no engine for it", &self.body(""), all).await;
        let left_out = Header { architecture: "left-out", ..Header::default() };
        let server = World::new().fake("m", left_out, FakeConfig::default()).start().await;
        self.post(&server, "an engine that was left out", &self.body(""), all).await;
        let mut world = World::replying("ok");
        world.memory.available_bytes = 1 << 10;
        world.memory.total_bytes = 1 << 10;
        self.post(&world.start().await, "no memory", &self.body(""), all).await;

        let mut world = World::replying("ok").change("m", |model| model.max_queue = Some(1));
        world.backend.door = Some(Arc::new(Semaphore::new(0)));
        let server = Arc::new(world.start().await);
        let (waiting, path, body) = (server.clone(), self.path, self.body(""));
        let waiting = tokio::spawn(async move { waiting.post(path, &body).await });
        until(|| server.backend.n_loads.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
        self.post(&server, "a load with a full queue", &self.body(""), all).await;
        waiting.abort();

        let server =
            failing(FakeConfig { fail_step: Some(3), reply: reply(), ..FakeConfig::default() }).await;
        let answer = server.post(self.path, &self.body(",\"stream\":true")).await;
        assert_eq!(answer.status, 200);
        let text = answer.text();
        assert!(!text.contains("[DONE]") && !text.contains("message_stop"), "{text}");
        let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
        *all += &format!("after the first byte of a stream, its last event\n  {last}\n");
    }

    /// A server that stops, and a request whose time is over.
    async fn ends(&self, all: &mut String) {
        let server = World::replying("ok").start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        server.server.serve(listener, async {}).await.expect("a clean end");
        self.post(&server, "the server stops", &self.body(""), all).await;

        let gate = FakeGate::closed();
        let config =
            FakeConfig { gate: Some(gate.clone()), reply: Reply::text("abc"), ..FakeConfig::default() };
        let mut world = World::new().fake("m", Header::default(), config);
        let patience = Duration::from_millis(20);
        world.raw.server.request_timeout_s = Some(patience.as_secs_f64());
        let server = Arc::new(world.start().await);
        server.server.load("m").await.expect("it loads");
        let late = {
            let (server, path, body) = (server.clone(), self.path, self.body(""));
            tokio::spawn(async move { server.post(path, &body).await })
        };
        tokio::time::sleep(2 * patience).await; // the engine stands in the gate; its next look at the clock is after it
        gate.open();
        *all += &line("a request whose time is over", &late.await.expect("no panic"));
    }
}

fn check(family: &Family, what: &str, all: &str) {
    let filters = vec![
        (r"req_[0-9a-f]{32}", "req_[id]"),
        (r"resp_[0-9a-f]{32}", "resp_[id]"),
        (r"(msg|rs)_[0-9a-f]{24,32}", "${1}_[id]"),
        (r#""created_at":\d+"#, r#""created_at":[time]"#),
    ];
    insta::with_settings!({filters => filters, prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(format!("errors_{what}_{}", family.name), all);
    });
}

#[tokio::test]
async fn bodies_and_callers() {
    for family in &FAMILIES {
        let mut all = String::new();
        family.bodies(&mut all).await;
        family.keys(&mut all).await;
        check(family, "of_requests", &all);
    }
}

#[tokio::test]
async fn engines_and_loads() {
    for family in &FAMILIES {
        let mut all = String::new();
        family.full_queue(&mut all).await;
        family.failures(&mut all).await;
        family.ends(&mut all).await;
        check(family, "of_engines", &all);
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_do_not_come() {
    for family in &FAMILIES {
        let server = World::replying("ok").start().await;
        let never = futures_util::stream::pending::<Result<&str, std::io::Error>>();
        let request = Request::post(family.path).header("content-type", "application/json");
        let answer = server.call(request.body(Body::from_stream(never)).expect("a request")).await;
        check(family, "of_time", &line("a body that does not come", &answer));
    }
}
