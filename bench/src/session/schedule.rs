//! Which blocks there are, and how many: as asked, as many as fit the time, or as a pilot says.
//!
//! The number is fixed before the blocks that count begin. Nothing is ever repeated until it is significant.

use std::time::Duration;

use crate::options::BenchOptions;
use crate::order::{BlockOrder, Side, block_orders, order_name};
use crate::report::{Block, BlockKind, Metric};
use crate::stats::standard_deviation;
use crate::stats::student::observations_to_fit;

/// How many blocks of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) n_aa: usize,
    pub(crate) n_pilot: usize,
    pub(crate) n_ab: usize,
}

/// Fewer A/B blocks than this are only run if the time does not allow for more.
const FEWEST: usize = 5;
/// And fewer than this never: two observations are the least for an interval, three let one be void.
pub(crate) const LEAST: usize = 3;
/// A noise floor from fewer blocks than this would be wider than any margin.
const LEAST_AA: usize = 3;

impl Counts {
    /// As `options` ask.
    pub(crate) fn asked(options: &BenchOptions) -> Self {
        Self {
            n_aa: options.n_aa_blocks as usize,
            n_pilot: options.n_pilot_blocks as usize,
            n_ab: options.n_blocks as usize,
        }
    }

    /// Requests that need a prompt of their own: two per block, which the arms share, and the warm-up's.
    pub(crate) fn n_requests(self) -> usize {
        1 + 2 * (self.n_aa + self.n_pilot + self.n_ab)
    }

    /// In units of one A/B block; an A/A block has twice its visits.
    fn n_block_times(self) -> usize {
        2 * self.n_aa + self.n_pilot + self.n_ab
    }

    /// How long all of it takes, when a block takes this long.
    pub(crate) fn time(self, block: Duration) -> Duration {
        block.saturating_mul(u32::try_from(self.n_block_times()).unwrap_or(u32::MAX))
    }

    /// Fewer, so that they fit into `budget`, when a block takes this long: first A/B blocks down to five and A/A blocks
    /// down to three, then no A/A blocks at all, at last three A/B blocks. Below that it takes what it takes.
    pub(crate) fn fitted(self, block: Duration, budget: Duration) -> Self {
        let fits = |counts: &Self| counts.time(block) <= budget;
        let mut counts = self;
        while !fits(&counts) {
            match counts {
                Self { n_ab, n_aa, .. } if n_ab > FEWEST && n_ab >= 2 * n_aa => counts.n_ab -= 1,
                Self { n_aa, .. } if n_aa > LEAST_AA => counts.n_aa -= 1,
                Self { n_ab, .. } if n_ab > FEWEST => counts.n_ab -= 1,
                Self { n_aa, .. } if n_aa > 0 => counts.n_aa = 0,
                Self { n_ab, .. } if n_ab > LEAST => counts.n_ab -= 1,
                _ => break,
            }
        }
        counts
    }
}

/// What a pilot has told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piloted {
    /// A/B blocks it takes.
    pub(crate) n_ab: usize,
    /// The figure that varies the most.
    pub(crate) metric: Metric,
    /// The standard deviation of its block log-ratios.
    pub(crate) log_sd: f64,
}

/// How many A/B blocks it takes to show with a probability of 80 % that equal arms are within the margin, by the figure
/// that varies the most among the pilot's blocks; from five to `most`. `None` where the pilot has no two whole blocks.
/// A difference of the margin's size takes fewer blocks to show than equality does.
pub(crate) fn from_pilot(blocks: &[Block], margin: f64, most: usize) -> Option<Piloted> {
    let spread = |metric: Metric| {
        let pilots = blocks.iter().filter(|block| block.kind == BlockKind::Pilot);
        let log_ratios: Vec<f64> = pilots.filter_map(|block| block.log_ratio(metric)).collect();
        Some((metric, standard_deviation(&log_ratios)?))
    };
    let (metric, log_sd) = Metric::ALL.into_iter().filter_map(spread).max_by(|a, b| a.1.total_cmp(&b.1))?;
    let wanted = observations_to_fit(margin.ln_1p(), log_sd, most).unwrap_or(most);
    Some(Piloted { n_ab: wanted.clamp(FEWEST.min(most), most), metric, log_sd })
}

/// A block before it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) kind: BlockKind,
    pub(crate) order: String,
    pub(crate) visits: Vec<PlannedVisit>,
}

/// A visit before it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedVisit {
    pub(crate) arm: Side,
    pub(crate) side: Side,
    pub(crate) request: usize,
}

/// The A/B blocks, or those of a pilot, with requests from `request` on, two per block: each arm has two visits in a
/// block; the first ones of both get one request, the second ones another.
pub(crate) fn ab(kind: BlockKind, orders: &[BlockOrder], request: usize) -> Vec<Planned> {
    let block = |(index, order): (usize, &BlockOrder)| {
        let visits = order.iter().enumerate().map(|(number, &side)| {
            let request = request + 2 * index + earlier(order, number);
            PlannedVisit { arm: side, side, request }
        });
        Planned { kind, order: order_name(order), visits: visits.collect() }
    };
    orders.iter().enumerate().map(block).collect()
}

/// The A/A blocks with requests from `request` on. The arms take turns, so that each visit comes after one of the other
/// arm, as in the A/B blocks; the four visits of one arm have sides in mirrored order, of its own coin for each arm.
pub(crate) fn aa(seed: u64, n_blocks: usize, request: usize) -> Vec<Planned> {
    let orders = block_orders(seed, 2 * n_blocks);
    let block = |(index, pair): (usize, &[BlockOrder])| {
        let turn = |number: usize| {
            Side::BOTH.into_iter().zip(pair).map(move |(arm, order)| PlannedVisit {
                arm,
                side: order[number],
                request: request + 2 * index + earlier(order, number),
            })
        };
        let order = pair.iter().map(order_name).collect::<Vec<_>>().join(" ");
        Planned { kind: BlockKind::Aa, order, visits: (0..4).flat_map(turn).collect() }
    };
    orders.chunks(2).enumerate().map(block).collect()
}

/// How many visits of the same side are before visit `number`.
fn earlier(order: &BlockOrder, number: usize) -> usize {
    order[..number].iter().filter(|side| **side == order[number]).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[track_caller]
    fn check(budget: u64, n_aa: usize, n_ab: usize) {
        let asked = Counts { n_aa: 4, n_pilot: 0, n_ab: 8 };
        let found = asked.fitted(SECOND, Duration::from_secs(budget));
        assert_eq!((found.n_aa, found.n_ab), (n_aa, n_ab), "in {budget} block times");
    }

    #[test]
    fn what_does_not_fit_is_cut_in_order() {
        check(16, 4, 8);
        check(15, 4, 7);
        check(13, 3, 7);
        check(11, 3, 5);
        check(10, 0, 5);
        check(4, 0, 4);
        check(1, 0, 3);
    }

    #[test]
    fn an_a_a_block_is_mirrored_for_each_arm() {
        let blocks = aa(3, 20, 7);
        assert_eq!(blocks.len(), 20);
        for (index, block) in blocks.iter().enumerate() {
            let arms: String = block.visits.iter().map(|visit| visit.arm.name()).collect();
            assert_eq!(arms, "ABABABAB");
            for arm in Side::BOTH {
                let own: Vec<_> = block.visits.iter().filter(|visit| visit.arm == arm).collect();
                let sides: String = own.iter().map(|visit| visit.side.name()).collect();
                assert!(["ABBA", "BAAB"].contains(&sides.as_str()), "{sides}");
                assert!(block.order.contains(&sides));
                let requests: Vec<usize> = own.iter().map(|visit| visit.request).collect();
                let first = 7 + 2 * index;
                assert_eq!(requests, [first, first, first + 1, first + 1]);
            }
        }
        assert_ne!(blocks[0].order, "ABBA ABBA ".repeat(2));
    }

    #[test]
    fn a_pilot_without_blocks_tells_nothing() {
        assert_eq!(from_pilot(&[], 0.03, 50), None);
    }
}
