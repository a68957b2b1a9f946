//! One visit to an arm: wash-out and a request at the runner's level in one exclusive job, then one at the engine's.

use std::sync::Arc;
use std::time::Duration;

use duet_core::LoadedModel;

use super::schedule::PlannedVisit;
use crate::clock::nanos;
use crate::environment::Reading;
use crate::exclusive::exclusive;
use crate::files::hash_ids;
use crate::measure::{EngineSample, MeasureError, RunnerWork, measure_engine, measure_runner, wash_out};
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
        let wash_ids = switched.then(|| self.work.wash_out());
        let work = RunnerWork {
            n_prompt: self.work.sizes.n_prompt,
            n_decode: self.work.sizes.n_decode,
            prefill_chunk: self.options.prefill_chunk,
        };
        let (rule, clock) = (self.options.wash_out, self.options.clock.clone());
        let before = self.options.watch_machine.then(Reading::now);
        let started_ns = nanos(self.options.clock.now().saturating_sub(self.begin));
        let at_runner = exclusive(model, move |runner| {
            let washed = wash_ids.map(|ids| wash_out(runner, &ids, &rule, clock.as_ref())).transpose()?;
            let sample = measure_runner(runner, &ids, &work, clock.as_ref())?;
            Ok::<_, MeasureError>((washed, sample))
        });
        let (wash_out, sample) = at_runner.await??;
        let (engine, failure) = match self.at_engine(model, planned, prompt).await {
            Ok(sample) => (Some(sample), None),
            Err(error) => match error.code() {
                Some(code) => (None, Some(VisitFailure { code, detail: error.to_string() })),
                None => return Err(error),
            },
        };
        let environment = before.map(|before| before.until_now());
        let runner = Some(sample);
        Ok(Visit {
            arm,
            side,
            request,
            ids_sha256,
            started_ns,
            wash_out,
            runner,
            engine,
            failure,
            environment,
        })
    }

    async fn at_engine(
        &self,
        model: &Arc<dyn LoadedModel>,
        planned: PlannedVisit,
        prompt: Vec<duet_core::text::TokenId>,
    ) -> Result<EngineSample, MeasureError> {
        let name = format!("bench-{}-{}", planned.arm.name(), planned.request);
        measure_engine(model, &name, prompt, self.options.n_decode, self.options.clock.as_ref()).await
    }
}
