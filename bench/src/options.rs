//! What to measure, and how much of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use duet_core::WeightsMode;
use duet_core::model::KvType;

use crate::clock::{Clock, SystemClock};
use crate::error::BenchError;
use crate::http::RemoteServer;
use crate::measure::WashOutRule;
use crate::scenario::{ScenarioKind, ScenarioOptions, StartCommand};
use crate::session::ReferenceModel;
use crate::stats::verdict::MARGIN;
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
    /// JSON lines with prompts, messages or token ids; see [`crate::prompts`].
    Prompts(PathBuf),
    /// A built-in set of prompts, by name.
    Set(String),
}

/// What to measure, and how much of it. [`BenchOptions::new`] is sized for less than a quarter of an hour,
/// [`BenchOptions::quick`] for less than two minutes.
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
    /// Blocks of four visits, or the most of them where a budget or a pilot decides. One gives a ratio without an
    /// interval.
    pub n_blocks: u32,
    /// Blocks of eight visits that measure each arm against itself, for the noise floor; 0: none, and the margin alone
    /// decides what matters.
    pub n_aa_blocks: u32,
    /// Blocks that only tell how many it takes; 0: none.
    pub n_pilot_blocks: u32,
    /// Processes that share the blocks that a pilot asks for; this is one of them.
    pub n_processes: u32,
    /// Time for all blocks together; where the warm-up says that they take longer, there are fewer. Loading, agreement
    /// and the comparison of the weights come on top.
    pub budget: Option<Duration>,
    /// How far from 1 a ratio has to be to matter: 0.03 for 3 %.
    pub margin: f64,
    /// Positions to compare for the agreement, rounded up to whole windows, as far as the text goes; 0: none.
    pub n_agreement: u32,
    /// Tokens of a window of the agreement. At least 2. Cut to the models' contexts, and so that a window's logits
    /// take at most 512 MiB.
    pub window: u32,
    /// A model that both arms are held against, if there is one.
    pub reference: Option<ReferenceModel>,
    /// What is done beside single requests.
    pub scenarios: ScenarioOptions,
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
    /// Whether to look at the machine during visits: other processes, clocks, swap, power.
    pub watch_machine: bool,
    /// Servers among the engines, by the ids they have in the registry.
    pub servers: Vec<Arc<RemoteServer>>,
    /// What can show the weights of both arms, if anything here can.
    pub same_bits: Option<Arc<dyn SameBits>>,
    /// Whether only one arm is loaded at a time, for models that do not fit twice: it is loaded anew at each switch.
    pub swap: bool,
    /// How a new process is started that loads a model and answers; without it cold starts are those of the model alone.
    pub start: Option<StartCommand>,
    /// Where blocks are noted as they are done, for the process after this one if an engine takes this one down. What is
    /// there already of the same run is gone on with.
    pub journal: Option<PathBuf>,
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
    /// Up to eight blocks of 512 + 32 tokens and six for the noise floor, within ten minutes; agreement over 3,072
    /// positions; no scenarios.
    pub fn new(subject: Subject, text: Text) -> Self {
        Self {
            subject,
            engines: None,
            n_prompt: 512,
            n_decode: 32,
            n_blocks: 8,
            n_aa_blocks: 6,
            n_pilot_blocks: 0,
            n_processes: 1,
            budget: Some(Duration::from_secs(600)),
            margin: MARGIN,
            n_agreement: 3072,
            window: 512,
            scenarios: ScenarioOptions::none(),
            text,
            seed: 1,
            wash_out: WashOutRule { window: 8, tolerance: 0.02, max_steps: 64 },
            threads: None,
            prefill_chunk: 512,
            kv_type: None,
            weights: WeightsMode::Auto,
            watch_machine: true,
            servers: Vec::new(),
            same_bits: None,
            swap: false,
            reference: None,
            start: None,
            journal: None,
            duet_version: env!("CARGO_PKG_VERSION").to_owned(),
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// A first look: up to five blocks of 128 + 16 tokens within 75 seconds, no noise floor, agreement over 512
    /// positions.
    pub fn quick(subject: Subject, text: Text) -> Self {
        Self {
            n_prompt: 128,
            n_decode: 16,
            n_blocks: 5,
            n_aa_blocks: 0,
            budget: Some(Duration::from_secs(75)),
            n_agreement: 512,
            window: 256,
            scenarios: ScenarioOptions {
                n_blocks: 3,
                n_aa_blocks: 0,
                n_prompt: 32,
                n_decode: 8,
                n_shared: 128,
                budget: Some(Duration::from_secs(45)),
                ..ScenarioOptions::none()
            },
            wash_out: WashOutRule { window: 4, tolerance: 0.02, max_steps: 32 },
            ..Self::new(subject, text)
        }
    }

    /// As many blocks as it takes to resolve the margin, up to sixty, told by a pilot; a noise floor from six blocks.
    pub fn full(subject: Subject, text: Text) -> Self {
        Self { n_blocks: 60, n_pilot_blocks: 5, budget: None, ..Self::new(subject, text) }
    }

    /// With the scenarios that a default run has: streams and a shared prefix, as far as two and a half minutes go.
    #[must_use]
    pub fn with_usual_scenarios(mut self) -> Self {
        self.scenarios.kinds = vec![ScenarioKind::Streams, ScenarioKind::SharedPrefix];
        self
    }

    /// The server with this engine id, if it is one.
    pub(crate) fn server(&self, engine: &str) -> Option<&Arc<RemoteServer>> {
        self.servers.iter().find(|server| server.id() == engine)
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
        check("n_aa_blocks", self.n_aa_blocks, 0, 10_000)?;
        check("n_pilot_blocks", self.n_pilot_blocks, 0, 10_000)?;
        check("n_processes", self.n_processes, 1, 1000)?;
        if !(0.0..1.0).contains(&self.margin) {
            let message = format!("must be at least 0 and below 1, got {}", self.margin);
            return Err(BenchError::Option { option: "margin", message });
        }
        check("window", self.window, 2, 1 << 20)?;
        check("n_agreement", self.n_agreement, 0, 1 << 24)?;
        check("prefill_chunk", self.prefill_chunk, 1, 1 << 20)?;
        self.scenarios.validate()?;
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
