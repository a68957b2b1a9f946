//! The vectors of texts: a second context over the same weights, which gives states instead of logits.

use duet_core::embedding::PART;
use duet_core::{BackendError, Pooler, TextPart};

use crate::raw::{Batch, BatchRow, Buffers, Context, ContextSettings, Purpose};

/// One text at a time.
#[derive(Debug)]
pub(super) struct Embedder {
    context: Context,
    batch: Batch,
    /// Tokens of the text at hand that were evaluated.
    n_done: u32,
}

impl Embedder {
    /// Beside `beside`, with its kind of cache, for texts of this length.
    pub(super) fn new(beside: &Context, n_text: u32) -> Result<Self, BackendError> {
        let settings = ContextSettings {
            n_cells: n_text,
            n_batch: PART,
            n_ubatch: PART,
            n_sequences: 1,
            n_holders: 0,
            // All rows go through the head as well, whose output has a buffer of this many.
            n_outputs: PART,
            kv_unified: true,
            purpose: Purpose::States,
            ..*beside.settings()
        };
        let context = Context::new(beside.model().clone(), settings)
            .map_err(|error| BackendError::engine("making a context for embeddings", error))?;
        let batch = Batch::with_capacity(context.settings().n_batch as usize);
        Ok(Self { context, batch, n_done: 0 })
    }

    /// Whether a text of so many tokens fits.
    pub(super) fn holds(&self, n_text: u32) -> bool {
        n_text <= self.context.settings().n_cells
    }

    /// Gives the states of the next tokens, which are known ones and fit.
    pub(super) fn embed(&mut self, part: TextPart<'_>, pooler: &mut Pooler) -> Result<(), BackendError> {
        if part.position == 0 {
            self.context.remove(0, 0);
            self.n_done = 0;
        }
        if part.position != self.n_done {
            return Err(BackendError::engine("embedding", "a part of another text"));
        }
        self.batch.clear();
        for (&token, position) in part.tokens.iter().zip(part.position..) {
            self.batch.push(BatchRow { token, position, sequence: 0, output: true });
        }
        self.context.decode(&mut self.batch).map_err(|error| BackendError::engine("embedding", error))?;
        self.context.synchronize();
        let states = self.context.states();
        if states.len() != part.tokens.len() * pooler.width() {
            return Err(BackendError::engine("embedding", "llama.cpp has no states for the text"));
        }
        pooler.push(states);
        self.n_done += part.tokens.len() as u32;
        Ok(())
    }

    pub(super) fn buffers(&self) -> Buffers {
        self.context.buffers()
    }
}
