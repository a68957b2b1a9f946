//! One arm of the scenarios: an engine loaded for several requests at once, or a server that runs already.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use duet_core::event::{FinishReason, GenerationEvent};
use duet_core::request::GenerateRequest;
use duet_core::text::TokenId;
use duet_core::{BackendError, LoadSpec, LoadedModel};

use super::fresh::{FreshStart, StartCommand, first_output};
use super::report::{ScenarioFault, ScenarioRequest, ScenarioValue, ScenarioVisit};
use super::work::{ScenarioWork, WARM};
use crate::clock::{Clock, nanos};
use crate::environment::Reading;
use crate::files::hash_ids;
use crate::http::{Answer, Piece, RemoteServer, Usage, text_of};
use crate::input::ArmInput;
use crate::load::scenario::arrivals::Arrivals;
use crate::load::scenario::{Outcome, arrivals, idle, shared_prefix, streams};
use crate::load::{Answers, Figure, LoadError, LoadFlag, Prompts, VisitPrompts};
use crate::session::schedule::PlannedVisit;

/// What all visits of both arms have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) prompts: Arc<Prompts>,
    /// Prompts that a visit may take.
    pub(super) per_visit: usize,
    pub(super) clock: Arc<dyn Clock>,
    /// The clock when the run began.
    pub(super) begin: Duration,
    pub(super) watch_machine: bool,
    /// How a new process is started.
    pub(super) start: Option<StartCommand>,
}

/// One arm.
pub(super) struct Seat {
    pub(super) input: ArmInput,
    pub(super) server: Option<Arc<RemoteServer>>,
    pub(super) spec: LoadSpec,
    pub(super) common: Common,
    loaded: Option<Arc<dyn LoadedModel>>,
}

impl Seat {
    pub(super) fn new(
        input: ArmInput,
        server: Option<Arc<RemoteServer>>,
        spec: LoadSpec,
        common: Common,
    ) -> Self {
        Self { input, server, spec, common, loaded: None }
    }

    pub(super) fn label(&self) -> &str {
        &self.input.label
    }

    /// Loads the model, or greets the server.
    pub(super) async fn open(&mut self) -> Result<(), LoadError> {
        let loaded = self.input.backend.load(self.spec.clone(), Arc::new(|_| true)).await;
        self.loaded = Some(loaded.map_err(|source| self.failed("loading", source))?);
        Ok(())
    }

    /// Frees the model.
    pub(super) async fn close(&mut self) {
        if let Some(model) = self.loaded.take() {
            model.unload().await;
        }
    }

    /// One visit; `number` chooses its prompts.
    pub(super) async fn visit(
        &mut self,
        work: &ScenarioWork,
        planned: PlannedVisit,
        number: usize,
    ) -> Result<ScenarioVisit, LoadError> {
        let common = self.common.clone();
        let mut prompts = common.prompts.of_visit(number, common.per_visit);
        let is_load = matches!(work, ScenarioWork::Load { .. });
        if !is_load {
            // Threads and caches are awake after it.
            let target = self.target(false)?;
            target.answer("the warm-up", prompts.prompt(WARM.0 as usize)?, WARM.1).await?;
        }
        let before = common.watch_machine.then(Reading::now);
        let began = common.clock.now();
        let (outcome, asked) = if is_load {
            self.cold_start(work, &mut prompts).await?
        } else {
            let target = self.target(matches!(work, ScenarioWork::SharedPrefix { .. }))?;
            let outcome = done(&target, work, planned.request, &mut prompts).await?;
            (outcome, target.into_asked())
        };
        let wall = common.clock.now().saturating_sub(began);
        let mut environment = before.map(|before| before.until_now());
        if let (Some(_), Some(environment)) = (&self.server, &mut environment) {
            environment.others_cpu = None; // the server itself would be among the others
        }
        Ok(ScenarioVisit {
            arm: planned.arm,
            side: planned.side,
            request: planned.request,
            ids_sha256: hash_all(asked),
            started_ns: nanos(began.saturating_sub(common.begin)),
            wall_ns: nanos(wall),
            figures: values(&outcome.figures, work),
            faults: outcome.flags.iter().filter_map(|flag| fault(*flag)).collect(),
            requests: outcome
                .requests
                .into_iter()
                .map(|request| ScenarioRequest::of(request.role, &request.answer))
                .collect(),
            environment,
        })
    }

    /// Frees the model, loads it and asks for its first tokens.
    async fn cold_start(
        &mut self,
        work: &ScenarioWork,
        prompts: &mut VisitPrompts<'_>,
    ) -> Result<(Outcome, Vec<Vec<TokenId>>), LoadError> {
        let (n_prompt, n_decode) = match work {
            ScenarioWork::Load { n_prompt, n_decode } => (*n_prompt as usize, *n_decode),
            _ => (1, 2),
        };
        let prompt = prompts.prompt(n_prompt)?;
        self.close().await;
        let fresh = self.fresh_start(&prompt, work).await?;
        let began = self.common.clock.now();
        self.open().await?;
        let loaded = self.common.clock.now().saturating_sub(began);
        let target = self.target(false)?;
        let answer = target.answer("the first request", prompt, n_decode).await?;
        let first = answer.pieces.first().map_or(0, |piece| piece.at_ns);
        let first = Duration::from_nanos(first).saturating_sub(began);
        let name = work.name();
        let mut outcome = Outcome {
            figures: vec![
                Figure::seconds(format!("{name}: loaded after"), loaded),
                Figure::seconds(format!("{name}: first token after"), first),
            ],
            ..Outcome::default()
        };
        outcome.figures.extend(fresh);
        outcome.keep("first", answer, n_decode, 0);
        Ok((outcome, target.into_asked()))
    }

    /// The same prompt in a new process, where there is a way to start one.
    async fn fresh_start(
        &self,
        prompt: &[TokenId],
        work: &ScenarioWork,
    ) -> Result<Option<Figure>, LoadError> {
        let Some(start) = &self.common.start else { return Ok(None) };
        let text = text_of(self.input.tokenizer.as_ref(), prompt);
        let command = start(&FreshStart {
            engine: self.input.backend.info().id,
            model: &self.input.model.path,
            prompt: &text,
            context_length: self.spec.context_length,
        });
        let time = first_output(command, self.common.clock.as_ref()).await;
        let time = time.map_err(|problem| LoadError::Answer { arm: self.label().to_owned(), problem })?;
        Ok(Some(Figure::seconds(format!("{}: process to first token", work.name()), time)))
    }

    fn target(&self, use_cache: bool) -> Result<Target, LoadError> {
        let model = self.loaded.clone().ok_or_else(|| LoadError::Answer {
            arm: self.label().to_owned(),
            problem: "it is not loaded".to_owned(),
        })?;
        Ok(Target {
            label: self.label().to_owned(),
            server: self.server.clone(),
            clock: self.common.clock.clone(),
            model,
            use_cache,
            asked: Mutex::default(),
        })
    }

    fn failed(&self, during: &str, source: BackendError) -> LoadError {
        LoadError::Engine { arm: self.label().to_owned(), during: during.to_owned(), source }
    }
}

/// The scenario on an arm that is loaded.
async fn done(
    target: &Target,
    work: &ScenarioWork,
    request: usize,
    prompts: &mut VisitPrompts<'_>,
) -> Result<Outcome, LoadError> {
    let name = work.name();
    let sizes = crate::load::Sizes::default();
    match *work {
        ScenarioWork::Streams { n, n_prompt, n_decode } => {
            let sizes = crate::load::Sizes { prompt: n_prompt as usize, output: n_decode, ..sizes };
            streams::run(target, &name, n as usize, &sizes, prompts).await
        }
        ScenarioWork::SharedPrefix { n, n_shared, n_prompt, n_decode } => {
            let sizes = crate::load::Sizes {
                sharers: n as usize,
                shared: n_shared as usize,
                shared_prompt: n_prompt as usize,
                shared_output: n_decode,
                ..sizes
            };
            shared_prefix::run(target, &sizes, prompts).await
        }
        ScenarioWork::Arrivals { n, per_second, seed, n_prompt, n_decode } => {
            let arrivals = Arrivals {
                n: n as usize,
                per_second,
                // Both arms have the same arrivals, and every request its own.
                seed: seed.wrapping_add(request as u64),
                n_prompt: n_prompt as usize,
                n_output: n_decode,
            };
            arrivals::run(target, &name, &arrivals, prompts).await
        }
        ScenarioWork::Idle { pause_ms, n_prompt } => {
            idle::run(target, &name, Duration::from_millis(pause_ms), n_prompt as usize, prompts).await
        }
        ScenarioWork::Load { .. } => Ok(Outcome::default()),
    }
}

/// Figures under names without the scenario's.
fn values(figures: &[Figure], work: &ScenarioWork) -> Vec<ScenarioValue> {
    let prefix = format!("{}: ", work.name());
    let value = |figure: &Figure| ScenarioValue {
        figure: figure.name.strip_prefix(&prefix).unwrap_or(&figure.name).to_owned(),
        unit: figure.unit.to_owned(),
        better: figure.better,
        value: figure.value,
    };
    figures.iter().filter(|figure| figure.value.is_finite()).map(value).collect()
}

/// Others' share of the CPU is looked at block by block, as everywhere in this bench.
fn fault(flag: LoadFlag) -> Option<ScenarioFault> {
    let (code, detail) = match flag {
        LoadFlag::CacheHit => {
            (crate::validity::Code::CacheHit, "more prompt tokens came from a cache than the scenario shares")
        }
        LoadFlag::Tokens => {
            (crate::validity::Code::Tokens, "an answer has not the length that was asked for")
        }
        LoadFlag::Contention => return None,
    };
    Some(ScenarioFault { code, detail: detail.to_owned() })
}

/// One hash over prompts that may have been sent in any order.
fn hash_all(mut asked: Vec<Vec<TokenId>>) -> String {
    asked.sort_unstable();
    let joined = asked.into_iter().flat_map(|prompt| {
        let n = TokenId::try_from(prompt.len()).unwrap_or(TokenId::MAX);
        std::iter::once(n).chain(prompt)
    });
    hash_ids(&joined.collect::<Vec<_>>())
}

/// What requests go to.
struct Target {
    label: String,
    server: Option<Arc<RemoteServer>>,
    clock: Arc<dyn Clock>,
    model: Arc<dyn LoadedModel>,
    use_cache: bool,
    asked: Mutex<Vec<Vec<TokenId>>>,
}

impl Target {
    fn into_asked(self) -> Vec<Vec<TokenId>> {
        self.asked.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    async fn generate(&self, prompt: Vec<TokenId>, max_tokens: u32) -> Result<Answer, BackendError> {
        let mut request = GenerateRequest::new(format!("bench-{}", self.label), prompt, max_tokens);
        request.ignore_eos = true;
        request.use_prefix_cache = self.use_cache;
        let mut answer = Answer { sent_ns: nanos(self.clock.now()), ..Answer::default() };
        let mut events = self.model.generate(request)?;
        answer.head_ns = nanos(self.clock.now());
        while let Some(event) = events.next().await {
            let at_ns = nanos(self.clock.now());
            match event? {
                GenerationEvent::Token(token) => {
                    let n_bytes = u32::try_from(token.text.len()).unwrap_or(u32::MAX);
                    answer.pieces.push(Piece { at_ns, n_bytes });
                }
                GenerationEvent::Finished(finished) => {
                    answer.ended_ns = Some(at_ns);
                    let stopped = matches!(finished.reason, FinishReason::Stop(_));
                    answer.finish_reason = Some(if stopped { "stop" } else { "length" }.to_owned());
                    let usage = finished.usage;
                    answer.usage = Some(Usage {
                        prompt_tokens: usage.n_prompt_tokens.into(),
                        completion_tokens: usage.n_completion_tokens.into(),
                        cached_tokens: Some(usage.n_cached_tokens.into()),
                    });
                }
            }
        }
        Ok(answer)
    }
}

#[async_trait]
impl Answers for Target {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    async fn answer(&self, during: &str, prompt: Vec<TokenId>, max_tokens: u32) -> Result<Answer, LoadError> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(prompt.clone());
        let (arm, during) = (self.label.clone(), during.to_owned());
        let answer = match &self.server {
            Some(server) => match server.answer(prompt, max_tokens, self.use_cache).await {
                Ok(answer) => answer,
                Err(source) => return Err(LoadError::Request { arm, during, source }),
            },
            None => match self.generate(prompt, max_tokens).await {
                Ok(answer) => answer,
                Err(source) => return Err(LoadError::Engine { arm, during, source }),
            },
        };
        match answer.pieces.is_empty() {
            true => Err(LoadError::Answer { arm, problem: format!("{during}: an answer without a token") }),
            false => Ok(answer),
        }
    }
}
