//! What a visit comes down to: named figures, and whether more or less is better.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stats;

/// Which way is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and amounts of work.
    Lower,
}

/// One number of one visit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Unique within a run: "8 streams: total".
    pub name: String,
    /// "tok/s", "s", "ms", "tokens", "ratio".
    pub unit: &'static str,
    /// Which way is up.
    pub better: Better,
    /// The value.
    pub value: f64,
}

impl Figure {
    /// A rate in tokens per second.
    pub fn rate(name: impl Into<String>, n_tokens: u64, time: Duration) -> Self {
        let value = n_tokens as f64 / time.as_secs_f64();
        Self { name: name.into(), unit: "tok/s", better: Better::Higher, value }
    }

    /// A time in seconds.
    pub fn seconds(name: impl Into<String>, time: Duration) -> Self {
        Self { name: name.into(), unit: "s", better: Better::Lower, value: time.as_secs_f64() }
    }

    /// A time in milliseconds.
    pub fn milliseconds(name: impl Into<String>, time: Duration) -> Self {
        let value = time.as_secs_f64() * 1e3;
        Self { name: name.into(), unit: "ms", better: Better::Lower, value }
    }

    /// A count of tokens that had to be worked on.
    pub fn tokens(name: impl Into<String>, n: u64) -> Self {
        Self { name: name.into(), unit: "tokens", better: Better::Lower, value: n as f64 }
    }

    /// How many times as long one thing took as another.
    pub fn times(name: impl Into<String>, of: Duration, base: Duration) -> Self {
        let value = of.as_secs_f64() / base.as_secs_f64();
        Self { name: name.into(), unit: "×", better: Better::Lower, value }
    }
}

/// The `p`-quantile of durations; `None` for none.
pub(super) fn quantile(durations: &[Duration], p: f64) -> Option<Duration> {
    let seconds: Vec<f64> = durations.iter().map(Duration::as_secs_f64).collect();
    stats::quantile(&seconds, p).map(Duration::from_secs_f64)
}

/// The differences between consecutive instants.
pub(super) fn gaps(arrivals: &[Duration]) -> Vec<Duration> {
    arrivals.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()
}
