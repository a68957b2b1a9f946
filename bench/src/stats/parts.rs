//! The parts of a run whose ratio jumped from one level to another.
//!
//! A mean over such a jump belongs to no state of the machine or of either arm. What each part says alone still holds:
//! where all say the same, that is the verdict, and its interval reaches over all of theirs (Bonferroni's share of the error
//! for each). On a virtual machine a ratio has gone from 2.9 to 2.1 at once, and the winner is in no doubt. Several jumps
//! are told apart if one of them dominates; a ratio with a trend has no parts, nor has one that goes there and back: its
//! blocks vary, and the interval over all of them is as wide as that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mean;
use super::ratio::{CONFIDENCE, EQUIVALENCE, Ratio, RatioInterval};
use super::series::{Shape, shape};
use super::student::Estimate;
use super::verdict::{Position, place, position};

/// Blocks between two jumps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// Blocks that it is from; at least 2.
    pub n_blocks: usize,
    /// exp(mean of their log-ratios): time of A / time of B.
    pub time_ratio: f64,
    /// The standard error of the mean log-ratio, from what varies within all parts together.
    pub log_se: f64,
    /// Its degrees of freedom: all blocks less one for each part.
    pub degrees: f64,
    /// The 95 % interval of `time_ratio`.
    pub interval: RatioInterval,
}

impl Part {
    /// Of each of these; `None` if one has fewer than two blocks. The spread is estimated once for all, as in a one-way
    /// analysis of variance: two blocks by themselves say next to nothing about it (t with one degree is 12.7).
    fn of_all(parts: &[&[f64]]) -> Option<Vec<Self>> {
        let means: Option<Vec<f64>> =
            parts.iter().map(|blocks| mean(blocks).filter(|_| blocks.len() > 1)).collect();
        let means = means?;
        let squares: f64 = parts
            .iter()
            .zip(&means)
            .flat_map(|(blocks, mean)| blocks.iter().map(move |d| (d - mean).powi(2)))
            .sum();
        let degrees = parts.iter().map(|blocks| blocks.len() - 1).sum::<usize>() as f64;
        let part = |(blocks, mean): (&&[f64], &f64)| {
            let standard_error = (squares / degrees / blocks.len() as f64).sqrt();
            let estimate = Estimate { mean: *mean, standard_error, degrees };
            Self {
                n_blocks: blocks.len(),
                time_ratio: mean.exp(),
                log_se: standard_error,
                degrees,
                interval: RatioInterval::of(&estimate, CONFIDENCE),
            }
        };
        Some(parts.iter().zip(&means).map(part).collect())
    }

    fn estimate(&self) -> Estimate {
        Estimate { mean: self.time_ratio.ln(), standard_error: self.log_se, degrees: self.degrees }
    }
}

impl Ratio {
    /// With its parts, if in one of these processes it jumped by at least `least` (of the logarithm) and has no trend;
    /// unchanged otherwise. The intervals then reach over those of all parts. `restarts` are the log-ratios it is from.
    #[must_use]
    pub fn in_parts(mut self, restarts: &[Vec<f64>], least: f64) -> Self {
        let level: Option<Vec<Vec<&[f64]>>> = restarts.iter().map(|blocks| levels(blocks, least)).collect();
        let level = level.unwrap_or_default();
        if level.iter().all(|process| process.len() < 2) {
            return self;
        }
        self.parts = Part::of_all(&level.concat()).unwrap_or_default();
        if !self.parts.is_empty() {
            self.interval = self.hull(CONFIDENCE);
            self.equivalence = self.hull(EQUIVALENCE);
        }
        self
    }

    /// From the lowest to the highest end of the parts' intervals, which share what `confidence` leaves to error: all of them
    /// have to hold, and a jump is found where the blocks around it happen to vary little. Where processes differ, over the
    /// interval of their mean too.
    fn hull(&self, confidence: f64) -> Option<RatioInterval> {
        let each = 1.0 - (1.0 - confidence) / self.parts.len() as f64;
        let of_parts = self.parts.iter().map(|part| RatioInterval::of(&part.estimate(), each));
        let of_whole = self.over_restarts().map(|estimate| RatioInterval::of(&estimate, confidence));
        let intervals = of_parts.chain(of_whole);
        intervals.reduce(|a, b| RatioInterval { low: a.low.min(b.low), high: a.high.max(b.high), confidence })
    }

    /// The estimate over processes, if they differ.
    fn over_restarts(&self) -> Option<Estimate> {
        self.estimate().filter(|_| self.restarts.is_some_and(|spread| spread.matters))
    }

    /// What ln `time_ratio` may be: its estimate; of a ratio that jumped every part's instead, and the one over processes
    /// beside them where processes differ. Empty with one block.
    pub fn estimates(&self) -> Vec<Estimate> {
        if self.parts.is_empty() {
            return self.estimate().into_iter().collect();
        }
        self.parts.iter().map(Part::estimate).chain(self.over_restarts()).collect()
    }

    /// Where the ratio lies relative to ±`limit` of the logarithm, by its intervals; `None` with one block.
    pub fn position(&self, limit: f64) -> Option<Position> {
        if self.parts.is_empty() {
            return Some(position(&self.estimate()?, limit));
        }
        let logs = |interval: Option<RatioInterval>| interval.map(|found| (found.low.ln(), found.high.ln()));
        Some(place(logs(self.interval)?, logs(self.equivalence)?, limit))
    }
}

/// A process's blocks cut at each jump; `None` if what is between two jumps has a trend. Empty for no blocks.
fn levels(log_ratios: &[f64], least: f64) -> Option<Vec<&[f64]>> {
    match shape(log_ratios, least) {
        Shape::Still if log_ratios.is_empty() => Some(Vec::new()),
        Shape::Still => Some(vec![log_ratios]),
        Shape::Trend { .. } => None,
        Shape::Step { at, .. } => {
            let (before, after) = log_ratios.split_at(at);
            Some([levels(before, least)?, levels(after, least)?].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Side;
    use crate::stats::verdict::{Margin, Verdict, judge};

    const WOBBLE: [f64; 12] =
        [0.001, -0.002, 0.0, 0.002, -0.001, 0.001, 0.002, -0.002, 0.0, -0.001, 0.002, 0.001];

    /// Twelve blocks at `levels` in turn, as many at each.
    fn at(levels: &[f64]) -> Vec<f64> {
        let each = WOBBLE.len() / levels.len();
        WOBBLE.iter().enumerate().map(|(index, wobble)| levels[index / each] + wobble).collect()
    }

    fn ratio(restarts: &[Vec<f64>]) -> Ratio {
        Ratio::of(restarts).unwrap().in_parts(restarts, 0.03_f64.ln_1p())
    }

    fn verdict(restarts: &[Vec<f64>]) -> Verdict {
        judge(&ratio(restarts), Margin::new(0.03, None))
    }

    #[test]
    fn a_ratio_that_stands_still_has_no_parts() {
        let still = [at(&[0.1])];
        assert_eq!(ratio(&still), Ratio::of(&still).unwrap());
        assert_eq!(ratio(&[vec![0.1]]).parts, []);
    }

    #[test]
    fn the_interval_reaches_over_all_parts() {
        let jumped = ratio(&[at(&[1.1, 0.8])]);
        let [before, after] = jumped.parts[..] else { panic!("{:?}", jumped.parts) };
        assert_eq!((before.n_blocks, after.n_blocks), (6, 6));
        assert!((before.time_ratio.ln() - 1.1).abs() < 0.01 && (after.time_ratio.ln() - 0.8).abs() < 0.01);
        let hull = jumped.interval.unwrap();
        assert!(hull.low < after.interval.low && hull.high > before.interval.high, "{hull:?}");
        assert!(hull.low > 0.99 * after.interval.low && hull.high < 1.01 * before.interval.high, "{hull:?}");
        let narrower = jumped.equivalence.unwrap();
        assert!(narrower.low > hull.low && narrower.high < hull.high && narrower.confidence == EQUIVALENCE);
    }

    #[test]
    fn a_short_part_borrows_the_spread_of_the_others() {
        let mut blocks = at(&[1.1]);
        blocks[..2].iter_mut().for_each(|d| *d -= 0.3);
        let found = ratio(&[blocks]);
        let [short, long] = found.parts[..] else { panic!("{:?}", found.parts) };
        assert_eq!((short.n_blocks, long.n_blocks, short.degrees), (2, 10, 10.0));
        // The standard deviation within is 0.0015: t(0.975, 10) = 2.228 times that over √2.
        let half = (short.interval.high / short.interval.low).ln() / 2.0;
        assert!((half - 2.228 * 0.0016 / 2f64.sqrt()).abs() < 0.0003, "{half}");
    }

    #[test]
    fn several_jumps_are_several_parts_if_one_dominates() {
        assert_eq!(ratio(&[at(&[1.1, 0.5, 0.4])]).parts.len(), 3);
        assert_eq!(ratio(&[at(&[1.1, 0.8, 0.4])]).parts, [], "stairs are a trend");
        assert_eq!(ratio(&[at(&[1.1, 0.8, 1.1])]).parts, [], "there and back is a wide interval");
    }

    #[test]
    fn arms_are_equivalent_if_they_are_in_every_part() {
        let within = ratio(&[at(&[0.05, -0.05])]);
        assert_eq!(within.parts.len(), 2);
        assert_eq!(judge(&within, Margin::new(0.03, Some(0.2))), Verdict::Equivalent);
        assert_eq!(judge(&within, Margin::new(0.03, None)).name(), "inconclusive");
    }

    #[test]
    fn processes_that_differ_stay_observations() {
        // Two processes say next to nothing, and that one of them jumped does not make it more.
        let (one, other) = (at(&[0.06]), at(&[0.5, 0.55]));
        let found = ratio(&[one, other]);
        assert!(found.parts.len() == 3 && found.restarts.unwrap().matters);
        assert_eq!(found.position(0.03), Some(Position::Open));
        assert!(found.interval.unwrap().low < 1.0);
    }

    #[test]
    fn a_winner_is_one_in_every_part() {
        assert_eq!(verdict(&[at(&[1.1, 0.8])]), Verdict::Winner { side: Side::B });
        assert_eq!(verdict(&[at(&[-0.2, -0.1])]), Verdict::Winner { side: Side::A });
        let open = Verdict::Inconclusive { faster: None, needs: None };
        for levels in [[0.2, -0.2], [0.2, 0.0], [0.0, -0.2]] {
            assert_eq!(verdict(&[at(&levels)]), open, "{levels:?}");
        }
    }

    #[test]
    fn every_process_counts() {
        let (jumped, still, other) = (at(&[1.1, 0.8]), at(&[0.9]), at(&[0.0]));
        assert_eq!(verdict(&[jumped.clone(), still]), Verdict::Winner { side: Side::B });
        let against = ratio(&[jumped.clone(), other]);
        assert_eq!(against.parts.len(), 3);
        assert_eq!(against.position(0.03), Some(Position::Open));
        assert_eq!(ratio(&[jumped.clone(), Vec::new()]).parts.len(), 2, "an empty process is passed over");
        assert_eq!(ratio(&[jumped, vec![0.9]]).parts, [], "one block alone says nothing");
    }

    #[test]
    fn a_trend_has_no_parts() {
        let rising: Vec<f64> =
            WOBBLE.iter().enumerate().map(|(i, wobble)| 0.5 + 0.02 * i as f64 + wobble).collect();
        assert_eq!(ratio(std::slice::from_ref(&rising)).parts, []);
        assert_eq!(ratio(&[at(&[1.1, 0.8]), rising]).parts, []);
    }
}
