//! Who is told how far a run is. The bench itself never writes to a terminal.

use std::fmt;
use std::time::Duration;

use crate::plan::Plan;

/// What a run is doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Hashing the model's files, which also brings them into the file cache. Counts bytes.
    Hashing,
    /// Loading this arm. Counts thousandths.
    Loading(String),
    /// The first requests of this arm, which do not count. Counts requests.
    WarmingUp(String),
    /// Each arm against itself. Counts visits, eight per block.
    NoiseFloor,
    /// Blocks that tell how many more it takes. Counts visits, four per block.
    Pilot,
    /// The blocks. Counts visits, four per block.
    Measuring,
    /// The agreement. Counts windows, twice each (once per arm).
    Agreement,
    /// A scenario, by its name. Counts visits.
    Scenario(String),
    /// Comparing the weights. Counts tensors; the total is not known before.
    Weights,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Phase::Hashing => write!(f, "hashing the files"),
            Phase::Loading(arm) => write!(f, "loading {arm}"),
            Phase::WarmingUp(arm) => write!(f, "warming up {arm}"),
            Phase::NoiseFloor => write!(f, "noise floor"),
            Phase::Pilot => write!(f, "pilot"),
            Phase::Measuring => write!(f, "measuring"),
            Phase::Agreement => write!(f, "agreement"),
            Phase::Scenario(name) => write!(f, "{name}"),
            Phase::Weights => write!(f, "comparing weights"),
        }
    }
}

/// Told how far a run is. Called from several threads, in the middle of nothing that is being timed.
pub trait Reporter: Send + Sync {
    /// What will be done; before anything is loaded.
    fn planned(&self, plan: &Plan);
    /// How long the rest will take: from the warm-up's speeds, and again once a pilot has told how many blocks it takes.
    fn estimated(&self, remaining: Duration);
    /// `done` of `total` units of this phase; `total` is 0 where it is not known.
    fn progress(&self, phase: &Phase, done: u64, total: u64);
    /// One sentence that a user should read now, such as the failure of an arm.
    fn note(&self, note: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn planned(&self, _plan: &Plan) {}
    fn estimated(&self, _remaining: Duration) {}
    fn progress(&self, _phase: &Phase, _done: u64, _total: u64) {}
    fn note(&self, _note: &str) {}
}
