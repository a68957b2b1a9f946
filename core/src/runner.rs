//! What an engine crate really implements: token ids in, logits or token ids out, on one thread.
//!
//! A runner knows nothing of text, sampling policy, queues or clocks, and takes no decisions: the scheduler in
//! [`crate::engine`] says which rows go into a step. It owns the KV cache; sequences are named by [`SeqId`].
//!
//! A step is split in two so that an engine can keep one in flight: [`ModelRunner::submit`] starts a forward pass,
//! [`ModelRunner::collect`] gives the oldest one's result.

use crate::embedding::{Pooler, TextPart};
use crate::error::BackendError;
use crate::text::TokenId;

/// Names one sequence inside a runner: 0 ≤ id < [`Capabilities::max_sequences`] where it runs; from there on, for
/// [`Capabilities::n_holders`] ids more, a prefix that is only kept.
///
/// Ids are kept compact (the lowest free one is taken), because engines group rows by consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u32);

/// Counts the steps of one runner from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub u64);

/// What the engine wants back for the tokens of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// Nothing: a chunk of a prompt that goes on.
    Nothing,
    /// Logits after the row's last token: one output of `[n_vocab]`.
    LastLogits,
    /// Logits after every token of the row: `tokens.len()` outputs of `[n_vocab]`.
    AllLogits,
    /// A token sampled on the device after the row's last token. Only where [`Capabilities::device_sampling`] has it.
    Token(DeviceSampling),
}

impl Want {
    /// How many rows of logits this asks for, given the row's number of tokens.
    pub fn n_logits(self, n_tokens: usize) -> usize {
        match self {
            Want::Nothing | Want::Token(_) => 0,
            Want::LastLogits => 1,
            Want::AllLogits => n_tokens,
        }
    }
}

/// One draw on the device. The chain and the meaning of `uniform` are those of [`crate::sampling`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeviceSampling {
    /// 0 is greedy; the other fields have no effect then.
    pub temperature: f32,
    /// Keep the k most probable; 0 is off.
    pub top_k: u32,
    /// Keep the smallest set whose mass reaches p; 1 is off.
    pub top_p: f32,
    /// Keep what has at least this share of the best one's probability; 0 is off.
    pub min_p: f32,
    /// The draw, in [0, 1): position on the cumulative distribution in order of token id.
    pub uniform: f32,
}

/// Tokens of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowTokens<'a> {
    /// Ids known to the host; at least one.
    Host(&'a [TokenId]),
    /// The one token that the step before this one sampled on the device for the same sequence ([`Want::Token`]).
    Previous,
}

impl RowTokens<'_> {
    /// Number of tokens.
    #[expect(clippy::len_without_is_empty, reason = "a row is never empty")]
    pub fn len(&self) -> usize {
        match self {
            RowTokens::Host(ids) => ids.len(),
            RowTokens::Previous => 1,
        }
    }
}

/// A run of consecutive tokens of one sequence inside a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanRow<'a> {
    /// The sequence. At most one row per sequence in a step.
    pub seq: SeqId,
    /// Position of the row's first token = tokens of the sequence already in the KV cache (in-flight steps counted).
    pub position: u32,
    /// What is evaluated.
    pub tokens: RowTokens<'a>,
    /// What is wanted back.
    pub want: Want,
}

/// One forward pass over rows of several sequences, in rising order of [`SeqId`].
#[derive(Debug, Clone, Copy)]
pub struct StepPlan<'a> {
    /// The rows; at least one, at most one per sequence, at most [`Capabilities::max_step_tokens`] tokens in all.
    pub rows: &'a [PlanRow<'a>],
}

impl StepPlan<'_> {
    /// Tokens of all rows.
    pub fn n_tokens(&self) -> usize {
        self.rows.iter().map(|row| row.tokens.len()).sum()
    }

    /// Rows of logits that come back, in plan order.
    pub fn n_logits(&self) -> usize {
        self.rows.iter().map(|row| row.want.n_logits(row.tokens.len())).sum()
    }
}

/// The result of one step, borrowed from the runner: it lives until the next `submit` or `collect`.
#[derive(Debug, Clone, Copy)]
pub struct StepOutput<'a> {
    /// Which step this is.
    pub step: StepId,
    /// `[n_logits, n_vocab]` f32, in plan order, only rows that asked for logits.
    pub logits: &'a [f32],
    /// Width of a row of logits.
    pub n_vocab: usize,
    /// One entry per plan row: the token sampled on the device where the row asked for one.
    pub tokens: &'a [Option<TokenId>],
}

impl<'a> StepOutput<'a> {
    /// The `index`-th row of logits, `[n_vocab]`, counted over the plan in order.
    ///
    /// # Panics
    /// If the plan asked for fewer rows: a bug of the caller.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.logits[index * self.n_vocab..(index + 1) * self.n_vocab]
    }
}

/// Which parameters the device sampler honours. A row whose parameters are not all covered is sampled on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceSamplingSupport {
    /// temperature 0.
    pub greedy: bool,
    /// temperature above 0.
    pub temperature: bool,
    /// top_k.
    pub top_k: bool,
    /// top_p.
    pub top_p: bool,
    /// min_p.
    pub min_p: bool,
}

impl DeviceSamplingSupport {
    /// Whether a draw with these parameters can be made on the device.
    pub fn covers(&self, sampling: &DeviceSampling) -> bool {
        if sampling.temperature <= 0.0 {
            return self.greedy;
        }
        self.temperature
            && (sampling.top_k == 0 || self.top_k)
            && (sampling.top_p >= 1.0 || self.top_p)
            && (sampling.min_p <= 0.0 || self.min_p)
    }
}

/// What a loaded model can do on its engine: data, so that nobody has to try.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// Sequences that can run at once.
    pub max_sequences: u32,
    /// Most tokens (prompt + completion) of one sequence.
    pub context_length: u32,
    /// Cells of KV cache shared by all sequences.
    pub kv_tokens: u32,
    /// Most tokens of one step.
    pub max_step_tokens: u32,
    /// Steps that may be submitted and not yet collected: 1 or 2.
    pub steps_in_flight: u32,
    /// Which draws the device can make; with `steps_in_flight` 2 the host is not waited for.
    pub device_sampling: DeviceSamplingSupport,
    /// [`ModelRunner::fork`] works.
    pub fork: bool,
    /// A fork shares the cells of its source until the two differ, so that a common prefix counts once in
    /// [`ModelRunner::n_cells_used`]. Otherwise each sequence's tokens count on their own.
    pub fork_shares_cells: bool,
    /// Ids from `max_sequences` up to `max_sequences + n_holders` hold prefixes: they can be forked to and from, cut,
    /// snapshotted, restored and released like any other, but no step has a row of theirs.
    pub n_holders: u32,
    /// [`ModelRunner::truncate`] works at any position (not for recurrent or windowed caches).
    pub truncate: bool,
    /// [`ModelRunner::snapshot`] and [`ModelRunner::restore`] work.
    pub snapshot: bool,
    /// Numbers in the vectors that [`ModelRunner::embed`] gives; `None`: it gives none.
    pub embedding_width: Option<u32>,
    /// Most tokens of a [`TextPart`]: [`crate::embedding::PART`], or the whole context where each token sees all others.
    pub embedding_part: u32,
    /// It continues texts; otherwise there are no steps, and sequences, cells and the like say nothing.
    pub generates: bool,
    /// [`ModelRunner::embed`] gives one number for a pair of texts, its score, in place of states.
    pub ranks: bool,
}

/// Bytes as the engine itself counts them. Absent figures are `None`, never 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// Weights as held by the engine.
    pub weights_bytes: Option<u64>,
    /// KV cache as allocated.
    pub kv_bytes: Option<u64>,
    /// Scratch buffers.
    pub compute_bytes: Option<u64>,
    /// Highest use since the load or the last reset.
    pub peak_bytes: Option<u64>,
}

/// What [`ModelRunner::time_products`] multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProductWork {
    /// Rows of activations: 1 as in decoding, a chunk as in reading a prompt. At least 1.
    pub n_rows: u32,
    /// Bytes of matrices of one pass, about: as many as a step reads, lest caches help more than they help the step.
    pub n_bytes: u64,
}

/// How long one pass of [`ModelRunner::time_products`] took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductTiming {
    /// The library's operation with the form and shape of the matrices ("ggml_mul_mat, q4_1 1536 × 576 in CPU").
    pub what: String,
    /// Weights of one pass.
    pub n_weights: u64,
    /// Bytes of them as multiplied.
    pub n_bytes: u64,
    /// The fastest of several passes.
    pub time: std::time::Duration,
}

/// A sequence's state as opaque bytes, valid for one model file, engine version and KV type only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceSnapshot {
    /// Tokens that the state stands for.
    pub n_tokens: u32,
    /// Engine-defined.
    pub bytes: Vec<u8>,
}

/// One model on one thread. Every method is called from the thread that built the runner.
///
/// Sequences exist from the first row that names them until `release`. Calls on a sequence of a step in flight
/// (`release`, `truncate`, `fork`) take effect after that step.
pub trait ModelRunner {
    /// What this runner can do. Does not change over its life.
    fn capabilities(&self) -> &Capabilities;

    /// Width of a row of logits.
    fn n_vocab(&self) -> usize;

    /// Starts a forward pass. At most [`Capabilities::steps_in_flight`] steps may be uncollected.
    ///
    /// # Errors
    /// * [`BackendError::KvCacheFull`]: nothing was evaluated; the sequences are as before.
    /// * Any other error: the step's sequences are back at their lengths from before it, or, if the engine
    ///   could not restore them, the error is [`BackendError::EngineCrashed`].
    fn submit(&mut self, plan: StepPlan<'_>) -> Result<StepId, BackendError>;

    /// Waits for the oldest submitted step and gives its result, valid until the next `submit` or `collect`.
    ///
    /// # Errors
    /// As `submit`; the step counts as collected. A call with nothing in flight is an [`BackendError::Engine`].
    fn collect(&mut self) -> Result<StepOutput<'_>, BackendError>;

    /// Makes `to` (unused so far) share the first `n_tokens` of `from`. Cheap: where cells are not shared, what has to be
    /// copied is copied when one of the two is written to, so that a fork whose source is released next is a move. Until
    /// then [`ModelRunner::n_cells_used`] may be above [`Capabilities::kv_tokens`].
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] without the capability; [`BackendError::InvalidRequest`] if `from` is shorter.
    fn fork(&mut self, from: SeqId, to: SeqId, n_tokens: u32) -> Result<(), BackendError>;

    /// Cuts `seq` to its first `n_tokens`. `Ok(false)`: this cache cannot go back that far, nothing changed.
    ///
    /// # Errors
    /// [`BackendError::Engine`] if the library failed.
    fn truncate(&mut self, seq: SeqId, n_tokens: u32) -> Result<bool, BackendError>;

    /// Frees the sequence and its cells. Unknown ids are fine.
    fn release(&mut self, seq: SeqId);

    /// The sequence's state as bytes.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] without the capability.
    fn snapshot(&mut self, seq: SeqId) -> Result<SequenceSnapshot, BackendError>;

    /// Puts a state back into an unused sequence.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] without the capability, [`BackendError::InvalidRequest`] for foreign bytes.
    fn restore(&mut self, seq: SeqId, snapshot: &SequenceSnapshot) -> Result<(), BackendError>;

    /// Evaluates the next tokens of a text and gives their states after the last layer and its norm to `pooler`, whose width
    /// is [`Capabilities::embedding_width`]. There is one text at a time: a part at position 0 begins one, whatever became of
    /// the text before, and each further part goes on where the last one ended. Touches no sequence; a step may be in flight
    /// meanwhile, and logits that were collected stay.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] without the capability, [`BackendError::InvalidRequest`] for a part that is not as
    /// said, [`BackendError::Engine`] if the library failed; the text is over then.
    fn embed(&mut self, part: TextPart<'_>, pooler: &mut Pooler) -> Result<(), BackendError> {
        let (n, width) = (part.tokens.len(), pooler.width());
        let feature = format!("embeddings ({n} tokens to vectors of {width} numbers)").into();
        Err(BackendError::Unsupported { feature, backend: "chosen".into() })
    }

    /// Tokens held for `seq` (0 if unknown), steps in flight included.
    fn sequence_len(&self, seq: SeqId) -> u32;

    /// KV cells in use over all sequences; shared cells count once where the engine shares them.
    fn n_cells_used(&self) -> u32;

    /// Forward passes over the weights so far. A step of n rows is one pass unless the engine had to split it.
    fn n_forward_passes(&self) -> u64;

    /// Memory as the engine counts it.
    fn memory(&self) -> MemoryReport;

    /// How long the engine's own library takes to multiply with matrices like those that the model has most of, and nothing
    /// else: what the model's steps can be held against. The sequences stay as they are. Takes about half a second; with a
    /// step in flight it waits for nothing and says little.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] where an engine does not offer it; [`BackendError::Engine`] if the library failed.
    fn time_products(&mut self, work: ProductWork) -> Result<ProductTiming, BackendError> {
        let feature = format!("timing products of {} rows", work.n_rows).into();
        Err(BackendError::Unsupported { feature, backend: "this engine".into() })
    }
}
