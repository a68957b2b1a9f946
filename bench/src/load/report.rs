//! What a load run gives: every visit with its raw instants, and the comparison of each figure.

use serde::{Serialize, Serializer};

use super::arm::ArmInfo;
use super::figure::{Better, Figure};
use super::sizes::Sizes;
use crate::http::Answer;
use crate::machine::Machine;
use crate::order::{BlockOrder, Side, order_name};
use crate::stats::ratio::{Ratio, RatioInterval, block_log_ratio};
use crate::stats::{median, quantile};

/// A request and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Request {
    /// Its part in the scenario: "stream", "newcomer".
    pub role: String,
    /// What came, and when.
    #[serde(flatten)]
    pub answer: Answer,
}

/// Something about a visit that makes its figures doubtful.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LoadFlag {
    /// Prompt tokens came from a cache that should have been cold for them.
    CacheHit,
    /// An answer has not the length that was asked for.
    Tokens,
    /// Others on the machine used more than a twentieth of a core meanwhile.
    Contention,
}

impl LoadFlag {
    const ALL: [LoadFlag; 3] = [Self::CacheHit, Self::Tokens, Self::Contention];

    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::CacheHit => "CACHE_HIT",
            Self::Tokens => "TOKENS",
            Self::Contention => "CONTENTION",
        }
    }
}

/// One scenario, done once to one arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Visit {
    /// The scenario.
    pub scenario: String,
    /// The arm.
    pub side: Side,
    /// The block it belongs to.
    pub block: usize,
    /// How long it took, the warm-up not counted.
    pub wall_s: f64,
    /// Cores that the server kept busy, on average; `None` where the system or the server does not tell.
    pub server_cores: Option<f64>,
    /// Cores that others on this machine kept busy, on average.
    pub others_cores: Option<f64>,
    /// What makes it doubtful.
    pub flags: Vec<LoadFlag>,
    /// What it comes down to.
    pub figures: Vec<Figure>,
    /// Raw instants.
    pub requests: Vec<Request>,
}

/// An arm's values of one figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// Visits.
    pub n: usize,
}

/// How many times A's value is B's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueRatio {
    /// exp of the mean block log-ratio.
    pub a_over_b: f64,
    /// Its 95 % interval (Student's t over blocks); `None` with one block.
    pub interval: Option<RatioInterval>,
    /// Blocks.
    pub n_blocks: usize,
}

/// One figure over all visits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The figure.
    pub figure: String,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is up.
    pub better: Better,
    /// Each arm's values; `None` for an arm that has none.
    pub arms: Vec<Option<Spread>>,
    /// A ÷ B; `None` with one arm, or where a block is not complete.
    pub ratio: Option<ValueRatio>,
}

/// Everything about a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// "duet-load/1".
    pub schema: &'static str,
    /// The machine.
    pub machine: Machine,
    /// A, and B if there is one.
    pub arms: Vec<ArmInfo>,
    /// Lengths of prompts and answers.
    pub sizes: Sizes,
    /// Chooses prompts and the order of the arms.
    pub seed: u64,
    /// The order of each block ("ABBA").
    #[serde(serialize_with = "names")]
    pub orders: Vec<BlockOrder>,
    /// In time.
    pub visits: Vec<Visit>,
    /// In the order of the scenarios.
    pub comparisons: Vec<Comparison>,
    /// Why it stopped before its end, if it did.
    pub failure: Option<String>,
}

fn names<S: Serializer>(orders: &[BlockOrder], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(orders.iter().map(order_name))
}

impl LoadReport {
    /// With raw instants.
    ///
    /// # Errors
    /// None that are known: every value has a form in JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// 0, or 2 if it stopped before its end.
    pub fn exit_code(&self) -> u8 {
        if self.failure.is_some() { 2 } else { 0 }
    }

    /// How many visits of an arm carry each flag.
    pub(super) fn flagged(&self, side: Side) -> Vec<(LoadFlag, usize)> {
        let of_arm = || self.visits.iter().filter(move |visit| visit.side == side);
        let count = |flag| (flag, of_arm().filter(|visit| visit.flags.contains(&flag)).count());
        LoadFlag::ALL.into_iter().map(count).filter(|(_, n)| *n > 0).collect()
    }
}

/// The comparison of every figure that the visits have, in order of first appearance.
pub(super) fn compare(visits: &[Visit], n_arms: usize, n_blocks: usize) -> Vec<Comparison> {
    let mut known: Vec<&Figure> = Vec::new();
    for figure in visits.iter().flat_map(|visit| &visit.figures) {
        if !known.iter().any(|other| other.name == figure.name) {
            known.push(figure);
        }
    }
    known.into_iter().map(|figure| comparison(figure, visits, n_arms, n_blocks)).collect()
}

fn comparison(figure: &Figure, visits: &[Visit], n_arms: usize, n_blocks: usize) -> Comparison {
    let values = |side: Side, block: Option<usize>| -> Vec<f64> {
        let wanted = |visit: &&Visit| visit.side == side && block.is_none_or(|block| visit.block == block);
        let figures = visits.iter().filter(wanted).flat_map(|visit| &visit.figures);
        figures.filter(|other| other.name == figure.name).map(|other| other.value).collect()
    };
    let arms = Side::BOTH.into_iter().take(n_arms).map(|side| spread(&values(side, None))).collect();
    let blocks = (0..n_blocks).map(|block| {
        let (a, b) = (values(Side::A, Some(block)), values(Side::B, Some(block)));
        if a.len() == b.len() { block_log_ratio(&a, &b) } else { None }
    });
    let found = blocks.collect::<Option<Vec<f64>>>().and_then(Ratio::of_blocks);
    let ratio = found.map(|found| ValueRatio {
        a_over_b: found.time_ratio,
        interval: found.interval,
        n_blocks: found.n_blocks,
    });
    Comparison { figure: figure.name.clone(), unit: figure.unit, better: figure.better, arms, ratio }
}

fn spread(values: &[f64]) -> Option<Spread> {
    let (low, high) = (quantile(values, 0.0)?, quantile(values, 1.0)?);
    Some(Spread { median: median(values)?, low, high, n: values.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(side: Side, block: usize, value: f64) -> Visit {
        let figure = Figure { name: "f".into(), unit: "s", better: Better::Lower, value };
        Visit {
            scenario: "s".into(),
            side,
            block,
            wall_s: 1.0,
            server_cores: None,
            others_cores: None,
            flags: Vec::new(),
            figures: vec![figure],
            requests: Vec::new(),
        }
    }

    #[test]
    fn blocks_give_a_ratio_and_arms_a_spread() {
        use Side::{A, B};
        let values = [
            (A, 0, 2.0),
            (B, 0, 1.0),
            (B, 0, 1.0),
            (A, 0, 2.0),
            (B, 1, 3.0),
            (A, 1, 6.0),
            (A, 1, 6.0),
            (B, 1, 3.0),
        ];
        let visits: Vec<_> = values.map(|(side, block, value)| visit(side, block, value)).into();
        let [comparison] = &compare(&visits, 2, 2)[..] else { panic!("one figure") };
        let ratio = comparison.ratio.as_ref().unwrap();
        assert!((ratio.a_over_b - 2.0).abs() < 1e-12 && ratio.n_blocks == 2, "{ratio:?}");
        assert_eq!(comparison.arms[0], Some(Spread { median: 4.0, low: 2.0, high: 6.0, n: 4 }));
        let single = &compare(&visits[..1], 1, 1)[0];
        assert_eq!((single.arms.len(), &single.ratio), (1, &None));
    }

    #[test]
    fn what_is_not_whole_has_no_ratio() {
        use Side::{A, B};
        let incomplete = [visit(A, 0, 2.0), visit(B, 0, 1.0), visit(B, 0, 1.0)];
        assert_eq!(compare(&incomplete, 2, 1)[0].ratio, None, "a visit is missing");
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let visits = [visit(A, 0, value), visit(B, 0, 1.0)];
            assert_eq!(compare(&visits, 2, 1)[0].ratio, None, "{value}");
        }
        assert_eq!(compare(&[], 2, 1), []);
    }
}
