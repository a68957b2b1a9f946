//! A server as an arm of a comparison: what a client sees of it, on the same token ids as the other arm.
//!
//! For the plan it is an engine like others; it has no runner in this process, so only the engine's level is measured, from
//! just before the connection is opened to the reads that brought text.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use duet_core::model::{KvAllocation, KvType, ModelInfo};
use duet_core::request::GenerateRequest;
use duet_core::runner::DeviceSamplingSupport;
use duet_core::text::{EncodeOptions, TokenId, Tokenizer};
use duet_core::{
    BackendError, BackendInfo, Capabilities, Constraint, ConstraintError, ConstraintSpec, EngineLoad,
    EngineSettings, GenerationStream, Health, InferenceBackend, LoadProgress, LoadSpec, LoadedInfo,
    LoadedModel, MemoryReport, Pooling, Probe, RunnerJob,
};
use serde_json::Value;

use super::answer::Answer;
use super::client::Client;
use super::error::HttpError;
use super::request::CompletionRequest;
use crate::clock::Clock;
use crate::measure::{EngineSample, FirstToken, MeasureError};

/// Enough for a character, whose bytes may be several tokens.
const FEW_TOKENS: u32 = 4;

/// What a server that takes no token ids says of itself in the report's notes; it lowers the grade.
pub(crate) const TEXT_PROMPTS: &str = "the server takes no token ids: it gets its prompts as text and cuts them into tokens \
    itself, so that equal work is not certain";

/// A server that answers streamed `/v1/completions`, on token ids if it takes them.
pub struct RemoteServer {
    id: &'static str,
    url: String,
    client: Client,
    /// As the address names it.
    wanted: Option<String>,
    model: OnceLock<String>,
    /// What makes text of ids, for a server that takes no ids; set at the first load.
    texts: OnceLock<Option<Arc<dyn Tokenizer>>>,
}

impl RemoteServer {
    /// A server at `http://HOST:PORT`, with or without `/v1`, and with `#MODEL` at the end if it has several; `id` is the
    /// engine's id for the plan. Looks the host's address up, and connects to nothing yet. Blocks.
    ///
    /// # Errors
    /// What is wrong with the address, in one sentence.
    pub fn new(id: &'static str, url: &str, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let (url, wanted) = match url.split_once('#') {
            Some((_, "")) => return Err(format!("{url} names no model behind the #")),
            Some((url, name)) => (url, Some(name.to_owned())),
            None => (url, None),
        };
        let client = Client::new(address(url)?, clock);
        let url = url.to_owned();
        Ok(Self { id, url, client, wanted, model: OnceLock::new(), texts: OnceLock::new() })
    }

    /// Its id among the engines of a plan.
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// Measures one greedy request of `n_tokens` tokens, which the server is asked not to take from a cache. `ids` are
    /// empty: a server sends text.
    ///
    /// # Errors
    /// `Http`; `TokenCount` for another number of tokens by the server's own count; `Work` if it sends several tokens in
    /// one event, so that gaps between events would not be gaps between tokens.
    pub async fn measure(&self, prompt: Vec<TokenId>, n_tokens: u32) -> Result<EngineSample, MeasureError> {
        let answer = self.answer(prompt, n_tokens, false).await?;
        sample(&answer, n_tokens)
    }

    /// The time to the first token alone, or to the first one that makes text.
    ///
    /// # Errors
    /// `Http`; `Work` where none of a few tokens makes text.
    pub(crate) async fn first_token(&self, prompt: Vec<TokenId>) -> Result<FirstToken, MeasureError> {
        let answer = self.answer(prompt, FEW_TOKENS, false).await?;
        match answer.pieces.first() {
            Some(piece) => Ok(FirstToken {
                ttft_ns: piece.at_ns.saturating_sub(answer.sent_ns),
                n_cached_tokens: n_cached(&answer),
            }),
            None => Err(MeasureError::Work { message: format!("{FEW_TOKENS} tokens came without text") }),
        }
    }

    /// Asks for `n_tokens` tokens, greedily; with `use_cache` the server may take the prompt's beginning from a cache.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub(crate) async fn answer(
        &self,
        prompt: Vec<TokenId>,
        n_tokens: u32,
        use_cache: bool,
    ) -> Result<Answer, HttpError> {
        let model = self.model.get().map_or("", String::as_str);
        let request = match self.texts.get() {
            Some(Some(tokenizer)) => {
                CompletionRequest::of_text(model, text_of(tokenizer.as_ref(), &prompt), n_tokens)
            }
            _ => CompletionRequest::new(model, prompt, n_tokens),
        };
        let request = if use_cache { request } else { request.without_cache() };
        self.ask(&request).await
    }

    /// Finds out whether the server takes ids, by one short request or two: a server that refuses ids and answers the same
    /// as text takes text. What is wrong with both is said by the requests that count.
    async fn learn(&self, model: &str, tokenizer: &Arc<dyn Tokenizer>) {
        if self.texts.get().is_some() {
            return;
        }
        let ids = tokenizer.encode("The", EncodeOptions::default()).unwrap_or_default();
        let text = CompletionRequest::of_text(model, "The".to_owned(), 1).without_cache();
        let refused = match self.ask(&CompletionRequest::new(model, ids, 1).without_cache()).await {
            Err(HttpError::Status { .. }) => self.ask(&text).await.is_ok(),
            _ => false,
        };
        let _ = self.texts.set(refused.then(|| tokenizer.clone())); // another load may have been first
    }

    async fn ask(&self, request: &CompletionRequest) -> Result<Answer, HttpError> {
        self.client.complete(request).await?.finish().await
    }

    /// The model that the address names, else the only one that it lists.
    async fn find_model(&self) -> Result<String, String> {
        if let Some(name) = &self.wanted {
            return Ok(name.clone());
        }
        let whole = self.client.get("/v1/models").await.map_err(|error| duet_core::chain(&error))?;
        let body: Value = serde_json::from_slice(&whole.body).unwrap_or_default();
        let listed = body["data"].as_array().map_or(&[][..], Vec::as_slice);
        let names: Vec<&str> = listed.iter().filter_map(|model| model["id"].as_str()).collect();
        let url = &self.url;
        match names.as_slice() {
            [] => Err(format!("{url} lists no model at /v1/models")),
            [only] => Ok((*only).to_owned()),
            [first, ..] => Err(format!(
                "{url} has several models ({}): say which, as in {url}#{first}",
                names.join(", ")
            )),
        }
    }
}

/// What these ids stand for, control tokens left out; unfinished characters at a cut become replacement characters.
pub(crate) fn text_of(tokenizer: &dyn Tokenizer, ids: &[TokenId]) -> String {
    let plain = ids.iter().filter(|id| !tokenizer.is_control(**id));
    let bytes: Vec<u8> = plain.filter_map(|id| tokenizer.token_bytes(*id)).flatten().copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn address(url: &str) -> Result<SocketAddr, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url} does not begin with http://"))?;
    let rest = rest.trim_end_matches('/');
    let host = rest.strip_suffix("/v1").unwrap_or(rest);
    if host.contains('/') {
        return Err(format!("{url} has a path other than /v1"));
    }
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let found = with_port.to_socket_addrs().map_err(|error| format!("{url}: {error}"))?.next();
    found.ok_or_else(|| format!("{url} has no address"))
}

/// Prompt tokens from a cache, by the server's own count.
fn n_cached(answer: &Answer) -> u32 {
    let cached = answer.usage.and_then(|usage| usage.cached_tokens).unwrap_or(0);
    u32::try_from(cached).unwrap_or(u32::MAX)
}

/// At least nine of ten tokens have an event of their own. The others have none (an unfinished character), which a median
/// over gaps survives.
fn sample(answer: &Answer, wanted: u32) -> Result<EngineSample, MeasureError> {
    let n_tokens = usize::try_from(answer.n_tokens()).unwrap_or(usize::MAX);
    if n_tokens != wanted as usize {
        let stopped = answer.finish_reason.as_deref() == Some("stop");
        let ending = format!("finished by {}", answer.finish_reason.as_deref().unwrap_or("nothing"));
        return Err(MeasureError::TokenCount { n_tokens, wanted, ending, stopped });
    }
    let at: Vec<u64> = answer.pieces.iter().map(|piece| piece.at_ns).collect();
    let (first, last) = match (at.first(), at.last()) {
        (Some(first), Some(last)) if 10 * at.len() >= 9 * n_tokens => (*first, *last),
        _ => {
            let message = format!("{n_tokens} tokens came in {} events", at.len());
            return Err(MeasureError::Work { message });
        }
    };
    Ok(EngineSample {
        ttft_ns: first.saturating_sub(answer.sent_ns),
        ttft_again_ns: Vec::new(),
        itl_ns: at.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect(),
        engine_decode_ns: last.saturating_sub(first),
        n_cached_tokens: n_cached(answer),
        n_tokens: wanted,
        ids: Vec::new(),
    })
}

#[async_trait]
impl InferenceBackend for RemoteServer {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            id: self.id,
            library: "HTTP",
            version: "1.1".into(),
            devices: Vec::new(),
            features: Vec::new(),
            library_path: self.url.clone(),
        }
    }

    fn probe(&self, model: &ModelInfo) -> Result<Probe, BackendError> {
        Ok(Probe {
            weights: "as the server holds them".into(),
            bits_per_weight: model.bits_per_weight,
            kv_type: KvType::default(),
            kv_allocation: KvAllocation::Resident,
            settings: EngineSettings::default(),
            notes: vec![format!("{}: what it runs is not known here, and taken to be this model", self.url)],
        })
    }

    async fn load(
        &self,
        spec: LoadSpec,
        progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        let name = self.find_model().await;
        let name = name.map_err(|detail| BackendError::load_failed(&spec.model.path, detail))?;
        self.learn(&name, &spec.tokenizer).await;
        progress(1.0);
        let takes_text = matches!(self.texts.get(), Some(Some(_)));
        let info = LoadedInfo {
            backend: self.id,
            backend_version: "1.1".into(),
            device: format!("{} as {name}", self.url),
            model: spec.model.clone(),
            weights: "as the server holds them".into(),
            weight_bytes_per_token: 0,
            kv_type: "the server's".into(),
            notes: if takes_text { vec![TEXT_PROMPTS.to_owned()] } else { Vec::new() },
            load_time: std::time::Duration::ZERO,
        };
        let _ = self.model.set(name); // a second load finds the same server
        let capabilities = Capabilities {
            max_sequences: 1,
            context_length: spec.context_length,
            kv_tokens: spec.kv_tokens,
            max_step_tokens: spec.prefill_chunk,
            steps_in_flight: 1,
            device_sampling: DeviceSamplingSupport::default(),
            fork: false,
            fork_shares_cells: false,
            n_holders: 0,
            truncate: false,
            snapshot: false,
            embedding_width: None,
            embedding_part: 0,
            generates: true,
            ranks: false,
        };
        Ok(Arc::new(RemoteModel { info, capabilities, tokenizer: spec.tokenizer }))
    }
}

/// What a plan holds of a server's model. It is asked through [`RemoteServer::measure`].
struct RemoteModel {
    info: LoadedInfo,
    capabilities: Capabilities,
    tokenizer: Arc<dyn Tokenizer>,
}

impl RemoteModel {
    fn unsupported(&self, feature: &'static str) -> BackendError {
        BackendError::Unsupported { feature: feature.into(), backend: self.info.backend.into() }
    }
}

#[async_trait]
impl LoadedModel for RemoteModel {
    fn info(&self) -> &LoadedInfo {
        &self.info
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        &self.tokenizer
    }

    fn constraint(&self, _spec: ConstraintSpec) -> Result<Constraint, ConstraintError> {
        let message = "a server compiles its own constraints".to_owned();
        Err(ConstraintError::Unavailable { message })
    }

    fn generate(&self, _request: GenerateRequest) -> Result<GenerationStream, BackendError> {
        Err(self.unsupported("a stream of token ids"))
    }

    async fn embed(
        &self,
        _texts: Vec<Vec<TokenId>>,
        _pooling: Pooling,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        Err(self.unsupported("embeddings"))
    }

    async fn rank(&self, _pairs: Vec<Vec<TokenId>>) -> Result<Vec<f32>, BackendError> {
        Err(self.unsupported("scores of pairs of texts"))
    }

    async fn run_exclusive(&self, _job: RunnerJob) -> Result<(), BackendError> {
        Err(self.unsupported("a runner in this process"))
    }

    fn load(&self) -> EngineLoad {
        EngineLoad::default()
    }

    fn memory(&self) -> MemoryReport {
        MemoryReport::default()
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    async fn unload(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Piece, Usage};

    #[test]
    fn addresses() {
        for url in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1/"] {
            assert_eq!(address(url).unwrap().to_string(), "127.0.0.1:8080", "{url}");
        }
        assert_eq!(address("http://127.0.0.1").unwrap().port(), 80);
        for url in ["https://127.0.0.1", "127.0.0.1:80", "http://127.0.0.1:80/x", "http://", "http://a:b"] {
            assert!(address(url).is_err(), "{url}");
        }
        let clock = Arc::new(crate::clock::SystemClock::default());
        let server = |url| RemoteServer::new("http", url, clock.clone());
        assert_eq!(server("http://127.0.0.1#a/b").unwrap().wanted.as_deref(), Some("a/b"));
        assert!(server("http://127.0.0.1#").is_err_and(|error| error.contains("no model")));
    }

    #[test]
    fn ids_become_the_text_that_they_stand_for() {
        let tokenizer = duet_core::testing::ByteTokenizer::default();
        let ids = tokenizer.encode("a – b", EncodeOptions::default()).unwrap();
        assert_eq!(text_of(&tokenizer, &ids), "a – b");
        assert_eq!(text_of(&tokenizer, &ids[..3]), "a \u{fffd}", "cut in a character");
        assert_eq!(text_of(&tokenizer, &[]), "");
        let control: Vec<TokenId> =
            (0..tokenizer.vocab_size()).filter(|id| tokenizer.is_control(*id)).collect();
        assert_eq!(text_of(&tokenizer, &control), "");
    }

    fn answer(n_events: u64, n_tokens: u64) -> Answer {
        let usage = Usage { prompt_tokens: 5, completion_tokens: n_tokens, cached_tokens: Some(3) };
        Answer {
            sent_ns: 100,
            pieces: (0..n_events).map(|index| Piece { at_ns: 1000 + 10 * index, n_bytes: 1 }).collect(),
            finish_reason: Some("length".into()),
            usage: Some(usage),
            ..Answer::default()
        }
    }

    #[test]
    fn an_answer_is_a_sample() {
        let found = sample(&answer(10, 10), 10).unwrap();
        assert_eq!((found.ttft_ns, found.itl_ns, found.engine_decode_ns), (900, vec![10; 9], 90));
        assert_eq!((found.n_cached_tokens, found.n_tokens), (3, 10));
        assert!(sample(&answer(9, 10), 10).is_ok(), "a token without text");
    }

    #[test]
    fn an_answer_of_another_shape_is_none() {
        assert!(matches!(sample(&answer(9, 9), 10), Err(MeasureError::TokenCount { n_tokens: 9, .. })));
        assert!(matches!(sample(&answer(5, 10), 10), Err(MeasureError::Work { .. })), "two tokens an event");
        assert!(matches!(sample(&answer(0, 0), 0), Err(MeasureError::Work { .. })));
        let stopped = Answer { finish_reason: Some("stop".into()), ..answer(3, 3) };
        assert!(matches!(sample(&stopped, 10), Err(MeasureError::TokenCount { stopped: true, .. })));
    }
}
