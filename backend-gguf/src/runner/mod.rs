//! llama.cpp as a [`ModelRunner`]: one context, several sequences, one step at a time.

mod check;
mod embedder;
mod encoder;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use duet_core::embedding::PART;
use duet_core::text::TokenId;
use duet_core::{
    BackendError, Capabilities, MemoryReport, ModelRunner, Pooler, ProductTiming, ProductWork, SeqId,
    SequenceSnapshot, StepId, StepOutput, StepPlan, TextPart,
};

use crate::cells::CellBook;
use crate::passes::{CallLimits, is_full, n_passes_of_equal_rows, tokens};
use crate::raw::{Batch, BatchRow, Context, DecodeError, ModelFacts, Products, RawLoop};
use crate::snapshot::{DIGEST, SnapshotKey};
use check::{invalid, unsupported};
use embedder::Embedder;
pub(crate) use encoder::EncoderRunner;

/// Where the logits of the newest step lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Logits {
    /// As the plan asked for.
    n_rows: usize,
    /// In llama.cpp's buffer, not copied; otherwise in ours, because the step took several calls and each overwrites that
    /// buffer.
    in_place: bool,
}

/// A context of llama.cpp and the book of its sequences. Made, used and dropped on one thread.
#[derive(Debug)]
pub struct GgufRunner {
    context: Context,
    capabilities: Capabilities,
    limits: CallLimits,
    cells: CellBook,
    /// Tokens that attention looks back over in windowed layers.
    window: Option<u32>,
    recurrent: bool,
    snapshot_key: SnapshotKey,
    /// The model's file, and whether its weights may lie in another layout than there.
    file: Option<(PathBuf, bool)>,
    batch: Batch,
    gathered: Vec<f32>,
    no_tokens: Vec<Option<TokenId>>,
    n_steps: u64,
    n_passes: u64,
    in_flight: Option<(StepId, Logits)>,
    /// Split KV: llama.cpp copies a fork's cells at the next decode, not at once.
    copy_pending: bool,
    /// Made by the first text whose vector is wanted.
    embedder: Option<Embedder>,
}

impl GgufRunner {
    /// A runner over a fresh context, whose longest request is `context_length`.
    pub(crate) fn new(
        context: Context,
        facts: &ModelFacts,
        context_length: u32,
        snapshot_key: SnapshotKey,
    ) -> Self {
        let settings = *context.settings();
        let windowed = facts.window > 0;
        let capabilities = Capabilities {
            max_sequences: settings.n_sequences,
            context_length: context_length.min(settings.cells_per_sequence()),
            kv_tokens: settings.n_cells,
            max_step_tokens: settings.n_batch,
            steps_in_flight: 1,
            device_sampling: Default::default(),
            // A windowed cache forks and cuts only where the window is still held; a recurrent one only at its end.
            fork: !facts.recurrent && !windowed,
            fork_shares_cells: settings.kv_unified,
            n_holders: settings.n_holders,
            truncate: !facts.recurrent && !windowed,
            snapshot: true,
            embedding_width: u32::try_from(context.state_width()).ok().filter(|width| *width > 0),
            embedding_part: PART,
            generates: true,
            ranks: false,
        };
        Self {
            capabilities,
            limits: CallLimits { n_rows: settings.n_batch as usize, n_outputs: settings.n_outputs as usize },
            cells: CellBook::new(
                settings.n_cells,
                settings.n_sequences + settings.n_holders,
                settings.kv_unified,
                settings.cells_per_sequence(),
            ),
            window: windowed.then_some(facts.window),
            recurrent: facts.recurrent,
            snapshot_key,
            file: None,
            batch: Batch::with_capacity(settings.n_batch as usize),
            gathered: Vec::new(),
            no_tokens: Vec::new(),
            n_steps: 0,
            n_passes: 0,
            in_flight: None,
            copy_pending: false,
            embedder: None,
            context,
        }
    }

    /// The same runner, knowing where its weights are from: products like its own can be timed then.
    pub(crate) fn with_file(mut self, path: &Path, repack: bool) -> Self {
        self.file = Some((path.to_owned(), repack));
        self
    }

    /// Evaluates one token of sequence 0 and forgets it: pages the weights in, starts the compute threads and builds the
    /// graph, so that the first request does not pay for it. Given up when `stop` says so.
    pub(crate) fn warm_up(
        &mut self,
        token: TokenId,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), BackendError> {
        self.batch.clear();
        self.batch.push(BatchRow { token, position: 0, sequence: 0, output: true });
        let mut stopped = false;
        let result = self.context.decode_unless(&mut self.batch, &mut || {
            stopped |= stop();
            stopped
        });
        self.context.synchronize();
        self.context.remove(0, 0);
        match result {
            _ if stopped => Err(BackendError::LoadCancelled),
            Ok(()) => Ok(()),
            Err(error) => Err(BackendError::engine("warm-up", error)),
        }
    }

    /// A plain loop over the same weights, to be measured against.
    pub(crate) fn raw_loop(&self, n_ctx: u32, n_threads: u32) -> Option<RawLoop> {
        RawLoop::new(self.context.model().clone(), n_ctx, n_threads)
    }

    /// Evaluates the plan in as few calls as the batch allows; gathers logits if it takes more than one.
    fn evaluate(&mut self, plan: &StepPlan<'_>) -> Result<Logits, DecodeError> {
        self.gathered.clear();
        self.batch.clear();
        let mut rows = tokens(plan.rows).peekable();
        while let Some(row) = rows.next() {
            self.batch.push(row);
            let ends = match rows.peek() {
                None => true,
                Some(next) => is_full(self.limits, self.batch.len(), self.batch.n_outputs(), next),
            };
            if !ends {
                continue;
            }
            self.context.decode(&mut self.batch)?;
            self.copy_pending = false;
            let n_ubatch = self.context.settings().n_ubatch as usize;
            self.n_passes += match self.context.settings().kv_unified && !self.recurrent {
                true => self.batch.len().div_ceil(n_ubatch) as u64,
                false => n_passes_of_equal_rows(self.batch.sequences(), n_ubatch),
            };
            let n_outputs = self.batch.n_outputs();
            let is_last = rows.peek().is_none();
            if is_last && self.gathered.is_empty() {
                return Ok(Logits { n_rows: n_outputs, in_place: true });
            }
            if n_outputs > 0 {
                self.gathered.extend_from_slice(self.context.logits());
            }
            self.batch.clear();
        }
        Ok(Logits { n_rows: plan.n_logits(), in_place: false })
    }

    /// Puts the plan's sequences back to their lengths from before it.
    fn restore_lengths(&mut self, plan: &StepPlan<'_>) -> Result<(), BackendError> {
        self.context.synchronize();
        let mut whole = true;
        for row in plan.rows {
            whole &= self.context.remove(row.seq.0, row.position);
        }
        if whole {
            return Ok(());
        }
        Err(BackendError::EngineCrashed {
            detail: "a failed step could not be taken back from this model's cache".into(),
        })
    }
}

impl ModelRunner for GgufRunner {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn n_vocab(&self) -> usize {
        self.context.n_vocab()
    }

    /// Steps of more rows than the batch holds are split. On a CPU this returns when the pass is done.
    fn submit(&mut self, plan: StepPlan<'_>) -> Result<StepId, BackendError> {
        self.check(&plan)?;
        let logits = match self.evaluate(&plan) {
            Ok(logits) => logits,
            Err(error) => {
                self.restore_lengths(&plan)?;
                return Err(match error {
                    DecodeError::NoCells => BackendError::KvCacheFull { n_rows: plan.n_tokens() },
                    error => BackendError::engine("decode", error),
                });
            }
        };
        for row in plan.rows {
            let taken = self.cells.extend(row.seq.0, row.tokens.len());
            debug_assert!(taken, "`check` has seen to it");
        }
        let step = StepId(self.n_steps);
        self.n_steps += 1;
        self.no_tokens.clear();
        self.no_tokens.resize(plan.rows.len(), None);
        self.in_flight = Some((step, logits));
        Ok(step)
    }

    fn collect(&mut self) -> Result<StepOutput<'_>, BackendError> {
        let (step, logits) =
            self.in_flight.take().ok_or_else(|| BackendError::engine("collect", "no step is in flight"))?;
        self.context.synchronize();
        let n_vocab = self.context.n_vocab();
        let rows = if logits.in_place { self.context.logits() } else { &self.gathered };
        if rows.len() != logits.n_rows * n_vocab {
            return Err(BackendError::engine("collect", "llama.cpp has no logits for the step"));
        }
        Ok(StepOutput { step, logits: rows, n_vocab, tokens: &self.no_tokens })
    }

    fn fork(&mut self, from: SeqId, to: SeqId, n_tokens: u32) -> Result<(), BackendError> {
        self.known(from)?;
        self.unused(to)?;
        let length = self.cells.len(from.0);
        if n_tokens > length {
            return Err(invalid(format!("a fork of {n_tokens} tokens from a sequence of {length}")));
        }
        if n_tokens < length && !self.can_cut(from, n_tokens) {
            return Err(unsupported("a fork before the end of a windowed or recurrent sequence"));
        }
        if n_tokens == 0 {
            return Ok(());
        }
        let copies = !self.context.settings().kv_unified;
        if copies && !self.cells.fits(n_tokens as usize) {
            return Err(BackendError::KvCacheFull { n_rows: n_tokens as usize });
        }
        // Split memory copies whole sequences only, so the tail is cut off afterwards.
        let shared = self.context.share(from.0, to.0, n_tokens)
            && (!copies || n_tokens == length || self.context.remove(to.0, n_tokens));
        if !shared {
            return Err(BackendError::engine("fork", "llama.cpp refused to copy the sequence"));
        }
        self.copy_pending |= copies;
        self.cells.share(from.0, to.0, n_tokens);
        Ok(())
    }

    fn truncate(&mut self, seq: SeqId, n_tokens: u32) -> Result<bool, BackendError> {
        if n_tokens >= self.cells.len(seq.0) {
            return Ok(true);
        }
        if !self.can_cut(seq, n_tokens) || !self.context.remove(seq.0, n_tokens) {
            return Ok(false);
        }
        self.cells.truncate(seq.0, n_tokens);
        Ok(true)
    }

    fn release(&mut self, seq: SeqId) {
        if self.cells.len(seq.0) == 0 {
            return;
        }
        if !self.context.remove(seq.0, 0) {
            // Removing a whole sequence never fails, says the library.
            tracing::error!(seq = seq.0, "llama.cpp did not free a sequence");
        }
        self.cells.truncate(seq.0, 0);
    }

    fn snapshot(&mut self, seq: SeqId) -> Result<SequenceSnapshot, BackendError> {
        self.known(seq)?;
        let n_tokens = self.cells.len(seq.0);
        if self.copy_pending {
            return Err(BackendError::engine("snapshot", "a forked sequence has not been evaluated yet"));
        }
        if n_tokens == 0 {
            return Err(invalid(format!("sequence {} has no tokens", seq.0)));
        }
        let mut bytes = self
            .context
            .save(seq.0, DIGEST)
            .ok_or_else(|| BackendError::engine("snapshot", "llama.cpp gave no state"))?;
        self.snapshot_key.seal(n_tokens, &mut bytes);
        Ok(SequenceSnapshot { n_tokens, bytes })
    }

    fn restore(&mut self, seq: SeqId, snapshot: &SequenceSnapshot) -> Result<(), BackendError> {
        self.unused(seq)?;
        let n_tokens = snapshot.n_tokens;
        let state =
            self.snapshot_key.open(n_tokens, &snapshot.bytes).map_err(|why| invalid(why.to_owned()))?;
        let n_rows = n_tokens as usize;
        if !self.cells.fits_sequence(seq.0, n_rows) || !self.cells.fits(n_rows) {
            return Err(BackendError::KvCacheFull { n_rows });
        }
        let restored = self.context.restore(seq.0, state)
            && self.context.positions(seq.0).is_some_and(|(_, last)| last.checked_add(1) == Some(n_tokens));
        if !restored {
            self.context.remove(seq.0, 0);
            return Err(BackendError::engine("restore", "llama.cpp did not take the state"));
        }
        self.cells.extend(seq.0, n_rows);
        Ok(())
    }

    /// In a context of its own, made for the first text and again for a longer one.
    fn embed(&mut self, part: TextPart<'_>, pooler: &mut Pooler) -> Result<(), BackendError> {
        part.check(&self.capabilities, self.context.n_vocab())?;
        let embedder = match self.embedder.take().filter(|embedder| embedder.holds(part.n_text)) {
            Some(embedder) => embedder,
            None => {
                let n_cells = part.n_text.next_power_of_two().min(self.capabilities.context_length);
                Embedder::new(&self.context, n_cells)?
            }
        };
        self.embedder.insert(embedder).embed(part, pooler)
    }

    fn sequence_len(&self, seq: SeqId) -> u32 {
        self.cells.len(seq.0)
    }

    fn n_cells_used(&self) -> u32 {
        self.cells.used()
    }

    fn n_forward_passes(&self) -> u64 {
        self.n_passes
    }

    fn memory(&self) -> MemoryReport {
        let model = self.context.model();
        let (weights, buffers) = (model.buffers().model, self.context.buffers());
        let second = self.embedder.as_ref().map(Embedder::buffers).unwrap_or_default();
        let known = |bytes: u64| (bytes > 0).then_some(bytes);
        MemoryReport {
            weights_bytes: known(weights).or_else(|| known(model.safe().size())),
            kv_bytes: known(buffers.cache + second.cache),
            compute_bytes: known(buffers.compute + buffers.output + second.compute + second.output),
            peak_bytes: None,
        }
    }

    fn time_products(&mut self, work: ProductWork) -> Result<ProductTiming, BackendError> {
        self.context.synchronize();
        let Some((path, repack)) = &self.file else {
            return Err(unsupported("timing products of a model that is not from a file"));
        };
        let products = Products {
            path,
            n_threads: self.context.settings().n_threads,
            repack: *repack,
            n_rows: work.n_rows.max(1),
            n_bytes: work.n_bytes,
        };
        let timed = products.time().map_err(|why| BackendError::engine("time products", why))?;
        Ok(ProductTiming {
            what: format!("ggml_mul_mat, {}", timed.what),
            n_weights: timed.n_weights,
            n_bytes: timed.n_bytes,
            time: timed.time,
        })
    }
}
