//! One arm over its life: loading, warming up, failing, and what is known of it afterwards.

use std::sync::Arc;
use std::time::Duration;

use duet_core::model::ModelInfo;
use duet_core::{LoadSpec, LoadedModel, chain};

use super::schedule::PlannedVisit;
use super::visit::Measure;
use crate::exclusive::exclusive;
use crate::files::FileHash;
use crate::input::ArmInput;
use crate::ledger::{Ledger, PredictedMemory, Request};
use crate::library::LibraryRates;
use crate::memory::Footprint;
use crate::options::BenchOptions;
use crate::order::Side;
use crate::report::{ArmFacts, ArmFailure, ArmMemory, EngineMemory, Visit};
use crate::reporter::{Phase, Reporter};
use crate::roofline::read_rate;
use crate::validity::Code;

/// One arm.
pub(super) struct Arm {
    input: ArmInput,
    files: Vec<FileHash>,
    loaded: Option<Arc<dyn LoadedModel>>,
    load_time: Duration,
    before_load: Option<Footprint>,
    after_load: Option<Footprint>,
    predicted: Option<PredictedMemory>,
    memory: Option<ArmMemory>,
    memory_bytes_per_second: Option<f64>,
    library: Option<LibraryRates>,
    pub(super) warm_up: Option<Visit>,
    failure: Option<ArmFailure>,
    reporter: Arc<dyn Reporter>,
}

impl Arm {
    /// An arm to be loaded; `files` are the hashes of all models.
    pub(super) fn new(input: ArmInput, files: Vec<FileHash>, reporter: Arc<dyn Reporter>) -> Self {
        let files = files.into_iter().filter(|file| input.model.files.contains(&file.path)).collect();
        Self {
            input,
            files,
            loaded: None,
            load_time: Duration::ZERO,
            before_load: None,
            after_load: None,
            predicted: None,
            memory: None,
            memory_bytes_per_second: None,
            library: None,
            warm_up: None,
            failure: None,
            reporter,
        }
    }

    pub(super) fn label(&self) -> &str {
        &self.input.label
    }

    /// How long the last load took.
    pub(super) fn load_time(&self) -> Duration {
        self.load_time
    }

    /// What it was made of, to be loaded once more.
    pub(super) fn input(&self) -> ArmInput {
        self.input.clone()
    }

    pub(super) fn engine_id(&self) -> &'static str {
        self.input.backend.info().id
    }

    pub(super) fn model(&self) -> &Arc<ModelInfo> {
        &self.input.model
    }

    /// The loaded model, unless the arm has failed.
    pub(super) fn running(&self) -> Option<&Arc<dyn LoadedModel>> {
        self.loaded.as_ref().filter(|_| self.failure.is_none())
    }

    /// Notes a failure and says so; the first one stays.
    pub(super) fn fail(
        &mut self,
        during: String,
        error: &(dyn std::error::Error + 'static),
        code: Option<Code>,
    ) {
        if self.failure.is_none() {
            let failure = ArmFailure { during, error: chain(error), code };
            self.reporter.note(&format!(
                "{} failed during {}: {}",
                self.label(),
                failure.during,
                failure.error
            ));
            self.failure = Some(failure);
        }
    }

    /// Loads the model.
    pub(super) async fn load(&mut self, options: &BenchOptions, context_length: u32) {
        let mut spec = LoadSpec::new(self.input.model.clone(), self.input.tokenizer.clone());
        spec.context_length = context_length;
        spec.kv_tokens = context_length;
        spec.parallel = 1;
        spec.threads = options.threads;
        spec.prefill_chunk = options.prefill_chunk;
        spec.kv_type = options.kv_type;
        spec.weights = options.weights;
        spec.prefix_cache.enabled = false;
        self.predicted = self.predict(options, context_length);
        let phase = Phase::Loading(self.input.label.clone());
        let told = self.reporter.clone();
        let progress = Arc::new(move |fraction: f32| {
            told.progress(&phase, (fraction.clamp(0.0, 1.0) * 1000.0) as u64, 1000);
            true
        });
        self.before_load = Footprint::read();
        let begin = options.clock.now();
        match self.input.backend.load(spec, progress).await {
            Ok(model) => {
                self.load_time = options.clock.now().saturating_sub(begin);
                self.after_load = Footprint::read();
                self.loaded = Some(model);
            }
            Err(error) => self.fail("loading".to_owned(), &error, None),
        }
    }

    /// What the engine will hold with a whole request in it, from headers alone.
    fn predict(&self, options: &BenchOptions, context_length: u32) -> Option<PredictedMemory> {
        let probe = self.input.backend.probe(&self.input.model).ok()?;
        let layout = probe.kv_layout(options.kv_type, None);
        let BenchOptions { n_prompt, n_decode, prefill_chunk, .. } = *options;
        let request = Request { context_length, n_prompt, n_decode, prefill_chunk };
        PredictedMemory::of(&self.input.model, &probe, layout, request).ok()
    }

    /// The first visit, which does not count; then reads the memory, now that everything has been touched.
    pub(super) async fn warm_up(&mut self, measure: &Measure<'_>, side: Side) {
        let phase = Phase::WarmingUp(self.input.label.clone());
        self.reporter.progress(&phase, 0, 1);
        let planned = PlannedVisit { arm: side, side, request: 0 };
        self.warm_up = self.visit(measure, planned, true, "warming up".to_owned()).await;
        // Caches that grow are empty again by now; what they held at the end of the request is in the sample.
        let in_use = self.warm_up.as_ref().and_then(|visit| visit.runner.as_ref()?.kv_bytes);
        self.reporter.progress(&phase, 1, 1);
        let Some(model) = self.running() else { return };
        if measure.options.server(self.engine_id()).is_some() {
            return; // its memory is another process's
        }
        match exclusive(model, |runner| runner.memory()).await {
            Ok(report) => {
                let since = |now: Option<Footprint>| Some(now?.since(&self.before_load?));
                let engine = EngineMemory { kv_bytes: in_use.or(report.kv_bytes), ..report.into() };
                let process_warm = since(Footprint::read());
                let predicted = self.predicted;
                let ledger = process_warm.and_then(|grown| Ledger::of(&engine, predicted.as_ref(), &grown));
                self.memory = Some(ArmMemory {
                    predicted_kv_bytes: predicted.map(|predicted| predicted.kv_bytes),
                    engine,
                    process_load: since(self.after_load),
                    process_warm,
                    predicted,
                    ledger,
                });
            }
            Err(error) => self.fail("reading its memory".to_owned(), &error, None),
        }
    }

    /// One visit; `None` if the arm has failed, before or now.
    pub(super) async fn visit(
        &mut self,
        measure: &Measure<'_>,
        planned: PlannedVisit,
        switched: bool,
        during: String,
    ) -> Option<Visit> {
        let model = self.running()?.clone();
        match measure.visit(&model, planned, switched).await {
            Ok(visit) => Some(visit),
            Err(error) => {
                self.fail(during, &error, error.code());
                None
            }
        }
    }

    /// Measures how fast this machine reads what a decode step of this arm reads, if it runs on the CPU: other devices
    /// have memory of their own, which threads of this process do not see. With no request running; of several times the
    /// best one stays.
    pub(super) async fn probe_memory(&mut self, n_threads: usize) {
        let Some(model) = &self.loaded else { return };
        let info = model.info();
        let bytes = info.weight_bytes_per_token;
        if info.device.to_ascii_lowercase().starts_with("cpu") {
            let probe = tokio::task::spawn_blocking(move || read_rate(bytes, n_threads));
            let found = probe.await.ok().flatten();
            self.memory_bytes_per_second =
                self.memory_bytes_per_second.into_iter().chain(found).reduce(f64::max);
        }
    }

    /// Times the products of the engine's own library, with no request running; of several times the best rates stay. What an
    /// engine does not offer is nothing that fails.
    pub(super) async fn probe_library(&mut self, n_rows: u32) {
        let Some(model) = self.running().cloned() else { return };
        let step_bytes = model.info().weight_bytes_per_token;
        if let Ok(found) = LibraryRates::measure(&model, step_bytes, n_rows).await {
            self.library = Some(match self.library.take() {
                Some(before) => before.or_better(found),
                None => found,
            });
        }
    }

    /// Frees the model.
    pub(super) async fn unload(&self) {
        if let Some(model) = &self.loaded {
            model.unload().await;
        }
    }

    /// What the report needs of it.
    pub(super) fn into_facts(self) -> ArmFacts {
        let load_time = self.load_time;
        ArmFacts {
            label: self.input.label,
            backend: self.input.backend.info(),
            reason: self.input.reason,
            probe_notes: self.input.probe.notes,
            model: self.input.model,
            files: self.files,
            loaded: self.loaded.map(|model| (model.info().clone(), model.capabilities().clone(), load_time)),
            memory: self.memory,
            memory_bytes_per_second: self.memory_bytes_per_second,
            library: self.library,
            warm_up: self.warm_up,
            failure: self.failure,
        }
    }
}
