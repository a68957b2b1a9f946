//! From an interval to a verdict (bench-method §4): `winner` if the 95 % interval lies wholly beyond a margin,
//! `equivalent` if the 90 % interval lies wholly within the margins (two one-sided tests), else `inconclusive` with what
//! it would take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ratio::{CONFIDENCE, EQUIVALENCE, Ratio};
use super::student::{Estimate, observations_for, observations_to_fit};
use crate::order::Side;

/// The margin unless another is asked for: 3 %.
pub const MARGIN: f64 = 0.03;

/// More blocks than this are not proposed to anybody.
const MOST_BLOCKS: usize = 2000;

/// How far from 1 a ratio has to be to matter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Margin {
    /// As asked for: 0.03 for 3 %.
    pub asked: f64,
    /// The noise floor: how far from 1 an engine measured against itself may be, in the same unit. Absent if that was
    /// not measured.
    pub floor: Option<f64>,
    /// The larger of both, which the verdict goes by.
    pub used: f64,
}

impl Margin {
    /// The margin asked for, raised to the floor: below it differences are not the engines'.
    pub fn new(asked: f64, floor: Option<f64>) -> Self {
        Self { asked, floor, used: asked.max(floor.unwrap_or(0.0)) }
    }

    /// On the scale of log-ratios.
    pub fn log(&self) -> f64 {
        self.used.ln_1p()
    }
}

/// What a ratio says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Verdict {
    /// One arm is faster by more than the margin.
    Winner {
        /// Which.
        side: Side,
    },
    /// They are within the margin of each other.
    Equivalent,
    /// Neither can be said yet.
    Inconclusive {
        /// The arm that is faster by the 95 % interval, though perhaps by less than the margin.
        faster: Option<Side>,
        /// What would decide it with a probability of 80 % if the ratio and its spread stay what they are; absent if no
        /// reasonable number would, because the ratio lies at the margin.
        needs: Option<Needs>,
    },
    /// The measurement does not hold.
    Invalid {
        /// Why: codes of findings, in the report's order.
        codes: Vec<String>,
    },
}

/// What an undecided ratio would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Needs {
    /// Of what.
    pub unit: NeedsUnit,
    /// How many more.
    pub n_more: usize,
    /// How many in all.
    pub n_total: usize,
    /// How long the additional ones would take, at the pace of this run; absent if it is not known.
    pub seconds: Option<u64>,
}

/// What has to be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeedsUnit {
    /// Blocks of four visits.
    Blocks,
    /// Processes, each with as many blocks as these had.
    Restarts,
}

impl Verdict {
    /// "winner", "equivalent", "inconclusive" or "invalid".
    pub fn name(&self) -> &'static str {
        match self {
            Self::Winner { .. } => "winner",
            Self::Equivalent => "equivalent",
            Self::Inconclusive { .. } => "inconclusive",
            Self::Invalid { .. } => "invalid",
        }
    }
}

/// Where an estimate lies relative to the margins, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Beyond the upper margin, by its 95 % interval.
    Above,
    /// Beyond the lower margin, by its 95 % interval.
    Below,
    /// Between the margins, by its 90 % interval.
    Within,
    /// None of these can be said.
    Open,
}

/// Where `estimate` lies relative to ±`limit`.
pub fn position(estimate: &Estimate, limit: f64) -> Position {
    place(estimate.interval(CONFIDENCE), estimate.interval(EQUIVALENCE), limit)
}

/// Where a 95 % interval and the 90 % interval within it lie relative to ±`limit`.
pub(super) fn place((low, high): (f64, f64), (low90, high90): (f64, f64), limit: f64) -> Position {
    match () {
        () if low > limit => Position::Above,
        () if high < -limit => Position::Below,
        () if -limit < low90 && high90 < limit => Position::Within,
        () => Position::Open,
    }
}

/// The verdict on a ratio of times A / B; on one that jumped, what all its parts say.
pub fn judge(ratio: &Ratio, margin: Margin) -> Verdict {
    let open = Verdict::Inconclusive { faster: None, needs: None };
    let Some((estimate, position)) = ratio.estimate().zip(ratio.position(margin.log())) else { return open };
    match position {
        Position::Above => Verdict::Winner { side: Side::B },
        Position::Below => Verdict::Winner { side: Side::A },
        Position::Within => Verdict::Equivalent,
        // More blocks do not make parts agree.
        Position::Open if !ratio.parts.is_empty() => open,
        Position::Open => {
            let (low, high) = estimate.interval(CONFIDENCE);
            let faster = match (low > 0.0, high < 0.0) {
                (true, _) => Some(Side::B),
                (_, true) => Some(Side::A),
                _ => None,
            };
            Verdict::Inconclusive { faster, needs: needs(ratio, &estimate, margin.log()) }
        }
    }
}

fn needs(ratio: &Ratio, estimate: &Estimate, limit: f64) -> Option<Needs> {
    let over_restarts = ratio.restarts.is_some_and(|spread| spread.matters);
    let (unit, n) = match over_restarts {
        true => (NeedsUnit::Restarts, ratio.n_restarts),
        false => (NeedsUnit::Blocks, ratio.n_blocks),
    };
    let sd = estimate.standard_error * (n as f64).sqrt();
    let distance = limit - estimate.mean.abs();
    let found = match distance > 0.0 {
        true => observations_to_fit(distance, sd, MOST_BLOCKS),
        false => observations_for(distance, sd, MOST_BLOCKS),
    };
    // What is there already has not sufficed, so it takes one more at least.
    let n_total = found?.max(n + 1);
    Some(Needs { unit, n_more: n_total - n, n_total, seconds: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(mean: f64, sd: f64, n: usize) -> Ratio {
        // Two-point law with this mean and n − 1 deviation.
        let spread = sd * ((n - 1) as f64 / n as f64).sqrt();
        Ratio::of_blocks((0..n).map(|i| mean + if i % 2 == 0 { spread } else { -spread }).collect()).unwrap()
    }

    #[track_caller]
    fn check(mean: f64, sd: f64, n: usize, expected: &str) -> Verdict {
        let found = judge(&ratio(mean, sd, n), Margin::new(MARGIN, None));
        assert_eq!(found.name(), expected, "{found:?}");
        found
    }

    #[test]
    fn the_three_verdicts() {
        assert_eq!(check(0.2, 0.02, 8, "winner"), Verdict::Winner { side: Side::B });
        assert_eq!(check(-0.2, 0.02, 8, "winner"), Verdict::Winner { side: Side::A });
        check(0.0, 0.02, 8, "equivalent");
        check(0.01, 0.01, 8, "equivalent");
        let Verdict::Inconclusive { faster, needs } = check(0.04, 0.02, 8, "inconclusive") else { panic!() };
        assert_eq!(faster, Some(Side::B), "by how much is open, that it is faster is not");
        let needs = needs.unwrap();
        assert!(needs.unit == NeedsUnit::Blocks && needs.n_total == needs.n_more + 8, "{needs:?}");
        // (0.04 − ln 1.03) / 0.02 = 0.522: some 31 blocks by the plan's formula.
        assert!((30..34).contains(&needs.n_total), "{needs:?}");
    }

    #[test]
    fn a_ratio_at_the_margin_is_never_decided() {
        let found = check(f64::ln(1.03), 0.02, 8, "inconclusive");
        assert_eq!(found, Verdict::Inconclusive { faster: Some(Side::B), needs: None });
    }

    #[test]
    fn one_block_decides_nothing() {
        let one = Ratio::of_blocks(vec![0.5]).unwrap();
        let found = judge(&one, Margin::new(MARGIN, None));
        assert_eq!(found, Verdict::Inconclusive { faster: None, needs: None });
    }

    #[test]
    fn the_floor_raises_the_margin_and_never_lowers_it() {
        let found = judge(&ratio(0.06, 0.005, 8), Margin::new(MARGIN, Some(0.08)));
        assert_eq!(found, Verdict::Equivalent, "all within what the engine differs from itself");
        assert_eq!(Margin::new(0.03, Some(0.01)).used, 0.03);
        assert_eq!(Margin::new(0.0, None).log(), 0.0);
    }

    #[test]
    fn where_processes_differ_more_of_them_are_asked_for() {
        let restarts = [vec![0.0, 0.001, 0.002], vec![0.04, 0.041, 0.039], vec![0.08, 0.081, 0.08]];
        let ratio = Ratio::of(&restarts).unwrap();
        let Verdict::Inconclusive { needs: Some(needs), .. } = judge(&ratio, Margin::new(MARGIN, None))
        else {
            panic!("{ratio:?}")
        };
        assert!(needs.unit == NeedsUnit::Restarts && needs.n_total > 3, "{needs:?}");
    }
}
