//! A runner without tensors: its logits are a function of a sequence's tokens, so that batching, forking and
//! interleaving can be checked exactly.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use async_trait::async_trait;

use super::ByteTokenizer;
use crate::backend::{
    BackendInfo, DeviceInfo, EngineSettings, InferenceBackend, LoadProgress, LoadSpec, LoadedInfo,
    LoadedModel, Probe,
};
use crate::embedding::{Pooler, TextPart};
use crate::engine::{Engine, EngineThread};
use crate::error::BackendError;
use crate::model::{
    GenerationDefaults, KvAllocation, KvType, LayerInfo, LayerKind, ModelFormat, ModelInfo, RopeInfo,
    TokenizerKind, WeightSplit, WindowPattern,
};
use crate::runner::{
    Capabilities, DeviceSamplingSupport, MemoryReport, ModelRunner, RowTokens, SeqId, SequenceSnapshot,
    StepId, StepOutput, StepPlan, Want,
};
use crate::text::{TokenId, Tokenizer};

/// What the fake answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Logits are a hash of all tokens before: any byte, hardly ever an end of generation.
    Hash,
    /// These tokens after any prompt, then `<eos>`.
    Tokens(Vec<TokenId>),
    /// The prompt again without its control tokens, then `<eos>`.
    Echo,
}

impl Reply {
    /// A reply of this text.
    pub fn text(text: &str) -> Self {
        Self::Tokens(text.bytes().map(TokenId::from).collect())
    }
}

/// Holds steps back until a test lets them go.
#[derive(Debug, Default)]
pub struct FakeGate {
    permits: Mutex<Option<usize>>,
    changed: Condvar,
}

impl FakeGate {
    /// A gate that lets no step through.
    pub fn closed() -> Arc<Self> {
        Arc::new(Self { permits: Mutex::new(Some(0)), changed: Condvar::new() })
    }

    /// Lets so many more steps through.
    pub fn let_through(&self, n: usize) {
        if let Some(permits) = self.permits.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            *permits += n;
        }
        self.changed.notify_all();
    }

    /// Lets one more step through, unless one that may pass has not yet done so: a test that asks again and again does not
    /// run ahead of a slow engine.
    pub fn let_one_through(&self) {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        if *permits == Some(0) {
            *permits = Some(1);
        }
        drop(permits);
        self.changed.notify_all();
    }

    /// Lets all steps through from now on.
    pub fn open(&self) {
        *self.permits.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match permits.as_mut() {
                None => return,
                Some(0) => permits = self.changed.wait(permits).unwrap_or_else(PoisonError::into_inner),
                Some(n) => {
                    *n -= 1;
                    return;
                }
            }
        }
    }
}

/// How a fake behaves.
#[derive(Debug, Clone)]
pub struct FakeConfig {
    /// 1 or 2.
    pub steps_in_flight: u32,
    /// Whether greedy rows are sampled "on the device".
    pub device_sampling: bool,
    /// Most tokens of a step.
    pub max_step_tokens: u32,
    /// What it answers.
    pub reply: Reply,
    /// Holds back every `collect`.
    pub gate: Option<Arc<FakeGate>>,
    /// This step fails (with `Engine`), all others do not.
    pub fail_step: Option<u64>,
    /// This step panics.
    pub panic_step: Option<u64>,
    /// Loading fails.
    pub fail_load: bool,
    /// Ids for kept prefixes.
    pub n_holders: u32,
    /// Whether forks share the cells of their sources.
    pub shares_cells: bool,
    /// Whether it generates; an encoder does not.
    pub generates: bool,
    /// Whether it scores pairs of texts instead of giving their states.
    pub ranks: bool,
}

impl Default for FakeConfig {
    fn default() -> Self {
        Self {
            steps_in_flight: 1,
            device_sampling: false,
            max_step_tokens: 64,
            reply: Reply::Hash,
            gate: None,
            fail_step: None,
            panic_step: None,
            fail_load: false,
            n_holders: 8,
            shares_cells: false,
            generates: true,
            ranks: false,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct FakeSequence {
    tokens: Vec<TokenId>,
    /// The cell of each token; a number of its own unless forks share.
    cells: Vec<u64>,
    n_prompt: Option<usize>,
}

struct FakeStep {
    id: StepId,
    logits: Vec<f32>,
    tokens: Vec<Option<TokenId>>,
}

/// The fake's runner.
pub struct FakeRunner {
    config: FakeConfig,
    capabilities: Capabilities,
    sequences: BTreeMap<SeqId, FakeSequence>,
    sampled: BTreeMap<SeqId, TokenId>,
    pending: VecDeque<FakeStep>,
    current: Option<FakeStep>,
    n_steps: u64,
    n_cells: u64,
    /// Of which vectors are wanted.
    text: Vec<TokenId>,
}

/// The score of a pair: how many tokens are "a", less 3.
fn fake_score(tokens: &[TokenId]) -> f32 {
    tokens.iter().filter(|id| **id == TokenId::from(b'a')).count() as f32 - 3.0
}

const EMBEDDING_WIDTH: usize = 10;
const N_VOCAB: usize = ByteTokenizer::VOCAB as usize;

impl FakeRunner {
    /// For the sizes of a load spec.
    pub fn new(config: FakeConfig, spec: &LoadSpec) -> Self {
        let sampling = config.device_sampling;
        let capabilities = Capabilities {
            max_sequences: spec.parallel,
            context_length: spec.context_length,
            kv_tokens: spec.kv_tokens,
            max_step_tokens: config.max_step_tokens,
            steps_in_flight: config.steps_in_flight,
            device_sampling: DeviceSamplingSupport { greedy: sampling, ..DeviceSamplingSupport::default() },
            fork: true,
            fork_shares_cells: config.shares_cells,
            n_holders: config.n_holders,
            truncate: true,
            snapshot: true,
            embedding_width: (!config.ranks).then_some(EMBEDDING_WIDTH as u32),
            // Tiny, so that texts of tests have several; encoders take them whole.
            embedding_part: if config.generates { 5 } else { spec.context_length },
            generates: config.generates,
            ranks: config.ranks,
        };
        Self {
            config,
            capabilities,
            sequences: BTreeMap::new(),
            sampled: BTreeMap::new(),
            pending: VecDeque::new(),
            current: None,
            n_steps: 0,
            n_cells: 0,
            text: Vec::new(),
        }
    }

    /// New cells for so many tokens.
    fn cells(&mut self, n: usize) -> impl Iterator<Item = u64> + use<> {
        let first = self.n_cells;
        self.n_cells += n as u64;
        first..self.n_cells
    }

    /// Ids that steps, forks and the like may name.
    fn n_ids(&self) -> u32 {
        self.capabilities.max_sequences + self.capabilities.n_holders
    }

    fn logits(&self, sequence: &FakeSequence, n_tokens: usize) -> Vec<f32> {
        let scripted = match &self.config.reply {
            Reply::Hash => None,
            Reply::Tokens(reply) => {
                let at = n_tokens - sequence.n_prompt.unwrap_or(n_tokens).min(n_tokens);
                Some(reply.get(at).copied().unwrap_or(ByteTokenizer::EOS))
            }
            Reply::Echo => {
                let n_prompt = sequence.n_prompt.unwrap_or(n_tokens).min(n_tokens);
                let mut text = sequence.tokens[..n_prompt].iter().filter(|id| **id < ByteTokenizer::BOS);
                Some(text.nth(n_tokens - n_prompt).copied().unwrap_or(ByteTokenizer::EOS))
            }
        };
        let mut hasher = DefaultHasher::new();
        sequence.tokens[..n_tokens].hash(&mut hasher);
        let mut state = hasher.finish() | 1;
        let mut row: Vec<f32> = (0..N_VOCAB)
            .map(|id| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let noise = (state >> 40) as f32 / (1u64 << 24) as f32 * 8.0;
                if id >= ByteTokenizer::BOS as usize { -20.0 } else { noise }
            })
            .collect();
        if let Some(id) = scripted {
            row[id as usize] = 100.0;
        }
        row
    }
}

fn greedy(row: &[f32]) -> TokenId {
    let mut best = 0;
    for (id, logit) in row.iter().enumerate() {
        if *logit > row[best] {
            best = id;
        }
    }
    best as TokenId
}

impl ModelRunner for FakeRunner {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn n_vocab(&self) -> usize {
        N_VOCAB
    }

    fn submit(&mut self, plan: StepPlan<'_>) -> Result<StepId, BackendError> {
        assert!(!plan.rows.is_empty(), "an empty plan");
        assert!(plan.rows.windows(2).all(|pair| pair[0].seq < pair[1].seq), "rows out of order");
        assert!(
            plan.n_tokens() <= self.capabilities.max_step_tokens as usize,
            "more tokens than a step takes"
        );
        assert!(self.pending.len() < self.capabilities.steps_in_flight as usize, "too many steps in flight");
        self.current = None;
        let id = StepId(self.n_steps);
        self.n_steps += 1;
        assert!(self.config.panic_step != Some(id.0), "the planned panic");
        if self.config.fail_step == Some(id.0) {
            return Err(BackendError::engine("decode", "the planned failure"));
        }
        if self.n_cells_used() as usize + plan.n_tokens() > self.capabilities.kv_tokens as usize {
            return Err(BackendError::KvCacheFull { n_rows: plan.n_tokens() });
        }
        let mut step =
            FakeStep { id, logits: Vec::with_capacity(plan.n_logits() * N_VOCAB), tokens: Vec::new() };
        for row in plan.rows {
            if row.seq.0 >= self.capabilities.max_sequences {
                return Err(BackendError::engine("decode", format!("no sequence {}", row.seq.0)));
            }
            let mut sequence = self.sequences.remove(&row.seq).unwrap_or_default();
            assert_eq!(sequence.tokens.len(), row.position as usize, "positions are consecutive");
            let cells = self.cells(row.tokens.len());
            sequence.cells.extend(cells);
            match row.tokens {
                RowTokens::Host(ids) => sequence.tokens.extend_from_slice(ids),
                RowTokens::Previous => sequence.tokens.push(self.sampled[&row.seq]),
            }
            if row.want != Want::Nothing {
                sequence.n_prompt.get_or_insert(sequence.tokens.len());
            }
            let n = sequence.tokens.len();
            let mut token = None;
            match row.want {
                Want::Nothing => {}
                Want::LastLogits => step.logits.extend(self.logits(&sequence, n)),
                Want::AllLogits => {
                    for at in row.position as usize + 1..=n {
                        step.logits.extend(self.logits(&sequence, at));
                    }
                }
                Want::Token(sampling) => {
                    assert!(sampling.temperature == 0.0, "this device only knows greedy");
                    token = Some(greedy(&self.logits(&sequence, n)));
                }
            }
            if let Some(token) = token {
                self.sampled.insert(row.seq, token);
            }
            step.tokens.push(token);
            self.sequences.insert(row.seq, sequence);
        }
        self.pending.push_back(step);
        Ok(id)
    }

    fn collect(&mut self) -> Result<StepOutput<'_>, BackendError> {
        if let Some(gate) = &self.config.gate {
            gate.pass();
        }
        let step =
            self.pending.pop_front().ok_or_else(|| BackendError::engine("collect", "nothing in flight"))?;
        let step = self.current.insert(step);
        Ok(StepOutput { step: step.id, logits: &step.logits, n_vocab: N_VOCAB, tokens: &step.tokens })
    }

    fn fork(&mut self, from: SeqId, to: SeqId, n_tokens: u32) -> Result<(), BackendError> {
        let source = self.sequences.get(&from).cloned().unwrap_or_default();
        let Some(tokens) = source.tokens.get(..n_tokens as usize) else {
            let message = format!("sequence {} has only {} tokens", from.0, source.tokens.len());
            return Err(BackendError::InvalidRequest { param: None, message });
        };
        assert!(to.0 < self.n_ids(), "no sequence {}", to.0);
        assert!(!self.sequences.contains_key(&to), "a fork onto a sequence in use");
        let cells = match self.config.shares_cells {
            true => source.cells[..n_tokens as usize].to_vec(),
            false => self.cells(n_tokens as usize).collect(),
        };
        self.sequences.insert(to, FakeSequence { tokens: tokens.to_vec(), cells, n_prompt: None });
        Ok(())
    }

    fn truncate(&mut self, seq: SeqId, n_tokens: u32) -> Result<bool, BackendError> {
        if let Some(sequence) = self.sequences.get_mut(&seq) {
            sequence.tokens.truncate(n_tokens as usize);
            sequence.cells.truncate(n_tokens as usize);
        }
        Ok(true)
    }

    fn release(&mut self, seq: SeqId) {
        self.sequences.remove(&seq);
        self.sampled.remove(&seq);
    }

    fn snapshot(&mut self, seq: SeqId) -> Result<SequenceSnapshot, BackendError> {
        let tokens = self.sequences.get(&seq).map(|sequence| sequence.tokens.clone()).unwrap_or_default();
        let bytes = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
        Ok(SequenceSnapshot { n_tokens: tokens.len() as u32, bytes })
    }

    fn restore(&mut self, seq: SeqId, snapshot: &SequenceSnapshot) -> Result<(), BackendError> {
        let (words, rest) = snapshot.bytes.as_chunks::<4>();
        if !rest.is_empty() || words.len() != snapshot.n_tokens as usize {
            return Err(BackendError::invalid("snapshot", "not a snapshot of this engine"));
        }
        if self.n_cells_used() + snapshot.n_tokens > self.capabilities.kv_tokens {
            return Err(BackendError::KvCacheFull { n_rows: words.len() });
        }
        let tokens = words.iter().map(|word| TokenId::from_le_bytes(*word)).collect();
        let cells = self.cells(words.len()).collect();
        self.sequences.insert(seq, FakeSequence { tokens, cells, n_prompt: None });
        Ok(())
    }

    /// A token's state are numbers from a hash of all tokens up to it.
    fn embed(&mut self, part: TextPart<'_>, pooler: &mut Pooler) -> Result<(), BackendError> {
        part.check(&self.capabilities, N_VOCAB)?;
        if part.position == 0 {
            self.text.clear();
        }
        if self.text.len() != part.position as usize {
            return Err(BackendError::invalid("input", "a part of another text"));
        }
        if self.config.ranks {
            pooler.push(&[fake_score(part.tokens)]);
            return Ok(());
        }
        for id in part.tokens {
            self.text.push(*id);
            let mut hasher = DefaultHasher::new();
            self.text.hash(&mut hasher);
            let hash = hasher.finish();
            let state = |at: usize| (hash.rotate_left(6 * at as u32) as u8) as f32 / 128.0 - 1.0;
            pooler.push(&std::array::from_fn::<f32, EMBEDDING_WIDTH, _>(state));
        }
        Ok(())
    }

    fn sequence_len(&self, seq: SeqId) -> u32 {
        self.sequences.get(&seq).map_or(0, |sequence| sequence.tokens.len() as u32)
    }

    fn n_cells_used(&self) -> u32 {
        if self.config.shares_cells {
            let cells: HashSet<u64> = self.sequences.values().flat_map(|s| s.cells.iter().copied()).collect();
            return cells.len() as u32;
        }
        self.sequences.values().map(|sequence| sequence.tokens.len() as u32).sum()
    }

    fn n_forward_passes(&self) -> u64 {
        self.n_steps
    }

    fn memory(&self) -> MemoryReport {
        MemoryReport { kv_bytes: Some(u64::from(self.n_cells_used()) * 4), ..MemoryReport::default() }
    }
}

/// The fake as a backend.
#[derive(Debug, Clone, Default)]
pub struct FakeBackend {
    /// How its models behave.
    pub config: FakeConfig,
}

#[async_trait]
impl InferenceBackend for FakeBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            id: "fake",
            library: "fake",
            version: "1".into(),
            devices: vec![DeviceInfo {
                name: "CPU".into(),
                description: "no device at all".into(),
                total_bytes: None,
                free_bytes: None,
            }],
            features: Vec::new(),
            library_path: "static".into(),
        }
    }

    fn probe(&self, _model: &ModelInfo) -> Result<Probe, BackendError> {
        Ok(Probe {
            weights: "none".into(),
            bits_per_weight: 0.0,
            kv_type: KvType::F16,
            kv_allocation: KvAllocation::Resident,
            settings: EngineSettings::default(),
            notes: Vec::new(),
        })
    }

    async fn load(
        &self,
        spec: LoadSpec,
        progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        let config = self.config.clone();
        let for_build = spec.clone();
        Engine::start(EngineThread::spawn("fake")?, &spec, progress, move |control| {
            control.check(0.5)?;
            if config.fail_load {
                return Err(BackendError::load_failed(&for_build.model.path, "the planned failure"));
            }
            let info = LoadedInfo {
                backend: "fake",
                backend_version: "1".into(),
                device: "CPU".into(),
                model: for_build.model.clone(),
                weights: "none".into(),
                weight_bytes_per_token: 0,
                kv_type: "f32".into(),
                notes: Vec::new(),
                load_time: std::time::Duration::ZERO,
            };
            Ok((FakeRunner::new(config, &for_build), info))
        })
        .await
    }
}

/// The headers of a model that does not exist: 2 layers, 4 heads, nothing on disk.
pub fn fake_model_info() -> ModelInfo {
    let layer = LayerInfo {
        kind: LayerKind::Attention,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim_k: 16,
        head_dim_v: 16,
        window: None,
    };
    ModelInfo {
        path: PathBuf::from("fake.gguf"),
        format: ModelFormat::Gguf,
        name: Some("fake".into()),
        architecture: "llama".into(),
        n_params: 1000,
        quantization: "F32".into(),
        bits_per_weight: 32.0,
        context_length: 256,
        n_layers: 2,
        hidden_size: 64,
        intermediate_size: 128,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim_k: 16,
        head_dim_v: 16,
        layers: vec![layer; 2],
        window: WindowPattern::Full,
        n_experts: 0,
        n_experts_used: 0,
        vocab_size: ByteTokenizer::VOCAB,
        tied_embeddings: true,
        rope: RopeInfo { freq_base: 10_000.0, freq_base_window: None, n_rot: 16, scaling: None },
        tokenizer: TokenizerKind::Missing,
        chat_template: None,
        bos_token_id: Some(ByteTokenizer::BOS),
        eos_token_ids: vec![ByteTokenizer::EOS, ByteTokenizer::IM_END],
        generation_defaults: GenerationDefaults::default(),
        pooling: None,
        encoder: false,
        ranks: false,
        split: WeightSplit::default(),
        file_bytes: 4000,
        weight_bytes: 4000,
        files: vec![PathBuf::from("fake.gguf")],
    }
}

/// A load spec of the fake: so many sequences, each of up to 256 tokens.
pub fn fake_spec(parallel: u32) -> LoadSpec {
    let tokenizer: Arc<dyn Tokenizer> = Arc::new(ByteTokenizer::default());
    let mut spec = LoadSpec::new(Arc::new(fake_model_info()), tokenizer);
    spec.context_length = 256;
    spec.parallel = parallel;
    spec.kv_tokens = 256 * parallel;
    spec
}
