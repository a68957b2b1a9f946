//! A decoder as core's `ModelRunner`: steps over several sequences, one of them in flight while the next is built.
//!
//! A step of any number of sequences is one graph and reads the weights once. All its tokens go through the matrices
//! together; only attention is computed per sequence, over the sequence's own cache.

mod ids;
mod pending;
mod sampling;
mod sequences;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use duet_core::embedding::PART;
use duet_core::{
    BackendError, Capabilities, DeviceSamplingSupport, MemoryReport, ModelRunner, Pooler, ProductTiming,
    ProductWork, SeqId, SequenceSnapshot, StepId, StepOutput, StepPlan, TextPart, Want,
};

use crate::cache::{CacheShape, SequenceCache};
use crate::models::{Decoder, products};
use crate::tensor::{self, MlxError, Tensor, on_stream};
use pending::{Collected, PendingStep};
use sequences::Sequences;

/// Tokens after which free buffers go back to the system.
const TOKENS_BETWEEN_CLEANUPS: usize = 256;

/// The sizes that a runner is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunnerLimits {
    pub(crate) max_sequences: u32,
    pub(crate) context_length: u32,
    pub(crate) kv_tokens: u32,
    pub(crate) max_step_tokens: u32,
}

/// One model on the engine's thread.
#[derive(Debug)]
pub(crate) struct MlxRunner {
    decoder: Decoder,
    capabilities: Capabilities,
    /// Marks snapshots as this model's.
    fingerprint: u64,
    sequences: Sequences,
    /// Of the text whose vector is wanted, as far as it was evaluated.
    text: SequenceCache,
    pending: VecDeque<PendingStep>,
    collected: Collected,
    n_steps: u64,
    tokens_since_cleanup: usize,
}

impl MlxRunner {
    /// A runner over a loaded decoder; on the decoder's thread.
    pub(crate) fn new(decoder: Decoder, limits: RunnerLimits, cache: CacheShape, fingerprint: u64) -> Self {
        let capabilities = Capabilities {
            max_sequences: limits.max_sequences,
            context_length: limits.context_length,
            kv_tokens: limits.kv_tokens,
            max_step_tokens: limits.max_step_tokens,
            steps_in_flight: 2,
            device_sampling: DeviceSamplingSupport {
                greedy: true,
                temperature: true,
                ..DeviceSamplingSupport::default()
            },
            fork: true,
            fork_shares_cells: false,
            n_holders: n_holders(limits.kv_tokens),
            truncate: true,
            snapshot: true,
            embedding_width: u32::try_from(decoder.config.hidden_size).ok(),
            embedding_part: PART,
            generates: true,
            ranks: false,
        };
        let n_ids = capabilities.max_sequences + capabilities.n_holders;
        let sequences = Sequences::new(n_ids as usize, decoder.layers.len(), cache);
        Self {
            decoder,
            capabilities,
            fingerprint,
            text: sequences.fresh_cache(),
            sequences,
            pending: VecDeque::new(),
            collected: Collected::default(),
            n_steps: 0,
            tokens_since_cleanup: 0,
        }
    }

    /// Everything that makes a plan impossible, before anything is touched.
    fn check(&self, plan: StepPlan<'_>) -> Result<(), BackendError> {
        let wrong = |what: String| Err(BackendError::engine("decode", what));
        if self.pending.len() >= self.capabilities.steps_in_flight as usize {
            return wrong(format!("{} steps are in flight already", self.pending.len()));
        }
        if plan.rows.is_empty() || !plan.rows.windows(2).all(|pair| pair[0].seq < pair[1].seq) {
            return wrong("the rows of a step are not in rising order of sequence".to_owned());
        }
        let n_tokens = plan.n_tokens();
        if n_tokens > self.capabilities.max_step_tokens as usize {
            return wrong(format!("{n_tokens} tokens in a step"));
        }
        for row in plan.rows {
            if !self.sequences.has_id(row.seq) {
                return wrong(format!("there is no sequence {}", row.seq.0));
            }
            if row.seq.0 >= self.capabilities.max_sequences {
                return wrong(format!("sequence {} only holds a prefix", row.seq.0));
            }
            let len = self.sequences.len(row.seq);
            if row.position as usize != len {
                return wrong(format!("sequence {} continues at {len}, not at {}", row.seq.0, row.position));
            }
            if len + row.tokens.len() > self.capabilities.context_length as usize {
                return wrong(format!("sequence {} outgrows its context", row.seq.0));
            }
            ids::check(row, &self.sequences, self.decoder.config.vocab_size)?;
        }
        if self.sequences.n_tokens() + n_tokens > self.capabilities.kv_tokens as usize {
            return Err(BackendError::KvCacheFull { n_rows: n_tokens });
        }
        Ok(())
    }

    /// That there is a sequence, or holder, of this id.
    fn known(&self, seq: SeqId) -> Result<(), BackendError> {
        match self.sequences.has_id(seq) {
            true => Ok(()),
            false => Err(invalid(format!("there is no sequence {}", seq.0))),
        }
    }

    /// That it has no tokens, besides.
    fn unused(&self, seq: SeqId) -> Result<(), BackendError> {
        self.known(seq)?;
        match self.sequences.len(seq) {
            0 => Ok(()),
            n => Err(invalid(format!("sequence {} is in use, with {n} tokens", seq.0))),
        }
    }

    /// Builds the step's graph and starts it.
    fn start(&mut self, plan: StepPlan<'_>) -> Result<PendingStep, MlxError> {
        let ids = ids::of(plan, &self.sequences)?;
        let mut at = 0;
        let rows = plan.rows.iter().map(|row| {
            let n = row.tokens.len();
            at += n;
            crate::models::StepRow { start: at - n, n, position: row.position as usize }
        });
        let step = self.decoder.step(rows.collect());
        let mut caches = self.sequences.caches(plan);
        for (cache, row) in caches.iter_mut().zip(plan.rows) {
            cache.make_room(row.tokens.len())?;
        }
        let hidden = self.decoder.hidden(&ids, &step, &mut caches)?;
        let pending = PendingStep::new(plan, &self.decoder, &step, &hidden, &mut self.sequences)?;
        tensor::async_eval(pending.outputs().chain(self.sequences.tensors_without_output(plan)))?;
        Ok(pending)
    }

    /// The states of the next tokens of a text, into `pooler`.
    fn states(&mut self, part: TextPart<'_>, pooler: &mut Pooler) -> Result<(), MlxError> {
        let n = part.tokens.len();
        let row = crate::models::StepRow { start: 0, n, position: part.position as usize };
        let step = self.decoder.step(vec![row]);
        self.text.make_room(n)?;
        let ids = Tensor::from_u32(part.tokens, &[n]);
        let hidden = self.decoder.hidden(&ids, &step, &mut [&mut self.text])?;
        let states = self.decoder.states(&hidden)?;
        tensor::eval([&states])?;
        pooler.push(states.as_f32()?);
        self.clean_up(n)
    }

    fn clean_up(&mut self, n_tokens: usize) -> Result<(), MlxError> {
        self.tokens_since_cleanup += n_tokens;
        if self.tokens_since_cleanup >= TOKENS_BETWEEN_CLEANUPS {
            self.tokens_since_cleanup = 0;
            tensor::clear_cache()?;
        }
        Ok(())
    }
}

/// How many prefixes can be held beside the running sequences: as many as there are smallest buffers in the cache.
fn n_holders(kv_tokens: u32) -> u32 {
    (kv_tokens / 256).clamp(32, 1024)
}

fn invalid(message: impl Into<String>) -> BackendError {
    BackendError::InvalidRequest { param: None, message: message.into() }
}

fn engine_error(operation: &'static str) -> impl Fn(MlxError) -> BackendError {
    move |error| BackendError::engine(operation, error)
}

impl ModelRunner for MlxRunner {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn n_vocab(&self) -> usize {
        self.decoder.config.vocab_size
    }

    fn submit(&mut self, plan: StepPlan<'_>) -> Result<StepId, BackendError> {
        self.check(plan)?;
        on_stream(|_| match self.start(plan) {
            Ok(pending) => {
                let id = StepId(self.n_steps);
                self.n_steps += 1;
                self.pending.push_back(pending);
                Ok(id)
            }
            Err(error) => {
                // Nothing beyond the old lengths is ever read, so cutting the caches back undoes the step.
                for row in plan.rows {
                    self.sequences.truncate(row.seq, row.position as usize);
                }
                Err(BackendError::engine("decode", error))
            }
        })
    }

    fn collect(&mut self) -> Result<StepOutput<'_>, BackendError> {
        let pending =
            self.pending.pop_front().ok_or_else(|| BackendError::engine("decode", "no step is in flight"))?;
        let step = StepId(self.n_steps - 1 - self.pending.len() as u64);
        let n_tokens = pending.n_tokens;
        on_stream(|_| {
            // What a failed evaluation has written is unknown, and steps after it are built on it.
            let lost = |error: MlxError| BackendError::EngineCrashed { detail: error.to_string() };
            self.collected.read(pending).map_err(lost)?;
            self.clean_up(n_tokens).map_err(engine_error("decode"))
        })?;
        Ok(StepOutput {
            step,
            logits: &self.collected.logits,
            n_vocab: self.decoder.config.vocab_size,
            tokens: &self.collected.tokens,
        })
    }

    fn fork(&mut self, from: SeqId, to: SeqId, n_tokens: u32) -> Result<(), BackendError> {
        self.known(from)?;
        self.unused(to)?;
        let have = self.sequences.len(from);
        if n_tokens as usize > have {
            return Err(invalid(format!("sequence {} has {have} tokens, not {n_tokens}", from.0)));
        }
        match on_stream(|_| self.sequences.fork(from, to, n_tokens as usize)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(invalid(format!("sequence {} cannot go back to {n_tokens} tokens", from.0))),
            Err(error) => Err(engine_error("fork")(error)),
        }
    }

    fn truncate(&mut self, seq: SeqId, n_tokens: u32) -> Result<bool, BackendError> {
        self.known(seq)?;
        Ok(self.sequences.truncate(seq, n_tokens as usize))
    }

    fn release(&mut self, seq: SeqId) {
        self.sequences.release(seq);
    }

    fn snapshot(&mut self, seq: SeqId) -> Result<SequenceSnapshot, BackendError> {
        self.known(seq)?;
        let n_tokens = self.sequences.len(seq) as u32;
        let bytes = on_stream(|_| self.sequences.snapshot(seq, self.fingerprint))
            .map_err(engine_error("snapshot"))?;
        Ok(SequenceSnapshot { n_tokens, bytes })
    }

    fn restore(&mut self, seq: SeqId, snapshot: &SequenceSnapshot) -> Result<(), BackendError> {
        self.unused(seq)?;
        match on_stream(|_| self.sequences.restore(seq, self.fingerprint, snapshot)) {
            true => Ok(()),
            false => Err(invalid("the snapshot is not of this model, engine and KV type")),
        }
    }

    fn embed(&mut self, part: TextPart<'_>, pooler: &mut Pooler) -> Result<(), BackendError> {
        part.check(&self.capabilities, self.decoder.config.vocab_size)?;
        if part.position == 0 {
            self.text = self.sequences.fresh_cache();
        }
        if self.text.len() != part.position as usize {
            return Err(BackendError::engine("embedding", "a part of another text"));
        }
        on_stream(|_| self.states(part, pooler)).map_err(engine_error("embedding"))?;
        if self.text.len() == part.n_text as usize {
            self.text = self.sequences.fresh_cache();
        }
        Ok(())
    }

    fn sequence_len(&self, seq: SeqId) -> u32 {
        self.sequences.len(seq) as u32
    }

    fn n_cells_used(&self) -> u32 {
        self.sequences.n_tokens() as u32
    }

    fn n_forward_passes(&self) -> u64 {
        self.n_steps
    }

    fn memory(&self) -> MemoryReport {
        let bytes = |n: Result<usize, MlxError>| n.ok().map(|n| n as u64);
        MemoryReport {
            weights_bytes: Some(self.decoder.n_bytes() as u64),
            kv_bytes: Some(self.sequences.n_bytes() as u64),
            compute_bytes: None,
            peak_bytes: bytes(tensor::peak_bytes()),
        }
    }

    fn time_products(&mut self, work: ProductWork) -> Result<ProductTiming, BackendError> {
        let timed = on_stream(|_| {
            let timed = products::time(&self.decoder, work.n_rows.max(1) as usize, work.n_bytes);
            // What was unpacked is not the model's.
            tensor::clear_cache().and(timed)
        });
        let timed = timed.map_err(engine_error("time products"))?;
        let timed = timed
            .ok_or_else(|| BackendError::engine("time products", "the model has no matrix in its layers"))?;
        let products::Timed { what, n_weights, n_bytes, time } = timed;
        Ok(ProductTiming { what, n_weights, n_bytes, time })
    }
}

/// Rows of a plan that want a token, with their place in it.
fn sampled_rows(plan: StepPlan<'_>) -> impl Iterator<Item = (usize, SeqId, duet_core::DeviceSampling)> {
    plan.rows.iter().enumerate().filter_map(|(index, row)| match row.want {
        Want::Token(sampling) => Some((index, row.seq, sampling)),
        _ => None,
    })
}

/// The lazy token of a sequence, `[1]`.
type LazyToken = Tensor;
