//! One visit to an arm: wash-out and a request at the runner's level in one exclusive job, then one at the engine's.

use std::sync::Arc;

use duet_core::LoadedModel;

use crate::exclusive::exclusive;
use crate::measure::{MeasureError, RunnerWork, measure_engine, measure_runner, wash_out};
use crate::options::BenchOptions;
use crate::order::Side;
use crate::report::{Flag, Visit};
use crate::work::Work;

/// What every visit measures.
pub(super) struct Measure<'a> {
    pub(super) work: &'a Work,
    pub(super) options: &'a BenchOptions,
}

impl Measure<'_> {
    /// One visit with the ids of this request; washes out first if the other arm was running before.
    pub(super) async fn visit(
        &self,
        model: &Arc<dyn LoadedModel>,
        side: Side,
        request: usize,
        switched: bool,
    ) -> Result<Visit, MeasureError> {
        let ids = self.work.request(request);
        let mut prompt = ids.clone();
        prompt.truncate(self.work.sizes.n_prompt);
        let wash_ids = switched.then(|| self.work.wash_out());
        let work = RunnerWork {
            n_prompt: self.work.sizes.n_prompt,
            n_decode: self.work.sizes.n_decode,
            prefill_chunk: self.options.prefill_chunk,
        };
        let (rule, clock) = (self.options.wash_out, self.options.clock.clone());
        let at_runner = exclusive(model, move |runner| {
            let washed = wash_ids.map(|ids| wash_out(runner, &ids, &rule, clock.as_ref())).transpose()?;
            let sample = measure_runner(runner, &ids, &work, clock.as_ref())?;
            Ok::<_, MeasureError>((washed, sample))
        });
        let (wash_out, sample) = at_runner.await??;
        let name = format!("bench-{}-{request}", side.name());
        let n_tokens = self.options.n_decode;
        let at_engine = measure_engine(model, &name, prompt, n_tokens, self.options.clock.as_ref()).await?;
        let mut flags = Vec::new();
        if at_engine.n_cached_tokens > 0 {
            flags.push(Flag::CacheHit);
        }
        if wash_out.as_ref().is_some_and(|washed| !washed.steady) {
            flags.push(Flag::NoSteady);
        }
        Ok(Visit { side, request, wash_out, runner: Some(sample), engine: Some(at_engine), flags })
    }
}
