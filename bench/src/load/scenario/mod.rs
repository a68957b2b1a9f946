//! What is done to a server, and what figures come of it.

pub(crate) mod arrivals;
mod follow_up;
pub(crate) mod idle;
mod long_prompt;
pub(crate) mod shared_prefix;
pub(crate) mod streams;

use std::fmt;
use std::time::Duration;

use super::arm::Arm;
use super::error::LoadError;
use super::figure::Figure;
use super::prompts::VisitPrompts;
use super::report::{LoadFlag, Request};
use super::sizes::Sizes;
use crate::http::Answer;

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// So many different prompts at once.
    Streams(usize),
    /// Prompts at once that begin alike, on a cold cache.
    SharedPrefix,
    /// A long prompt arrives while a stream runs.
    LongPrompt,
    /// The next turn of a long conversation, after a restart of the server if wanted.
    FollowUp {
        /// Whether the server is stopped and started between the turns.
        restart: bool,
    },
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streams(1) => f.write_str("1 stream"),
            Self::Streams(n) => write!(f, "{n} streams"),
            Self::SharedPrefix => f.write_str("shared prefix"),
            Self::LongPrompt => f.write_str("long prompt"),
            Self::FollowUp { restart: false } => f.write_str("follow-up"),
            Self::FollowUp { restart: true } => f.write_str("follow-up, restarted"),
        }
    }
}

/// What a visit gave.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Figure>,
    pub(crate) requests: Vec<Request>,
    pub(crate) flags: Vec<LoadFlag>,
}

impl Outcome {
    /// Keeps an answer that was to have so many tokens, and of whose prompt so many could be cached.
    pub(crate) fn keep(&mut self, role: &str, answer: Answer, n_asked: u32, most_cached: usize) {
        let cached = answer.usage.and_then(|usage| usage.cached_tokens);
        if answer.usage.is_some() && answer.n_tokens() != u64::from(n_asked) {
            self.flag(LoadFlag::Tokens);
        }
        if cached.is_some_and(|cached| cached > most_cached as u64) {
            self.flag(LoadFlag::CacheHit);
        }
        self.requests.push(Request { role: role.to_owned(), answer });
    }

    fn flag(&mut self, flag: LoadFlag) {
        if !self.flags.contains(&flag) {
            self.flags.push(flag);
        }
    }
}

impl Scenario {
    /// Prompts that a visit takes, warm-ups included.
    pub(super) fn n_prompts(self, sizes: &Sizes) -> usize {
        let n = match self {
            Self::Streams(n) => n,
            Self::SharedPrefix => sizes.sharers.saturating_add(1),
            Self::LongPrompt => 3,
            Self::FollowUp { restart } => 2 + usize::from(restart),
        };
        n.saturating_add(1)
    }

    /// Does it once.
    ///
    /// # Errors
    /// Those of requests; `Answer` where answers give no figure; `Option` where prompts run out.
    pub(super) async fn run(
        self,
        arm: &mut Arm,
        sizes: &Sizes,
        prompts: &mut VisitPrompts<'_>,
    ) -> Result<Outcome, LoadError> {
        match self {
            Self::Streams(n) => streams::run(arm, &self.to_string(), n, sizes, prompts).await,
            Self::SharedPrefix => shared_prefix::run(arm, sizes, prompts).await,
            Self::LongPrompt => long_prompt::run(arm, sizes, prompts).await,
            Self::FollowUp { restart } => {
                follow_up::run(arm, &self.to_string(), restart, sizes, prompts).await
            }
        }
    }
}

/// From the first sending to the last end mark.
fn wall(answers: &[Answer]) -> Duration {
    let sent = answers.iter().map(|answer| answer.sent_ns).min().unwrap_or_default();
    let ended = answers.iter().filter_map(|answer| answer.ended_ns).max().unwrap_or_default();
    Duration::from_nanos(ended.saturating_sub(sent))
}

/// Times to the first token.
fn first_tokens(answers: &[Answer]) -> Vec<Duration> {
    answers.iter().filter_map(Answer::time_to_first_token).collect()
}
