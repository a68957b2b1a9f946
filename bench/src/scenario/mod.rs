//! What users do beside sending one prompt: many streams at once, prompts that begin alike, requests that arrive at
//! random, a cold start, the first request after a pause. Each arm does it in turns, in blocks, and the same statistics
//! decide; the load on an arm is that of the load bench ([`crate::load`]).

mod analysis;
mod fresh;
mod report;
mod run;
mod seat;
mod words;
mod work;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub(crate) use analysis::analyse_again;
pub use fresh::{FreshStart, StartCommand};
pub use report::{
    ScenarioBlock, ScenarioComparison, ScenarioFault, ScenarioFinding, ScenarioReport, ScenarioRequest,
    ScenarioSpread, ScenarioValue, ScenarioVisit, SkipReason, Skipped,
};
pub(crate) use run::{Stage, run};
pub use work::ScenarioWork;

use crate::error::BenchError;

/// A kind of scenario, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScenarioKind {
    /// Several different prompts at once, more and more of them.
    Streams,
    /// Prompts at once that begin alike.
    SharedPrefix,
    /// Requests that arrive at random.
    Arrivals,
    /// From nothing to the first token.
    Load,
    /// The first request after a pause.
    Idle,
}

impl ScenarioKind {
    /// All of them, in the order in which they are done.
    pub const ALL: [Self; 5] = [Self::Streams, Self::SharedPrefix, Self::Arrivals, Self::Load, Self::Idle];

    /// As it is written: "shared-prefix".
    pub fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::SharedPrefix => "shared-prefix",
            Self::Arrivals => "arrivals",
            Self::Load => "load",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for ScenarioKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ScenarioKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("there is no scenario `{name}`; there are {}", known()))
    }
}

/// Which scenarios, and how much of each.
#[derive(Debug, Clone, PartialEq)]
pub struct ScenarioOptions {
    /// Which, in the order of [`ScenarioKind::ALL`]; empty: none.
    pub kinds: Vec<ScenarioKind>,
    /// Numbers of streams of the sweep, each at least 1.
    pub streams: Vec<u32>,
    /// Most blocks of four visits of each scenario.
    pub n_blocks: u32,
    /// Blocks of each arm against itself, for the noise floor of each scenario; 0: none.
    pub n_aa_blocks: u32,
    /// Time for all of them together; `None`: as long as it takes.
    pub budget: Option<Duration>,
    /// Prompt tokens of a stream, an arrival, a first request.
    pub n_prompt: u32,
    /// Tokens of an answer; at least 2.
    pub n_decode: u32,
    /// Prompts at once that share a prefix.
    pub n_sharers: u32,
    /// Tokens that they share.
    pub n_shared: u32,
    /// Requests that arrive at random.
    pub n_arrivals: u32,
    /// Arrivals per second, on average; `None`: six tenths of what the slower arm answers one after the other.
    pub per_second: Option<f64>,
    /// How long nothing happens before the first request after it.
    pub pause: Duration,
}

impl ScenarioOptions {
    /// None, with the sizes of the default run.
    pub fn none() -> Self {
        Self {
            kinds: Vec::new(),
            streams: vec![1, 2, 4, 8],
            n_blocks: 5,
            n_aa_blocks: 3,
            budget: Some(Duration::from_secs(150)),
            n_prompt: 64,
            n_decode: 16,
            n_sharers: 4,
            n_shared: 256,
            n_arrivals: 12,
            per_second: None,
            pause: Duration::from_secs(2),
        }
    }

    /// Checks every number against its range.
    pub(crate) fn validate(&self) -> Result<(), BenchError> {
        let check = |option, value: u32, low: u32, high: u32| match (low..=high).contains(&value) {
            true => Ok(()),
            false => {
                let message = format!("must be between {low} and {high}, got {value}");
                Err(BenchError::Option { option, message })
            }
        };
        if self.kinds.is_empty() {
            return Ok(());
        }
        check("number of stream counts", u32::try_from(self.streams.len()).unwrap_or(u32::MAX), 1, 16)?;
        for n in &self.streams {
            check("streams", *n, 1, 256)?;
        }
        check("scenario blocks", self.n_blocks, 1, 1000)?;
        check("scenario self blocks", self.n_aa_blocks, 0, 1000)?;
        check("scenario prompt", self.n_prompt, 1, 1 << 20)?;
        check("scenario decode", self.n_decode, 2, 1 << 20)?;
        check("sharers", self.n_sharers, 1, 256)?;
        check("shared prefix", self.n_shared, 1, 1 << 20)?;
        check("arrivals", self.n_arrivals, 2, 10_000)?;
        match self.per_second {
            Some(rate) if !(rate > 0.0 && rate <= 1e6) => {
                let message = format!("must be above 0 and at most a million per second, got {rate}");
                Err(BenchError::Option { option: "rate", message })
            }
            _ => Ok(()),
        }
    }
}
