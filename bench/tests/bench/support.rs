//! Engines of known behaviour: duet-core's fake under any id, with planted speeds on a virtual clock and planted faults.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use duet_bench::measure::WashOutRule;
use duet_bench::{BenchOptions, Clock, Phase, Plan, Reporter, Subject, Text};
use duet_core::engine::{Engine, EngineThread};
use duet_core::model::{KvAllocation, KvLayout, KvType, ModelInfo};
use duet_core::registry::{Registry, TextAssets};
use duet_core::testing::{ByteTokenizer, FakeBackend, FakeConfig, FakeRunner, fake_model_info};
use duet_core::text::{EncodeOptions, TokenId, Tokenizer, TokenizerError};
use duet_core::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A clock that only planted costs move.
#[derive(Debug, Default)]
pub(crate) struct VirtualClock(AtomicU64);

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

/// Normal noise from a seed.
pub(crate) struct Noise(ChaCha8Rng);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Equally likely from 0 to 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A draw of mean 1 and no memory.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// A draw of mean 0 and standard deviation 1 (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// What steps cost on the virtual clock: `per_token` each, times exp(sd · normal).
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) per_token: Duration,
    pub(crate) log_sd: f64,
    pub(crate) seed: u64,
}

/// What happens to the fake's logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Logits {
    AsTheyAre,
    Times(f32),
    NanAt(u64),
    /// The process ends where the logits of a whole prompt are asked for, as an agreement does.
    AbortOnAll,
}

/// An engine of known behaviour.
#[derive(Debug, Clone)]
pub(crate) struct TestBackend {
    pub(crate) id: &'static str,
    pub(crate) config: FakeConfig,
    pub(crate) logits: Logits,
    pub(crate) cost: Option<Cost>,
    pub(crate) refuses: bool,
    pub(crate) weight_bytes: u64,
    pub(crate) kv_type: &'static str,
    pub(crate) layout: KvLayout,
    /// What it reports, if that is not what its layout takes.
    pub(crate) kv_bytes: Option<u64>,
    pub(crate) bits_per_weight: f64,
    pub(crate) disaster: Option<Disaster>,
}

/// What takes the process down, once.
#[derive(Debug, Clone)]
pub(crate) struct Disaster {
    /// At which step.
    pub(crate) step: u64,
    /// Made when it happens; with it there already, nothing does.
    pub(crate) marker: std::path::PathBuf,
    /// Whether the step never ends, instead of the process.
    pub(crate) hangs: bool,
    /// Only where at least so many sequences can run.
    pub(crate) among: u32,
}

impl Disaster {
    fn strike(&self, step: u64) {
        if step < self.step || self.marker.exists() {
            return;
        }
        std::fs::write(&self.marker, b"").expect("the test's own folder");
        if self.hangs {
            loop {
                std::thread::park();
            }
        }
        std::process::abort();
    }
}

pub(crate) fn backend(id: &'static str) -> TestBackend {
    TestBackend {
        id,
        config: FakeConfig::default(),
        logits: Logits::AsTheyAre,
        cost: None,
        refuses: false,
        weight_bytes: 1000,
        kv_type: "f16",
        layout: KvLayout {
            kv_type: KvType::F16,
            allocation: KvAllocation::LlamaCpp { n_ubatch: 8, unified: true, swa_full: false },
        },
        kv_bytes: None,
        bits_per_weight: 5.0,
        disaster: None,
    }
}

struct TestRunner {
    inner: FakeRunner,
    kv_bytes: Option<u64>,
    logits: Logits,
    cost: Option<(Cost, Noise)>,
    n_tokens: Vec<usize>,
    n_collected: u64,
    disaster: Option<Disaster>,
    buffer: Vec<f32>,
}

impl ModelRunner for TestRunner {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn n_vocab(&self) -> usize {
        self.inner.n_vocab()
    }

    fn submit(&mut self, plan: StepPlan<'_>) -> Result<StepId, BackendError> {
        let step = self.inner.submit(plan)?;
        self.n_tokens.push(plan.n_tokens());
        Ok(step)
    }

    fn collect(&mut self) -> Result<StepOutput<'_>, BackendError> {
        if let Some((cost, noise)) = &mut self.cost {
            let factor = (cost.log_sd * noise.normal()).exp() * self.n_tokens.remove(0) as f64;
            let ns = cost.per_token.as_nanos() as f64 * factor;
            cost.clock.0.fetch_add(ns as u64, Ordering::SeqCst);
        }
        let (n, n_vocab) = (self.n_collected, self.inner.n_vocab());
        self.n_collected += 1;
        let n_sequences = self.inner.capabilities().max_sequences;
        if let Some(disaster) = self.disaster.as_ref().filter(|disaster| n_sequences >= disaster.among) {
            disaster.strike(n);
        }
        let output = self.inner.collect()?;
        self.buffer.clear();
        self.buffer.extend_from_slice(output.logits);
        match self.logits {
            Logits::AsTheyAre => {}
            Logits::Times(factor) => self.buffer.iter_mut().for_each(|logit| *logit *= factor),
            Logits::NanAt(step) if n >= step => self.buffer.iter_mut().for_each(|logit| *logit = f32::NAN),
            Logits::NanAt(_) => {}
            Logits::AbortOnAll if self.buffer.len() > 8 * n_vocab => std::process::abort(),
            Logits::AbortOnAll => {}
        }
        Ok(StepOutput { logits: &self.buffer, ..output })
    }

    fn fork(&mut self, from: SeqId, to: SeqId, n_tokens: u32) -> Result<(), BackendError> {
        self.inner.fork(from, to, n_tokens)
    }

    fn truncate(&mut self, seq: SeqId, n_tokens: u32) -> Result<bool, BackendError> {
        self.inner.truncate(seq, n_tokens)
    }

    fn release(&mut self, seq: SeqId) {
        self.inner.release(seq);
    }

    fn snapshot(&mut self, seq: SeqId) -> Result<SequenceSnapshot, BackendError> {
        self.inner.snapshot(seq)
    }

    fn restore(&mut self, seq: SeqId, snapshot: &SequenceSnapshot) -> Result<(), BackendError> {
        self.inner.restore(seq, snapshot)
    }

    fn sequence_len(&self, seq: SeqId) -> u32 {
        self.inner.sequence_len(seq)
    }

    fn n_cells_used(&self) -> u32 {
        self.inner.n_cells_used()
    }

    fn n_forward_passes(&self) -> u64 {
        self.inner.n_forward_passes()
    }

    fn memory(&self) -> MemoryReport {
        MemoryReport { weights_bytes: Some(2_000_000), kv_bytes: self.kv_bytes, ..MemoryReport::default() }
    }
}

#[async_trait]
impl InferenceBackend for TestBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            id: self.id,
            library: "fake",
            version: "1".into(),
            devices: Vec::new(),
            features: vec!["none".into()],
            library_path: "static".into(),
        }
    }

    fn probe(&self, model: &ModelInfo) -> Result<Probe, BackendError> {
        if self.refuses {
            let (architecture, detail) = ("martian".to_owned(), "llama is".to_owned());
            return Err(BackendError::UnsupportedArchitecture { architecture, backend: self.id, detail });
        }
        let own = FakeBackend::default().probe(model)?;
        Ok(Probe {
            weights: "as stored".into(),
            bits_per_weight: self.bits_per_weight,
            kv_type: self.layout.kv_type,
            kv_allocation: self.layout.allocation,
            notes: vec!["a slow path".into()],
            ..own
        })
    }

    async fn load(
        &self,
        spec: LoadSpec,
        progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        let (this, for_build) = (self.clone(), spec.clone());
        Engine::start(EngineThread::spawn(self.id)?, &spec, progress, move |control| {
            control.check(0.5)?;
            if this.config.fail_load {
                return Err(BackendError::load_failed(&for_build.model.path, "the planned failure"));
            }
            let info = LoadedInfo {
                backend: this.id,
                backend_version: "1".into(),
                device: "CPU".into(),
                model: for_build.model.clone(),
                weights: "as stored".into(),
                weight_bytes_per_token: this.weight_bytes,
                kv_type: this.kv_type.into(),
                notes: Vec::new(),
                load_time: Duration::ZERO,
            };
            let runner = TestRunner {
                inner: FakeRunner::new(this.config.clone(), &for_build),
                kv_bytes: this.kv_bytes.or_else(|| {
                    let tokens = u64::from(for_build.kv_tokens);
                    this.layout.bytes(&for_build.model, tokens, tokens, for_build.parallel).ok()
                }),
                logits: this.logits,
                cost: this.cost.map(|cost| (cost.clone(), Noise::new(cost.seed))),
                n_tokens: Vec::new(),
                n_collected: 0,
                disaster: this.disaster,
                buffer: Vec::new(),
            };
            Ok((runner, info))
        })
        .await
    }
}

/// The byte tokenizer with one planted difference.
#[derive(Debug, Default)]
pub(crate) struct OddTokenizer {
    pub(crate) inner: ByteTokenizer,
    pub(crate) vocab_size: Option<u32>,
    pub(crate) bytes_of: Option<(TokenId, &'static [u8])>,
    pub(crate) control: Option<TokenId>,
    pub(crate) bos: Option<TokenId>,
    pub(crate) merges: Option<&'static str>,
    pub(crate) fails_on: Option<&'static str>,
}

impl Tokenizer for OddTokenizer {
    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, TokenizerError> {
        if self.fails_on.is_some_and(|word| text.contains(word)) {
            return Err(TokenizerError::Encode { message: "the planned failure".into() });
        }
        match self.merges {
            Some(pair) => self.inner.encode(&text.replace(pair, &pair[..1]), options),
            None => self.inner.encode(text, options),
        }
    }

    fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        match self.bytes_of {
            Some((odd, bytes)) if odd == id => Some(bytes),
            _ => self.inner.token_bytes(id),
        }
    }

    fn is_control(&self, id: TokenId) -> bool {
        self.inner.is_control(id) || self.control == Some(id)
    }

    fn vocab_size(&self) -> u32 {
        self.vocab_size.unwrap_or(self.inner.vocab_size())
    }

    fn bos(&self) -> Option<TokenId> {
        self.bos.or(self.inner.bos())
    }

    fn eos(&self) -> Option<TokenId> {
        self.inner.eos()
    }

    fn adds_bos(&self) -> bool {
        self.inner.adds_bos()
    }

    fn end_of_generation(&self) -> &[TokenId] {
        self.inner.end_of_generation()
    }

    fn kind(&self) -> &str {
        "odd"
    }

    fn strips_leading_space(&self) -> bool {
        false
    }
}

pub(crate) fn assets(tokenizer: impl Tokenizer + 'static) -> TextAssets {
    TextAssets { tokenizer: Arc::new(tokenizer), template: Err("none".into()) }
}

/// These engines, all with the byte tokenizer.
pub(crate) fn registry(backends: Vec<TestBackend>) -> Registry {
    let backends = backends.into_iter().map(|backend| Arc::new(backend) as Arc<dyn InferenceBackend>);
    Registry::new(backends.collect(), Arc::new(|_| Ok(assets(ByteTokenizer::default()))))
}

/// A model of one file in `dir`.
pub(crate) fn model(dir: &Path) -> Arc<ModelInfo> {
    let path = dir.join("fake.gguf");
    std::fs::write(&path, b"not read by a fake").expect("the test's own folder");
    let files = vec![path.clone()];
    Arc::new(ModelInfo {
        path,
        files,
        context_length: 4096,
        quantization: "Q4_1".into(),
        ..fake_model_info()
    })
}

/// A text of 4,890 bytes that nowhere repeats itself.
pub(crate) fn counting() -> Text {
    Text::Inline { name: "counting".into(), text: (0..1000).map(|n| format!("{n}, ")).collect() }
}

/// Two blocks of 20 + 4 tokens, agreement over 2 windows of 64.
pub(crate) fn small_options() -> BenchOptions {
    let mut options = BenchOptions::new(Subject::One("fake.gguf".into()), counting());
    options.n_prompt = 20;
    options.n_decode = 4;
    options.n_blocks = 2;
    options.n_aa_blocks = 0;
    options.budget = None;
    options.watch_machine = false;
    options.wash_out = WashOutRule { window: 4, tolerance: 0.02, max_steps: 16 };
    options.n_agreement = 128;
    options.window = 64;
    options.prefill_chunk = 8;
    options
}

/// Keeps what it is told.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) phases: Mutex<Vec<String>>,
    pub(crate) plans: Mutex<Vec<Plan>>,
    pub(crate) estimates: Mutex<Vec<Duration>>,
    pub(crate) notes: Mutex<Vec<String>>,
}

impl Reporter for Recorder {
    fn planned(&self, plan: &Plan) {
        self.plans.lock().unwrap().push(plan.clone());
    }

    fn estimated(&self, remaining: Duration) {
        self.estimates.lock().unwrap().push(remaining);
    }

    fn progress(&self, phase: &Phase, done: u64, total: u64) {
        assert!(total == 0 || done <= total, "{phase}: {done} of {total}");
        let mut phases = self.phases.lock().unwrap();
        let name = phase.to_string();
        if phases.last() != Some(&name) {
            phases.push(name);
        }
    }

    fn note(&self, note: &str) {
        self.notes.lock().unwrap().push(note.to_owned());
    }
}
