//! One arm over its life: loading, warming up, failing, and what is known of it afterwards.

use std::sync::Arc;
use std::time::Duration;

use duet_core::model::ModelInfo;
use duet_core::{LoadSpec, LoadedModel, chain};

use super::visit::Measure;
use crate::exclusive::exclusive;
use crate::files::FileHash;
use crate::input::ArmInput;
use crate::memory::Footprint;
use crate::options::BenchOptions;
use crate::order::Side;
use crate::report::{ArmFacts, ArmFailure, ArmMemory, Visit};
use crate::reporter::{Phase, Reporter};

/// One arm.
pub(super) struct Arm {
    input: ArmInput,
    files: Vec<FileHash>,
    loaded: Option<Arc<dyn LoadedModel>>,
    load_time: Duration,
    before_load: Option<Footprint>,
    after_load: Option<Footprint>,
    memory: Option<ArmMemory>,
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
            memory: None,
            warm_up: None,
            failure: None,
            reporter,
        }
    }

    pub(super) fn label(&self) -> &str {
        &self.input.label
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
    pub(super) fn fail(&mut self, during: String, error: &(dyn std::error::Error + 'static)) {
        if self.failure.is_none() {
            let failure = ArmFailure { during, error: chain(error) };
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
            Err(error) => self.fail("loading".to_owned(), &error),
        }
    }

    /// The first visit, which does not count; then reads the memory, now that everything has been touched.
    pub(super) async fn warm_up(&mut self, measure: &Measure<'_>, side: Side) {
        let phase = Phase::WarmingUp(self.input.label.clone());
        self.reporter.progress(&phase, 0, 1);
        self.warm_up = self.visit(measure, side, 0, true, "warming up".to_owned()).await;
        let Some(model) = self.running() else { return };
        match exclusive(model, |runner| runner.memory()).await {
            Ok(report) => {
                let since = |now: Option<Footprint>| Some(now?.since(&self.before_load?));
                self.memory = Some(ArmMemory {
                    engine: report.into(),
                    process_load: since(self.after_load),
                    process_warm: since(Footprint::read()),
                });
            }
            Err(error) => self.fail("reading its memory".to_owned(), &error),
        }
        self.reporter.progress(&phase, 1, 1);
    }

    /// One visit; `None` if the arm has failed, before or now.
    pub(super) async fn visit(
        &mut self,
        measure: &Measure<'_>,
        side: Side,
        request: usize,
        switched: bool,
        during: String,
    ) -> Option<Visit> {
        let model = self.running()?.clone();
        match measure.visit(&model, side, request, switched).await {
            Ok(visit) => Some(visit),
            Err(error) => {
                self.fail(during, &error);
                None
            }
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
            warm_up: self.warm_up,
            failure: self.failure,
        }
    }
}
