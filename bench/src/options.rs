//! What to measure, and how much of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use duet_core::WeightsMode;
use duet_core::model::KvType;

use crate::clock::{Clock, SystemClock};
use crate::error::BenchError;
use crate::measure::WashOutRule;
use crate::weights::SameBits;

/// The model or models to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One model on two engines.
    One(PathBuf),
    /// A model for each arm, usually a .gguf file and an MLX directory of the same model.
    Pair(PathBuf, PathBuf),
}

/// Where the text comes from that both arms work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// This one, with a name for the report.
    Inline {
        /// What it is ("Alice's Adventures in Wonderland, chapter 1").
        name: String,
        /// The text.
        text: String,
    },
    /// A UTF-8 file.
    File(PathBuf),
}

/// What to measure, and how much of it. [`BenchOptions::new`] is sized for three minutes with a small model on two
/// cores.
#[derive(Clone)]
pub struct BenchOptions {
    /// The model or models.
    pub subject: Subject,
    /// Engines of the arms, by id. `None`: the first two of this build for one model, each format's own for a pair.
    /// The same twice measures an engine against itself (A/A).
    pub engines: Option<[String; 2]>,
    /// Prompt tokens of a request.
    pub n_prompt: u32,
    /// Tokens decoded after the prompt, in each mode. At least 2.
    pub n_decode: u32,
    /// Blocks of four visits. One gives a ratio without an interval.
    pub n_blocks: u32,
    /// Positions to compare for the agreement, rounded up to whole windows, as far as the text goes; 0: none.
    pub n_agreement: u32,
    /// Tokens of a window of the agreement. At least 2. Cut to the models' contexts, and so that a window's logits
    /// take at most 512 MiB.
    pub window: u32,
    /// The text.
    pub text: Text,
    /// Seeds the order of the arms.
    pub seed: u64,
    /// When an arm counts as warm after a switch.
    pub wash_out: WashOutRule,
    /// CPU threads of each engine; `None` = physical cores.
    pub threads: Option<u32>,
    /// Most prompt tokens of a step, on both engines.
    pub prefill_chunk: u32,
    /// Type of the KV cache's elements asked of both engines; `None`: each engine's own, which may differ.
    pub kv_type: Option<KvType>,
    /// How engines that can choose hold quantised weights.
    pub weights: WeightsMode,
    /// What can show the weights of both arms, if anything here can.
    pub same_bits: Option<Arc<dyn SameBits>>,
    /// The version of the program, for the manifest.
    pub duet_version: String,
    /// What time is measured with.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for BenchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BenchOptions")
            .field("subject", &self.subject)
            .field("engines", &self.engines)
            .field("n_prompt", &self.n_prompt)
            .field("n_decode", &self.n_decode)
            .field("n_blocks", &self.n_blocks)
            .finish_non_exhaustive()
    }
}

impl BenchOptions {
    /// The default: five blocks of 512 + 32 tokens, agreement over 3,072 positions.
    pub fn new(subject: Subject, text: Text) -> Self {
        Self {
            subject,
            engines: None,
            n_prompt: 512,
            n_decode: 32,
            n_blocks: 5,
            n_agreement: 3072,
            window: 512,
            text,
            seed: 1,
            wash_out: WashOutRule { window: 4, tolerance: 0.02, max_steps: 16 },
            threads: None,
            prefill_chunk: 512,
            kv_type: None,
            weights: WeightsMode::Auto,
            same_bits: None,
            duet_version: env!("CARGO_PKG_VERSION").to_owned(),
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// A first look in under a minute: three blocks of 128 + 16 tokens, agreement over 512 positions.
    pub fn quick(subject: Subject, text: Text) -> Self {
        Self {
            n_prompt: 128,
            n_decode: 16,
            n_blocks: 3,
            n_agreement: 512,
            window: 256,
            ..Self::new(subject, text)
        }
    }

    /// Checks every number against its range.
    pub(crate) fn validate(&self) -> Result<(), BenchError> {
        let check = |option, value: u32, low: u32, high: u32| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(BenchError::Option {
                option,
                message: format!("must be between {low} and {high}, got {value}"),
            }),
        };
        check("n_prompt", self.n_prompt, 1, 1 << 24)?;
        check("n_decode", self.n_decode, 2, 1 << 24)?;
        check("n_blocks", self.n_blocks, 1, 10_000)?;
        check("window", self.window, 2, 1 << 20)?;
        check("n_agreement", self.n_agreement, 0, 1 << 24)?;
        check("prefill_chunk", self.prefill_chunk, 1, 1 << 20)?;
        if let Some(threads) = self.threads {
            check("threads", threads, 1, 4096)?;
        }
        let rule = &self.wash_out;
        if rule.window == 0 || !(0.0..=f64::MAX).contains(&rule.tolerance) || rule.max_steps > 4096 {
            let message =
                format!("must have a window, a tolerance of at least 0 and at most 4096 steps, got {rule:?}");
            return Err(BenchError::Option { option: "wash_out", message });
        }
        Ok(())
    }
}
