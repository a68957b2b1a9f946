//! llama.cpp as a [`ModelRunner`]: one context, several sequences, one step at a time.

use duet_core::text::TokenId;
use duet_core::{
    BackendError, Capabilities, MemoryReport, ModelRunner, PlanRow, RowTokens, SeqId, SequenceSnapshot,
    StepId, StepOutput, StepPlan, Want,
};

use crate::cells::CellBook;
use crate::passes::{CallLimits, is_full, n_passes_of_equal_rows, tokens};
use crate::raw::{Batch, Context, DecodeError, ModelFacts, RawLoop};
use crate::snapshot::{DIGEST, SnapshotKey};

/// Where the logits of the newest step lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logits {
    /// In llama.cpp's buffer: so many rows, not copied.
    InPlace(usize),
    /// In ours, because the step took several calls, each of which overwrites that buffer.
    Gathered,
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
    batch: Batch,
    gathered: Vec<f32>,
    no_tokens: Vec<Option<TokenId>>,
    n_steps: u64,
    n_passes: u64,
    in_flight: Option<(StepId, Logits)>,
    /// Split KV: llama.cpp copies a fork's cells at the next decode, not at once.
    copy_pending: bool,
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
            truncate: !facts.recurrent && !windowed,
            snapshot: true,
        };
        Self {
            capabilities,
            limits: CallLimits { n_rows: settings.n_batch as usize, n_outputs: settings.n_outputs as usize },
            cells: CellBook::new(
                settings.n_cells,
                settings.n_sequences,
                settings.kv_unified,
                settings.cells_per_sequence(),
            ),
            window: windowed.then_some(facts.window),
            recurrent: facts.recurrent,
            snapshot_key,
            batch: Batch::with_capacity(settings.n_batch as usize),
            gathered: Vec::new(),
            no_tokens: Vec::new(),
            n_steps: 0,
            n_passes: 0,
            in_flight: None,
            copy_pending: false,
            context,
        }
    }

    /// Evaluates one token of sequence 0 and forgets it: pages the weights in, starts the compute threads and builds the
    /// graph, so that the first request does not pay for it.
    pub(crate) fn warm_up(&mut self, token: TokenId) -> Result<(), BackendError> {
        let row =
            PlanRow { seq: SeqId(0), position: 0, tokens: RowTokens::Host(&[token]), want: Want::LastLogits };
        self.submit(StepPlan { rows: &[row] })?;
        self.collect()?;
        self.release(SeqId(0));
        (self.n_steps, self.n_passes) = (0, 0);
        Ok(())
    }

    /// A plain loop over the same weights, to be measured against.
    pub(crate) fn raw_loop(&self, n_ctx: u32, n_threads: u32) -> Option<RawLoop> {
        RawLoop::new(self.context.model().clone(), n_ctx, n_threads)
    }

    /// Everything that can be wrong with a plan, before llama.cpp sees it.
    fn check(&self, plan: &StepPlan<'_>) -> Result<(), BackendError> {
        let refuse = |message: String| Err(BackendError::engine("decode", message));
        if self.in_flight.is_some() {
            return refuse("the step before has not been collected".into());
        }
        if plan.rows.is_empty() {
            return refuse("a step without rows".into());
        }
        if plan.rows.windows(2).any(|pair| pair[0].seq >= pair[1].seq) {
            return refuse("rows are not in rising order of their sequences".into());
        }
        for row in plan.rows {
            let seq = row.seq.0;
            let RowTokens::Host(ids) = row.tokens else {
                return Err(unsupported("tokens sampled on the device"));
            };
            if matches!(row.want, Want::Token(_)) {
                return Err(unsupported("sampling on the device"));
            }
            if seq >= self.capabilities.max_sequences {
                return refuse(format!("sequence {seq} of {}", self.capabilities.max_sequences));
            }
            if ids.is_empty() {
                return refuse(format!("a row of sequence {seq} without tokens"));
            }
            if let Some(id) = ids.iter().find(|id| **id as usize >= self.context.n_vocab()) {
                return refuse(format!("token {id} of a vocabulary of {}", self.context.n_vocab()));
            }
            let length = self.cells.len(seq);
            if row.position != length {
                return refuse(format!(
                    "position {} of sequence {seq}, which has {length} tokens",
                    row.position
                ));
            }
            if !self.cells.fits_sequence(seq, ids.len()) {
                return Err(BackendError::KvCacheFull { n_rows: plan.n_tokens() });
            }
        }
        if self.cells.fits(plan.n_tokens()) {
            Ok(())
        } else {
            Err(BackendError::KvCacheFull { n_rows: plan.n_tokens() })
        }
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
                return Ok(Logits::InPlace(n_outputs));
            }
            if n_outputs > 0 {
                self.gathered.extend_from_slice(self.context.logits(n_outputs));
            }
            self.batch.clear();
        }
        Ok(Logits::Gathered)
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

    /// Whether a sequence can go on from its first `n` tokens (fewer than it has).
    fn can_cut(&self, seq: SeqId, n: u32) -> bool {
        match (self.recurrent, self.window) {
            (true, _) => n == 0,
            (false, None) => true,
            (false, Some(window)) => {
                let oldest = self.context.positions(seq.0).map_or(0, |(oldest, _)| oldest);
                n == 0 || oldest <= n.saturating_sub(window)
            }
        }
    }

    fn known(&self, seq: SeqId) -> Result<(), BackendError> {
        let n = self.capabilities.max_sequences;
        if seq.0 < n { Ok(()) } else { Err(invalid(format!("sequence {} of {n}", seq.0))) }
    }

    fn unused(&self, seq: SeqId) -> Result<(), BackendError> {
        self.known(seq)?;
        match self.cells.len(seq.0) {
            0 => Ok(()),
            n => Err(invalid(format!("sequence {} is in use: it has {n} tokens", seq.0))),
        }
    }
}

fn invalid(message: String) -> BackendError {
    BackendError::InvalidRequest { param: None, message }
}

fn unsupported(feature: &'static str) -> BackendError {
    BackendError::Unsupported { feature: feature.into(), backend: crate::ID.into() }
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
        let n_vocab = self.context.n_vocab();
        let logits = match logits {
            Logits::Gathered => &self.gathered,
            Logits::InPlace(n_outputs) => {
                self.context.synchronize();
                let logits = self.context.logits(n_outputs);
                if logits.len() != n_outputs * n_vocab {
                    return Err(BackendError::engine("collect", "llama.cpp has no logits for the step"));
                }
                logits
            }
        };
        Ok(StepOutput { step, logits, n_vocab, tokens: &self.no_tokens })
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
        let known = |bytes: u64| (bytes > 0).then_some(bytes);
        MemoryReport {
            weights_bytes: known(weights).or_else(|| known(model.safe().size())),
            kv_bytes: known(buffers.cache),
            compute_bytes: known(buffers.compute + buffers.output),
            peak_bytes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use duet_core::LoadSpec;
    use duet_core::model::{KvType, inspect};

    use super::*;
    use crate::load::load_runner;
    use crate::settings::GgufSettings;
    use crate::tokenizer::load_tokenizer;

    fn runner(kv_unified: bool) -> GgufRunner {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-llama.gguf");
        let mut spec = LoadSpec::new(Arc::new(inspect(&path).unwrap()), load_tokenizer(&path).unwrap());
        (spec.parallel, spec.context_length, spec.kv_tokens) = (2, 256, 512);
        (spec.threads, spec.kv_unified, spec.kv_type) = (Some(2), Some(kv_unified), Some(KvType::F32));
        let settings = GgufSettings { micro_batch: 8, batch: 16, ..GgufSettings::default() };
        load_runner(&spec, &settings, &mut |_| true).unwrap().runner
    }

    fn evaluate(runner: &mut GgufRunner, rows: &[PlanRow<'_>]) -> Result<Vec<f32>, BackendError> {
        runner.submit(StepPlan { rows })?;
        Ok(runner.collect()?.logits.to_vec())
    }

    fn row(seq: u32, position: u32, tokens: &[TokenId]) -> PlanRow<'_> {
        PlanRow { seq: SeqId(seq), position, tokens: RowTokens::Host(tokens), want: Want::LastLogits }
    }

    /// Aborted anywhere in a step of several calls of several micro-batches, a step leaves no trace.
    #[test]
    fn an_aborted_step_is_taken_back() {
        for kv_unified in [true, false] {
            let mut runner = runner(kv_unified);
            let start: Vec<TokenId> = (20..30).collect();
            let more: Vec<TokenId> = (100..140).collect();
            let left = runner.context.abort_after_nodes(i64::MAX);
            evaluate(&mut runner, &[row(0, 0, &start)]).unwrap();
            left.store(1 << 40, Ordering::Relaxed);
            let rows = [row(0, 10, &more), row(1, 0, &more)];
            let expected = evaluate(&mut runner, &rows).unwrap();
            let n_nodes = (1 << 40) - left.load(Ordering::Relaxed);
            assert!(n_nodes > 100, "five calls of two micro-batches: {n_nodes}");
            assert!(runner.truncate(SeqId(0), 10).unwrap());
            runner.release(SeqId(1));
            for part in 0..8 {
                left.store(n_nodes * part / 8, Ordering::Relaxed);
                let error = evaluate(&mut runner, &rows).unwrap_err();
                assert!(error.chain().contains("llama_decode gave 2"), "{}", error.chain());
                assert_eq!((runner.sequence_len(SeqId(0)), runner.sequence_len(SeqId(1))), (10, 0));
                assert_eq!(runner.n_cells_used(), 10);
                assert_eq!(runner.context.positions(0), Some((0, 9)), "in llama.cpp's own book too");
                assert_eq!(runner.context.positions(1), None);
                runner.collect().expect_err("a failed step gives nothing");
            }
            left.store(i64::MAX, Ordering::Relaxed);
            let again = evaluate(&mut runner, &rows).unwrap();
            let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
            assert!(expected.iter().zip(&again).all(|(a, b)| (a - b).abs() <= 1e-3 * scale));
        }
    }
}
