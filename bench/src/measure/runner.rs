//! One request at the runner's level: `submit` and `collect` on the engine's thread, pre-chosen ids.

use duet_core::text::TokenId;
use duet_core::{ModelRunner, PlanRow, RowTokens, SeqId, StepPlan, Want};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MeasureError;
use crate::agreement::argmax;
use crate::clock::{Clock, nanos};

/// What one request at the runner's level consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerWork {
    /// Prompt tokens, evaluated in chunks. At least 1.
    pub n_prompt: usize,
    /// Decode steps after the prompt, at depths `n_prompt .. n_prompt + n_decode`.
    pub n_decode: usize,
    /// Most prompt tokens of one step; the runner's own limit holds as well. At least 1.
    pub prefill_chunk: u32,
    /// How many times the prompt is read, each time from an empty cache. At least 1.
    pub n_reads: usize,
}

/// What one request at the runner's level took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunnerSample {
    /// First submit → the prompt's last logits on the host and their argmax known.
    pub prefill_ns: u64,
    /// The same for the other times that the prompt was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefill_again_ns: Vec<u64>,
    /// For each forced step: submit → logits on the host and their argmax known.
    pub step_ns: Vec<u64>,
    /// The most probable token after the prompt, as evidence that the head was computed.
    pub first_top: TokenId,
    /// Forward passes over the weights that the engine counted, but for those of `prefill_again_ns`.
    pub n_forward_passes: u64,
    /// The KV cache by the engine's own count, with the whole request in it; read after the last step.
    pub kv_bytes: Option<u64>,
}

/// Measures one request with the runner to itself: evaluates `ids[..n_prompt]`, then feeds the ids after them one by
/// one, whatever the model would have said (*forced*), collecting full logits and computing their argmax on the host
/// before the next submit. Equal depth, routing and work on every engine; the price is that no step is in flight while
/// the host works. The sequence is released afterwards, on errors too. Call it on the runner's thread.
///
/// # Errors
/// `CacheNotEmpty` if the runner holds tokens, `Work` if `ids` or the context are too short, `NonFinite`, or what the
/// runner says.
pub fn measure_runner(
    runner: &mut dyn ModelRunner,
    ids: &[TokenId],
    work: &RunnerWork,
    clock: &dyn Clock,
) -> Result<RunnerSample, MeasureError> {
    let n = work.n_prompt + work.n_decode;
    if work.prefill_chunk == 0 {
        return Err(MeasureError::Work { message: "a prompt in chunks of 0 tokens".to_owned() });
    }
    if work.n_prompt == 0 || ids.len() < n {
        let message =
            format!("a request of {} + {} tokens from {} ids", work.n_prompt, work.n_decode, ids.len());
        return Err(MeasureError::Work { message });
    }
    let context_length = runner.capabilities().context_length as usize;
    if n > context_length {
        let message = format!("a request of {n} tokens does not fit a context of {context_length}");
        return Err(MeasureError::Work { message });
    }
    let read = |sequence: &mut Sequence<'_>| {
        let started = clock.now();
        let first_top = sequence.prefill(&ids[..work.n_prompt], work.prefill_chunk)?;
        Ok::<_, MeasureError>((first_top, nanos(clock.now().saturating_sub(started))))
    };
    let mut prefill_again_ns = Vec::new();
    for _ in 1..work.n_reads {
        prefill_again_ns.push(read(&mut Sequence::begin(runner)?)?.1);
    }
    let passes_before = runner.n_forward_passes();
    let mut sequence = Sequence::begin(runner)?;
    let (first_top, prefill_ns) = read(&mut sequence)?;
    let mut step_ns = Vec::with_capacity(work.n_decode);
    for id in &ids[work.n_prompt..n] {
        let started = clock.now();
        sequence.step(*id)?;
        step_ns.push(nanos(clock.now().saturating_sub(started)));
    }
    let kv_bytes = sequence.runner.memory().kv_bytes;
    drop(sequence);
    let n_forward_passes = runner.n_forward_passes() - passes_before;
    Ok(RunnerSample { prefill_ns, prefill_again_ns, step_ns, first_top, n_forward_passes, kv_bytes })
}

/// Sequence 0 of a runner, from empty to released.
pub(crate) struct Sequence<'a> {
    runner: &'a mut dyn ModelRunner,
    position: u32,
    n_in_flight: u32,
}

impl<'a> Sequence<'a> {
    const ID: SeqId = SeqId(0);

    pub(crate) fn begin(runner: &'a mut dyn ModelRunner) -> Result<Self, MeasureError> {
        match runner.n_cells_used() {
            0 => Ok(Self { runner, position: 0, n_in_flight: 0 }),
            n_cells => Err(MeasureError::CacheNotEmpty { n_cells }),
        }
    }

    fn submit(&mut self, ids: &[TokenId], want: Want) -> Result<(), MeasureError> {
        let row = PlanRow { seq: Self::ID, position: self.position, tokens: RowTokens::Host(ids), want };
        self.runner.submit(StepPlan { rows: &[row] })?;
        self.n_in_flight += 1;
        self.position += ids.len() as u32;
        Ok(())
    }

    /// Waits for the oldest step; the argmax of its logits if it has any.
    fn collect(&mut self) -> Result<Option<TokenId>, MeasureError> {
        self.n_in_flight -= 1;
        let output = self.runner.collect()?;
        if output.logits.is_empty() {
            return Ok(None);
        }
        let top = argmax(output.row(0)).ok_or(MeasureError::NonFinite { position: self.position })?;
        Ok(Some(top))
    }

    /// Evaluates the prompt, with as many chunks in flight as the engine takes, as its own loop does.
    pub(super) fn prefill(&mut self, prompt: &[TokenId], chunk: u32) -> Result<TokenId, MeasureError> {
        let capabilities = self.runner.capabilities();
        let depth = capabilities.steps_in_flight.max(1);
        let chunk = chunk.min(capabilities.max_step_tokens).max(1) as usize;
        let n_chunks = prompt.len().div_ceil(chunk);
        let mut top = None;
        for (index, ids) in prompt.chunks(chunk).enumerate() {
            if self.n_in_flight == depth {
                top = self.collect()?;
            }
            self.submit(ids, if index + 1 == n_chunks { Want::LastLogits } else { Want::Nothing })?;
        }
        while self.n_in_flight > 0 {
            top = self.collect()?;
        }
        top.ok_or_else(|| MeasureError::Work {
            message: "no logits came for the prompt's last token".to_owned(),
        })
    }

    /// Evaluates `ids` and gives `each` the index and the logits `[n_vocab]` of every one of them, in order.
    pub(crate) fn score(
        mut self,
        ids: &[TokenId],
        chunk: u32,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), MeasureError> {
        let chunk = chunk.min(self.runner.capabilities().max_step_tokens).max(1) as usize;
        let mut index = 0;
        for ids in ids.chunks(chunk) {
            self.submit(ids, Want::AllLogits)?;
            self.n_in_flight -= 1;
            let output = self.runner.collect()?;
            if output.n_vocab == 0 || output.logits.len() != ids.len() * output.n_vocab {
                let message = format!("{} logits came for {} tokens", output.logits.len(), ids.len());
                return Err(MeasureError::Work { message });
            }
            for row in output.logits.chunks(output.n_vocab) {
                each(index, row);
                index += 1;
            }
        }
        Ok(())
    }

    /// Feeds one id and waits for its logits.
    pub(super) fn step(&mut self, id: TokenId) -> Result<(), MeasureError> {
        self.submit(&[id], Want::LastLogits)?;
        match self.collect()? {
            Some(_) => Ok(()),
            None => Err(MeasureError::Work { message: "no logits came for a decode step".to_owned() }),
        }
    }
}

impl Drop for Sequence<'_> {
    fn drop(&mut self) {
        while self.n_in_flight > 0 {
            self.n_in_flight -= 1;
            let _ = self.runner.collect(); // after an error; that one is reported
        }
        self.runner.release(Self::ID);
    }
}
