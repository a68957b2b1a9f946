//! The vectors of texts: a second context over the same weights, which gives states instead of logits.

use duet_core::text::TokenId;
use duet_core::{BackendError, Pooler, Pooling};

use crate::raw::{Batch, BatchRow, Buffers, Context, ContextSettings};

/// Rows of one pass. Each of them goes through the head as well, whose output has a buffer of this many rows.
const ROWS: u32 = 128;

/// One sequence at a time.
#[derive(Debug)]
pub(super) struct Embedder {
    context: Context,
    batch: Batch,
}

impl Embedder {
    /// Beside `beside`, with its kind of cache, for texts of this length.
    pub(super) fn new(beside: &Context, context_length: u32) -> Result<Self, BackendError> {
        let settings = ContextSettings {
            n_cells: context_length,
            n_batch: ROWS,
            n_ubatch: ROWS,
            n_sequences: 1,
            n_holders: 0,
            n_outputs: ROWS,
            kv_unified: true,
            ..*beside.settings()
        };
        let mut context = Context::new(beside.model().clone(), settings)
            .map_err(|error| BackendError::engine("making a context for embeddings", error))?;
        context.give_states();
        let batch = Batch::with_capacity(context.settings().n_batch as usize);
        Ok(Self { context, batch })
    }

    /// The pooled states of a text of known tokens that fits.
    pub(super) fn embed(&mut self, tokens: &[TokenId], pooling: Pooling) -> Result<Vec<f32>, BackendError> {
        let mut pooler = Pooler::new(pooling, self.context.state_width());
        let result = self.evaluate(tokens, &mut pooler);
        self.context.synchronize();
        self.context.remove(0, 0);
        result.map(|()| pooler.finish())
    }

    fn evaluate(&mut self, tokens: &[TokenId], pooler: &mut Pooler) -> Result<(), BackendError> {
        let failed = |error| BackendError::engine("embedding", error);
        let mut position = 0;
        for chunk in tokens.chunks(self.context.settings().n_batch as usize) {
            self.batch.clear();
            for &token in chunk {
                self.batch.push(BatchRow { token, position, sequence: 0, output: true });
                position += 1;
            }
            self.context.decode(&mut self.batch).map_err(failed)?;
            self.context.synchronize();
            let states = self.context.states();
            if states.len() != chunk.len() * self.context.state_width() {
                return Err(BackendError::engine("embedding", "llama.cpp has no states for the text"));
            }
            pooler.push(states);
        }
        Ok(())
    }

    pub(super) fn buffers(&self) -> Buffers {
        self.context.buffers()
    }
}
