//! A server over the fake engine, called without a socket.

pub(crate) mod backend;
mod conforms;
pub(crate) mod gguf;
pub(crate) mod metrics;
mod watched;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use backend::TestBackend;
use duet_core::registry::{Registry, TextAssets};
use duet_core::testing::{ByteTokenizer, FakeConfig, Reply};
use duet_core::text::{ChatTemplate, Detokenizer, Tokenizer};
use duet_server::{Memory, RawConfig, RawModel, Server, ServerConfig};
use gguf::Header;
use http_body_util::BodyExt;
use tempfile::TempDir;
use tower::ServiceExt;

/// ChatML, with a switch that some requests use.
pub(crate) const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\
    {% if enable_thinking %}<think>{% endif %}{% endif %}";

/// As [`TEMPLATE`] with tools and thinking in Qwen's manner.
pub(crate) const TOOL_TEMPLATE: &str = "{{ bos_token }}{% if tools %}<|im_start|>system\n<tools>\
    {% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools><|im_end|>\n{% endif %}\
    {% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}\
    {% for call in message.tool_calls %}<tool_call>{{ call.function.name }} {{ call.function.arguments | tojson }}</tool_call>\
    {% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\
    {% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}";

/// A server to be.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) raw: RawConfig,
    pub(crate) backend: TestBackend,
    pub(crate) memory: Memory,
}

/// A server with its files.
pub(crate) struct Running {
    pub(crate) dir: TempDir,
    pub(crate) server: Server,
    pub(crate) router: Router,
    pub(crate) backend: Arc<TestBackend>,
}

impl World {
    pub(crate) fn new() -> Self {
        let memory = Memory { total_bytes: 8 << 30, available_bytes: 4 << 30 };
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self { dir, raw: RawConfig::default(), backend: TestBackend::default(), memory }
    }

    /// One model `m` with two sequences that answers with this text.
    pub(crate) fn replying(text: &str) -> Self {
        Self::new().model("m", Reply::text(text))
    }

    pub(crate) fn model(self, name: &str, reply: Reply) -> Self {
        self.fake(name, Header::default(), FakeConfig { reply, ..FakeConfig::default() })
    }

    /// A model `m` with [`TOOL_TEMPLATE`] and room for tools.
    pub(crate) fn with_tools(text: &str) -> Self {
        let header = Header { chat_template: Some(TOOL_TEMPLATE), context_length: 8192, ..Header::default() };
        Self::new().fake("m", header, FakeConfig { reply: Reply::text(text), ..FakeConfig::default() })
    }

    pub(crate) fn fake(mut self, name: &str, header: Header, config: FakeConfig) -> Self {
        let file = format!("{name}.gguf");
        std::fs::write(self.dir.path().join(&file), header.bytes()).expect("a file in a temporary folder");
        self.backend.models.insert(name.to_owned(), config);
        self.raw_model(name, &file, |model| model.parallel = Some(2))
    }

    pub(crate) fn raw_model(mut self, name: &str, file: &str, change: impl Fn(&mut RawModel)) -> Self {
        let path = self.dir.path().join(file);
        let mut model = RawModel { path: Some(path.into()), ..RawModel::default() };
        change(&mut model);
        self.raw.models.insert(name.to_owned(), model);
        self
    }

    pub(crate) fn change(mut self, name: &str, change: impl Fn(&mut RawModel)) -> Self {
        change(self.raw.models.get_mut(name).expect("a model of this name"));
        self
    }

    pub(crate) async fn start(self) -> Running {
        let Self { dir, raw, backend, memory } = self;
        let backend = Arc::new(backend);
        let config = ServerConfig::from_raw(&raw).expect("a valid config");
        let registry = registry(backend.clone());
        let server = Server::with_memory(config, registry, Arc::new(move || memory)).expect("known engines");
        server.inspect().await;
        Running { dir, router: server.router(), server, backend }
    }
}

/// Only the test engine; texts are bytes; a model called "gap" fills gaps; every model chats in ChatML unless its header has no template.
pub(crate) fn registry(backend: Arc<TestBackend>) -> Registry {
    Registry::new(
        vec![backend],
        Arc::new(|model| {
            let template = match &model.chat_template {
                None => Err("it has no chat template".to_owned()),
                Some(source) => {
                    let source = if source.starts_with('(') { TEMPLATE } else { source };
                    ChatTemplate::new(source, "<bos>", "<eos>").map(Arc::new).map_err(|e| e.to_string())
                }
            };
            let fills = model.path.ends_with("gap.gguf");
            let tokenizer = if fills { ByteTokenizer::with_gaps() } else { ByteTokenizer::default() };
            Ok(TextAssets { tokenizer: Arc::new(tokenizer), template })
        }),
    )
}

/// The text of the last prompt that the engine got.
pub(crate) fn prompt_text(server: &Running) -> String {
    let requests = server.backend.orders.requests.lock().expect("no panic");
    let tokenizer: std::sync::Arc<dyn Tokenizer> = std::sync::Arc::new(ByteTokenizer::default());
    let mut detokenizer = Detokenizer::new(tokenizer).show_control(true);
    requests.last().expect("a request").prompt.iter().map(|id| detokenizer.push(*id).to_owned()).collect()
}

impl Running {
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.expect("the router never fails")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.call(post(path, body)).await
    }

    pub(crate) async fn chat(&self, body: &str) -> Answer {
        self.post("/v1/chat/completions", body).await
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = Answer::read(self.send(request).await).await;
        conforms::check(&self.router, &method, &path, &answer).await;
        answer
    }
}

pub(crate) fn post(path: &str, body: &str) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Body::from(body.to_owned())).expect("a request")
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("bodies never fail").to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Status, `code` and `param` of an error, whose envelope is checked.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, String, Option<String>) {
        assert_eq!(self.headers["content-type"], "application/json");
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no error envelope: {body}"));
        for field in ["message", "type", "param", "code"] {
            assert!(error.contains_key(field), "`{field}` is missing: {body}");
        }
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        let code = error["code"].as_str().expect("a code").to_owned();
        (self.status.as_u16(), code, error["param"].as_str().map(str::to_owned))
    }

    /// The data of all server-sent events.
    pub(crate) fn events(&self) -> Vec<&str> {
        let parts = self.text().split("\n\n").filter(|part| !part.is_empty());
        parts.map(|part| part.strip_prefix("data: ").expect("an event is one line of data")).collect()
    }

    /// The events but the last, which has to be the end mark.
    #[track_caller]
    pub(crate) fn chunks(&self) -> Vec<serde_json::Value> {
        let mut events = self.events();
        assert_eq!(events.pop(), Some("[DONE]"));
        events.into_iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
    }
}

/// Looks again and again, giving way to others in between; fails after a minute.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    until_async(async || condition()).await;
}

/// As [`until`].
pub(crate) async fn until_async(condition: impl AsyncFn() -> bool) {
    until_mut(condition).await;
}

/// As [`until`].
pub(crate) async fn until_mut(mut condition: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !condition().await {
        assert!(began.elapsed().as_secs() < 60, "it never came about");
        tokio::task::yield_now().await;
    }
}

/// With what differs from run to run replaced.
macro_rules! assert_transcript {
    ($name:expr, $text:expr) => {{
        let text = $text;
        insta::with_settings!({filters => vec![
            (r#""id":"(chatcmpl|cmpl)-[0-9a-f]{32}""#, r#""id":"$1-[id]""#),
            (r#""(call|toolu|msg|resp|rs|fc)_[0-9a-f]{24,32}""#, r#""${1}_[id]""#),
            (r#""(created|created_at|completed_at)":\d+"#, r#""$1":[time]"#),
            (r#""system_fingerprint":"fp_[0-9a-f]{12}""#, r#""system_fingerprint":"[fp]""#),
            (r#""(\w+_ms|\w+_per_second|batch_width)":[0-9.]+"#, r#""$1":[n]"#),
        ], prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!($name, text);
        });
    }};
}
pub(crate) use assert_transcript;
