//! One visit to an arm: wash-out and a request at the runner's level in one exclusive job, then one at the engine's.

use std::sync::Arc;
use std::time::Duration;

use duet_core::LoadedModel;
use duet_core::text::TokenId;

use super::schedule::PlannedVisit;
use crate::clock::nanos;
use crate::environment::Reading;
use crate::exclusive::exclusive;
use crate::files::hash_ids;
use crate::http::RemoteServer;
use crate::measure::{
    EngineSample, FirstToken, MeasureError, RunnerSample, RunnerWork, WashOut, measure_engine,
    measure_runner, wash_out,
};
use crate::options::BenchOptions;
use crate::report::{Visit, VisitFailure};
use crate::work::Work;

/// What every visit measures.
pub(super) struct Measure<'a> {
    pub(super) work: &'a Work,
    pub(super) options: &'a BenchOptions,
    /// The clock when the run began.
    pub(super) begin: Duration,
}

impl Measure<'_> {
    /// One visit as planned; washes out first if the other arm was running before.
    pub(super) async fn visit(
        &self,
        model: &Arc<dyn LoadedModel>,
        planned: PlannedVisit,
        switched: bool,
    ) -> Result<Visit, MeasureError> {
        let PlannedVisit { arm, side, request } = planned;
        let ids = self.work.request(request);
        let ids_sha256 = hash_ids(&ids);
        let mut prompt = ids.clone();
        prompt.truncate(self.work.sizes.n_prompt);
        let server = self.options.server(model.info().backend);
        let before = self.options.watch_machine.then(Reading::now);
        let started_ns = nanos(self.options.clock.now().saturating_sub(self.begin));
        let (wash_out, runner) = match server {
            Some(server) => {
                self.wake(server, switched).await?;
                (None, None)
            }
            None => {
                self.at_runner(model, ids, switched).await.map(|(washed, sample)| (washed, Some(sample)))?
            }
        };
        let (engine, failure) = match self.at_engine(model, planned, prompt).await {
            Ok(sample) => (Some(sample), None),
            Err(error) => match error.code() {
                Some(code) => (None, Some(VisitFailure { code, detail: error.to_string() })),
                None => return Err(error),
            },
        };
        let mut environment = before.map(|before| before.until_now());
        if let (Some(_), Some(environment)) = (server, &mut environment) {
            environment.others_cpu = None; // the server itself would be among the others
        }
        Ok(Visit {
            arm,
            side,
            request,
            ids_sha256,
            started_ns,
            reload_ns: None,
            wash_out,
            runner,
            engine,
            failure,
            environment,
        })
    }

    /// The wash-out after a switch, and a request at the runner's level.
    async fn at_runner(
        &self,
        model: &Arc<dyn LoadedModel>,
        ids: Vec<TokenId>,
        switched: bool,
    ) -> Result<(Option<WashOut>, RunnerSample), MeasureError> {
        let wash_ids = switched.then(|| self.work.wash_out());
        let work = RunnerWork {
            n_prompt: self.work.sizes.n_prompt,
            n_decode: self.work.sizes.n_decode,
            prefill_chunk: self.options.prefill_chunk,
            n_reads: self.work.sizes.n_reads,
        };
        let (rule, clock) = (self.options.wash_out, self.options.clock.clone());
        let at_runner = exclusive(model, move |runner| {
            let washed = wash_ids.map(|ids| wash_out(runner, &ids, &rule, clock.as_ref())).transpose()?;
            let sample = measure_runner(runner, &ids, &work, clock.as_ref())?;
            Ok::<_, MeasureError>((washed, sample))
        });
        at_runner.await?
    }

    /// After a switch, a short request to a server that counts for nothing: its threads and caches are awake then.
    async fn wake(&self, server: &RemoteServer, switched: bool) -> Result<(), MeasureError> {
        if switched {
            let n_tokens = u32::try_from(2 * self.options.wash_out.window).unwrap_or(u32::MAX);
            server.measure(self.work.wash_out(), n_tokens).await?;
        }
        Ok(())
    }

    /// The other times that the prompt is sent, each for its first token alone, and then the request.
    async fn at_engine(
        &self,
        model: &Arc<dyn LoadedModel>,
        planned: PlannedVisit,
        prompt: Vec<TokenId>,
    ) -> Result<EngineSample, MeasureError> {
        let server = self.options.server(model.info().backend);
        let name = format!("bench-{}-{}", planned.arm.name(), planned.request);
        let clock = self.options.clock.as_ref();
        let mut again = Vec::new();
        for number in 1..self.work.sizes.n_reads {
            let (name, prompt) = (format!("{name}-{number}"), prompt.clone());
            again.push(match server {
                Some(server) => server.first_token(prompt).await?,
                None => FirstToken::of(&measure_engine(model, &name, prompt, 1, clock).await?),
            });
        }
        let mut sample = match server {
            Some(server) => server.measure(prompt, self.options.n_decode).await?,
            None => measure_engine(model, &name, prompt, self.options.n_decode, clock).await?,
        };
        let n_cached = again.iter().map(|first| first.n_cached_tokens).max().unwrap_or(0);
        sample.n_cached_tokens = sample.n_cached_tokens.max(n_cached);
        sample.ttft_again_ns = again.iter().map(|first| first.ttft_ns).collect();
        Ok(sample)
    }
}
