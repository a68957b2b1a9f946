//! What exactly a scenario does, in numbers; the same for both arms, and in the report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScenarioKind, ScenarioOptions};

/// What one scenario does in each visit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ScenarioWork {
    /// So many different prompts at once.
    Streams {
        /// How many.
        n: u32,
        /// Tokens of each prompt.
        n_prompt: u32,
        /// Tokens of each answer.
        n_decode: u32,
    },
    /// Prompts at once that begin alike, on a cold cache.
    SharedPrefix {
        /// How many.
        n: u32,
        /// Tokens that all begin with.
        n_shared: u32,
        /// Tokens of each whole prompt.
        n_prompt: u32,
        /// Tokens of each answer.
        n_decode: u32,
    },
    /// Requests that arrive at random (a Poisson process), whether or not earlier ones have been answered.
    Arrivals {
        /// How many.
        n: u32,
        /// Arrivals per second, on average.
        per_second: f64,
        /// With the number of the request it decides when each arrives.
        seed: u64,
        /// Tokens of each prompt.
        n_prompt: u32,
        /// Tokens of each answer.
        n_decode: u32,
    },
    /// From nothing to the first token.
    Load {
        /// Tokens of the first prompt.
        n_prompt: u32,
        /// Tokens of its answer.
        n_decode: u32,
    },
    /// The first request after nothing happened, and the one just after it.
    Idle {
        /// How long nothing happens.
        pause_ms: u64,
        /// Tokens of each prompt.
        n_prompt: u32,
    },
}

/// Requests that an arm takes at once where they arrive at random; others wait in its queue.
const ARRIVALS_AT_ONCE: u32 = 4;
/// Tokens of the request that comes before each visit and does not count.
pub(super) const WARM: (u32, u32) = (16, 8);

impl ScenarioWork {
    /// What these options ask for. A rate of arrivals that is not given is 0 until it has been measured.
    pub(super) fn all(options: &ScenarioOptions, seed: u64) -> Vec<Self> {
        let (n_prompt, n_decode) = (options.n_prompt, options.n_decode);
        let of_kind = |kind: ScenarioKind| match kind {
            ScenarioKind::Streams => {
                options.streams.iter().map(|&n| Self::Streams { n, n_prompt, n_decode }).collect()
            }
            ScenarioKind::SharedPrefix => {
                let n_shared = options.n_shared;
                let n_prompt = n_shared.saturating_add(n_prompt);
                vec![Self::SharedPrefix { n: options.n_sharers, n_shared, n_prompt, n_decode }]
            }
            ScenarioKind::Arrivals => {
                let per_second = options.per_second.unwrap_or(0.0);
                vec![Self::Arrivals { n: options.n_arrivals, per_second, seed, n_prompt, n_decode }]
            }
            ScenarioKind::Load => vec![Self::Load { n_prompt, n_decode: 2 }],
            ScenarioKind::Idle => {
                let pause_ms = u64::try_from(options.pause.as_millis()).unwrap_or(u64::MAX);
                vec![Self::Idle { pause_ms, n_prompt }]
            }
        };
        let asked = ScenarioKind::ALL.into_iter().filter(|kind| options.kinds.contains(kind));
        asked.flat_map(of_kind).collect()
    }

    /// "8 streams", "shared prefix".
    pub fn name(&self) -> String {
        match self {
            Self::Streams { n: 1, .. } => "1 stream".to_owned(),
            Self::Streams { n, .. } => format!("{n} streams"),
            Self::SharedPrefix { .. } => "shared prefix".to_owned(),
            Self::Arrivals { .. } => "arrivals".to_owned(),
            Self::Load { .. } => "cold start".to_owned(),
            Self::Idle { .. } => "after idle".to_owned(),
        }
    }

    /// What is done, in a sentence with every number.
    pub fn statement(&self) -> String {
        match self {
            Self::Streams { n: 1, n_prompt, n_decode } => {
                format!("a prompt of {n_prompt} tokens, {n_decode} tokens after it")
            }
            Self::Streams { n, n_prompt, n_decode } => {
                format!("{n} different prompts of {n_prompt} tokens at once, {n_decode} tokens each")
            }
            Self::SharedPrefix { n, n_shared, n_prompt, n_decode } => format!(
                "{n} prompts of {n_prompt} tokens at once, of which {n_shared} are common and not in a cache; {n_decode} \
                 tokens each"
            ),
            Self::Arrivals { n, per_second, seed, n_prompt, n_decode } => format!(
                "{n} requests of {n_prompt} + {n_decode} tokens arrive at random, {per_second} per second on average (Poisson, \
                 seed {seed}); times count from the instant a request was due"
            ),
            Self::Load { n_prompt, .. } => format!(
                "nothing loaded, then the model is loaded and answers a prompt of {n_prompt} tokens; the same by a new process, \
                 from its start; the files are in the file cache"
            ),
            Self::Idle { pause_ms, n_prompt } => format!(
                "{:.1} s without a request, then a prompt of {n_prompt} tokens, and at once another",
                *pause_ms as f64 / 1e3
            ),
        }
    }

    /// Prompts of a visit, without the one that comes before and does not count.
    pub(super) fn n_prompts(&self) -> usize {
        match self {
            Self::Streams { n, .. } | Self::Arrivals { n, .. } => *n as usize,
            Self::SharedPrefix { n, .. } => *n as usize + 1,
            Self::Load { .. } => 1,
            Self::Idle { .. } => 2,
        }
    }

    /// Requests that have to fit in at once.
    pub(super) fn at_once(&self) -> u32 {
        match self {
            Self::Streams { n, .. } | Self::SharedPrefix { n, .. } => *n,
            Self::Arrivals { n, .. } => ARRIVALS_AT_ONCE.min(*n),
            Self::Load { .. } | Self::Idle { .. } => 1,
        }
    }

    /// Tokens of the longest request.
    pub(super) fn longest(&self) -> u32 {
        let (n_prompt, n_decode) = match self {
            Self::Streams { n_prompt, n_decode, .. }
            | Self::SharedPrefix { n_prompt, n_decode, .. }
            | Self::Arrivals { n_prompt, n_decode, .. }
            | Self::Load { n_prompt, n_decode } => (*n_prompt, *n_decode),
            Self::Idle { n_prompt, .. } => (*n_prompt, 8),
        };
        n_prompt.saturating_add(n_decode).max(WARM.0 + WARM.1)
    }
}
