//! Runs at several depths, and the law that they follow: a decode step takes α + β·depth, with α and β of each engine.
//!
//! Engines differ in β far more than in α, so a ranking at 500 tokens says little about 100,000.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::order::Side;
use crate::report::words::digits;
use crate::report::{Metric, Report};

/// Reports of the same arms with prompts of different lengths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// [`Sweep::SCHEMA`].
    pub schema: String,
    /// One for each depth, shortest first.
    pub reports: Vec<Report>,
    /// Of each arm that was measured at two depths or more.
    pub laws: Vec<DepthLaw>,
}

/// How long a forced decode step of an arm takes at a depth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DepthLaw {
    /// Whose.
    pub side: Side,
    /// α: milliseconds of a step at an empty cache.
    pub alpha_ms: f64,
    /// β: nanoseconds for each token in the cache.
    pub beta_ns: f64,
    /// How far the measured steps are from the law at most, as a share of the step; absent with two depths.
    pub largest_residual: Option<f64>,
    /// Shortest and longest depth measured.
    pub depths: [f64; 2],
}

impl DepthLaw {
    /// By least squares over (depth, milliseconds); `None` unless there are two different depths.
    pub fn fit(side: Side, points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
        let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
        let xx: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let xy: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        if points.len() < 2 || xx.is_nan() || xx <= 0.0 {
            return None;
        }
        let slope = xy / xx;
        let intercept = mean_y - slope * mean_x;
        let residual = |(x, y): &(f64, f64)| ((intercept + slope * x - y) / y).abs();
        let ends = |(low, high): (f64, f64), (x, _): &(f64, f64)| (low.min(*x), high.max(*x));
        let (low, high) = points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), ends);
        Some(Self {
            side,
            alpha_ms: intercept,
            beta_ns: 1e6 * slope,
            largest_residual: (points.len() > 2).then(|| points.iter().map(residual).fold(0.0, f64::max)),
            depths: [low, high],
        })
    }

    /// The depth at which both take equally long; `None` if there is none beyond an empty cache.
    pub fn crossing(&self, other: &DepthLaw) -> Option<f64> {
        let depth = 1e6 * (other.alpha_ms - self.alpha_ms) / (self.beta_ns - other.beta_ns);
        (depth.is_finite() && depth > 0.0).then_some(depth)
    }
}

impl Sweep {
    /// The name and version of the JSON form.
    pub const SCHEMA: &'static str = "duet-bench-sweep/1";

    /// Of these reports; the first one's proof of the weights and its agreement hold for all, for neither depends on depth.
    pub fn of(mut reports: Vec<Report>) -> Self {
        if let Some((first, others)) = reports.split_first_mut() {
            for report in others {
                (report.weights, report.grade) = (first.weights.clone(), first.grade.clone());
                (report.agreement, report.no_agreement) =
                    (first.agreement.clone(), first.no_agreement.clone());
                report.reference = first.reference.clone();
                report.analyse_again();
            }
        }
        reports.sort_by_key(|report| report.plan.n_prompt);
        let law = |side: Side| DepthLaw::fit(side, &points(&reports, side));
        let laws = Side::BOTH.into_iter().filter_map(law).collect();
        Self { schema: Self::SCHEMA.to_owned(), reports, laws }
    }

    /// What a process that made this should exit with: the worst of the reports'.
    pub fn exit_code(&self) -> u8 {
        self.reports.iter().map(Report::exit_code).max().unwrap_or(2)
    }

    /// As JSON with line breaks.
    ///
    /// # Errors
    /// None that is known; serde's signature has one.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// What each depth says of decoding and of the prompt, then the laws. No trailing line break.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for report in &self.reports {
            let (from, to) = (report.plan.n_prompt, report.plan.n_prompt + report.plan.n_decode);
            let _ = writeln!(text, "depth {from} to {to}"); // writing to a String does not fail
            for metric in [Metric::Prefill, Metric::DecodeForced, Metric::DecodeNative] {
                let Some(found) = report.comparisons.iter().find(|found| found.metric == metric) else {
                    continue;
                };
                let rates = report.arms.iter().filter_map(|arm| {
                    let summary = arm.summaries.iter().find(|summary| summary.metric == metric)?;
                    Some(format!("{} {:.n$}", arm.label, summary.median, n = digits(summary.median)))
                });
                let rates = rates.collect::<Vec<_>>().join(", ");
                let grade = found
                    .grade
                    .as_ref()
                    .map_or_else(String::new, |graded| format!(", grade {:?}", graded.grade));
                let _ = writeln!(text, "  {} tok/s{grade}; {}", rates, report.sentence(found));
            }
        }
        for line in self.law_lines() {
            let _ = writeln!(text, "{line}");
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// The laws in words, and where they cross.
    pub(crate) fn law_lines(&self) -> Vec<String> {
        let label = |side| self.reports.first().map_or("", |report| report.label(side));
        let law = |law: &DepthLaw| {
            let residual = law.largest_residual.map_or_else(String::new, |residual| {
                format!(", which the measured depths follow within {:.1} %", 100.0 * residual)
            });
            format!(
                "{}: a step takes {:.2} ms + {:.0} ns for each token in the cache{residual}",
                label(law.side),
                law.alpha_ms,
                law.beta_ns
            )
        };
        let mut lines: Vec<String> = self.laws.iter().map(law).collect();
        if let [a, b] = self.laws.as_slice() {
            lines.push(match a.crossing(b) {
                Some(depth) if (a.depths[0]..=a.depths[1]).contains(&depth) => {
                    format!("equally fast at depth {depth:.0}")
                }
                Some(depth) => {
                    format!("estimate, beyond what was measured: equally fast at depth {depth:.0}")
                }
                None => "by these laws one is ahead at every depth".to_owned(),
            });
        }
        lines
    }
}

/// An arm's median forced steps: (mean depth of the steps, milliseconds).
fn points(reports: &[Report], side: Side) -> Vec<(f64, f64)> {
    let point = |report: &Report| {
        let arm = report.arms.get(side.index())?;
        let rate = arm.summaries.iter().find(|summary| summary.metric == Metric::DecodeForced)?.median;
        Some((report.step_depth(), 1e3 / rate))
    };
    reports.iter().filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(points: &[(f64, f64)]) -> DepthLaw {
        DepthLaw::fit(Side::A, points).unwrap()
    }

    #[test]
    fn the_law_of_published_series() {
        // Handed-down series of one engine: α 12.69 ms, β 150.8 ns.
        let points: Vec<(f64, f64)> =
            [0.0, 4096.0, 8192.0, 16384.0, 32768.0].map(|depth| (depth, 12.69 + 150.8e-6 * depth)).into();
        let found = law(&points);
        assert!((found.alpha_ms - 12.69).abs() < 1e-9 && (found.beta_ns - 150.8).abs() < 1e-6, "{found:?}");
        assert!(found.largest_residual.unwrap() < 1e-12);
        assert_eq!(found.depths, [0.0, 32768.0]);
    }

    #[test]
    fn one_depth_has_no_law() {
        assert_eq!(DepthLaw::fit(Side::A, &[]), None);
        assert_eq!(DepthLaw::fit(Side::A, &[(5.0, 1.0)]), None);
        assert_eq!(DepthLaw::fit(Side::A, &[(5.0, 1.0), (5.0, 2.0)]), None);
        assert_eq!(law(&[(0.0, 1.0), (10.0, 2.0)]).largest_residual, None, "two points are always on a line");
    }

    #[test]
    fn where_laws_cross() {
        let (a, b) = (law(&[(0.0, 8.0), (1000.0, 9.0)]), law(&[(0.0, 10.0), (1000.0, 10.0)]));
        assert!((a.crossing(&b).unwrap() - 2000.0).abs() < 1e-6);
        let slower = law(&[(0.0, 10.0), (1000.0, 12.0)]);
        assert_eq!(a.crossing(&slower), None, "behind at every depth");
        assert_eq!(a.crossing(&a), None);
    }
}
