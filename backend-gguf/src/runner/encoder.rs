//! Models that generate nothing: BERT and its kin, where each token sees all others. A text goes through in one pass and
//! leaves its states, or the score that a classifier on top gives it.

use duet_core::{
    BackendError, Capabilities, MemoryReport, ModelRunner, Pooler, SeqId, SequenceSnapshot, StepId,
    StepOutput, StepPlan, TextPart,
};

use super::check::unsupported;
use crate::raw::{Batch, BatchRow, Context};

/// A context without a cache. Made, used and dropped on one thread.
#[derive(Debug)]
pub(crate) struct EncoderRunner {
    context: Context,
    capabilities: Capabilities,
    batch: Batch,
    n_passes: u64,
}

const NO_CACHE: &str = "a model without a cache";

impl EncoderRunner {
    /// A runner over a fresh context for texts of `context_length`.
    pub(crate) fn new(context: Context, context_length: u32) -> Self {
        let rows = context.settings().n_batch;
        let ranks = context.settings().purpose.ranks();
        let width = u32::try_from(context.state_width()).ok().filter(|width| *width > 0);
        let capabilities = Capabilities {
            max_sequences: 1,
            context_length: context_length.min(rows),
            kv_tokens: context_length.min(rows),
            max_step_tokens: rows,
            steps_in_flight: 1,
            device_sampling: Default::default(),
            fork: false,
            fork_shares_cells: false,
            n_holders: 0,
            truncate: false,
            snapshot: false,
            generates: false,
            embedding_width: width.filter(|_| !ranks),
            embedding_part: context_length.min(rows),
            ranks,
        };
        let batch = Batch::with_capacity(rows as usize);
        Self { context, capabilities, batch, n_passes: 0 }
    }
}

impl ModelRunner for EncoderRunner {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn n_vocab(&self) -> usize {
        self.context.n_vocab()
    }

    fn submit(&mut self, _: StepPlan<'_>) -> Result<StepId, BackendError> {
        Err(unsupported("generating text"))
    }

    fn collect(&mut self) -> Result<StepOutput<'_>, BackendError> {
        Err(BackendError::engine("collect", "no step is in flight"))
    }

    fn fork(&mut self, _: SeqId, _: SeqId, _: u32) -> Result<(), BackendError> {
        Err(unsupported(NO_CACHE))
    }

    fn truncate(&mut self, _: SeqId, _: u32) -> Result<bool, BackendError> {
        Ok(false)
    }

    fn release(&mut self, _: SeqId) {}

    fn snapshot(&mut self, _: SeqId) -> Result<SequenceSnapshot, BackendError> {
        Err(unsupported(NO_CACHE))
    }

    fn restore(&mut self, _: SeqId, _: &SequenceSnapshot) -> Result<(), BackendError> {
        Err(unsupported(NO_CACHE))
    }

    fn embed(&mut self, part: TextPart<'_>, pooler: &mut Pooler) -> Result<(), BackendError> {
        part.check(&self.capabilities, self.context.n_vocab())?;
        if part.tokens.len() != part.n_text as usize {
            return Err(BackendError::invalid("input", "a part of a text that has to come whole"));
        }
        self.batch.clear();
        for (&token, position) in part.tokens.iter().zip(0..) {
            self.batch.push(BatchRow { token, position, sequence: 0, output: true });
        }
        self.context.encode(&mut self.batch).map_err(|error| BackendError::engine("encoding", error))?;
        self.context.synchronize();
        self.n_passes += 1;
        let (states, n) = match self.capabilities.ranks {
            true => (self.context.scores(), 1),
            false => (self.context.states(), part.tokens.len()),
        };
        if states.len() != n * pooler.width() {
            return Err(BackendError::engine("encoding", "llama.cpp has no states for the text"));
        }
        pooler.push(states);
        Ok(())
    }

    fn sequence_len(&self, _: SeqId) -> u32 {
        0
    }

    fn n_cells_used(&self) -> u32 {
        0
    }

    fn n_forward_passes(&self) -> u64 {
        self.n_passes
    }

    fn memory(&self) -> MemoryReport {
        let (model, buffers) = (self.context.model(), self.context.buffers());
        let known = |bytes: u64| (bytes > 0).then_some(bytes);
        MemoryReport {
            weights_bytes: known(model.buffers().model).or_else(|| known(model.safe().size())),
            kv_bytes: None,
            compute_bytes: known(buffers.compute + buffers.output),
            peak_bytes: None,
        }
    }
}
