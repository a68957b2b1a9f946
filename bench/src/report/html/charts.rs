//! The charts of a report's requests: ratios with intervals, the ratio block by block, distributions of latency.

use super::super::words::{digits, ratio_text};
use super::super::{BlockKind, Comparison, Metric, Report};
use super::svg::{Anchor, Scale, Svg, WIDTH};
use crate::order::Side;
use crate::stats::parts::Part;
use crate::stats::quantile;
use crate::stats::ratio::Ratio;

const LEFT: f64 = 12.0;
const RIGHT: f64 = WIDTH - 12.0;

/// Speed of A over speed of B, a row for each figure: point, 95 % interval, and the margins as a band. Logarithmic.
pub(super) fn ratios(report: &Report) -> Option<String> {
    const ROW: f64 = 46.0;
    let rows: Vec<(&Comparison, f64, f64, f64)> = report
        .comparisons
        .iter()
        .filter_map(|found| {
            let (speed, interval) = found.ratio.as_ref()?.speed();
            let (low, high) = interval.map_or((speed, speed), |interval| (interval.low, interval.high));
            Some((found, speed.ln(), low.ln(), high.ln()))
        })
        .collect();
    let (mut low, mut high) = (-0.05f64, 0.05f64);
    for (found, _, from, to) in &rows {
        low = low.min(*from).min(-found.margin.log());
        high = high.max(*to).max(found.margin.log());
    }
    if rows.is_empty() {
        return None;
    }
    let pad = 0.06 * (high - low);
    let scale = Scale::new(low - pad, high + pad, LEFT, RIGHT);
    let (a, b) = (report.label(Side::A), report.label(Side::B));
    let bottom = ROW * rows.len() as f64;
    let title = format!(
        "Speed of {a} over speed of {b} after prompts of {} tokens, with 95 % intervals",
        report.plan.n_prompt
    );
    let mut svg = Svg::new(bottom + 40.0, &title);
    svg.line("one", (scale.at(0.0), 0.0), (scale.at(0.0), bottom));
    for (index, (found, speed, from, to)) in rows.iter().enumerate() {
        let top = ROW * index as f64;
        let y = top + 34.0;
        let limit = found.margin.log();
        svg.rect("margin", (scale.at(-limit), y - 8.0), scale.at(limit) - scale.at(-limit), 16.0);
        svg.text(
            "name",
            (LEFT, top + 15.0),
            Anchor::Start,
            &format!("{}: {}", found.metric.name(), report.verdict_in_short(&found.verdict)),
        );
        let ratio = found.ratio.as_ref().map_or_else(String::new, ratio_text);
        svg.text("figure", (RIGHT, top + 15.0), Anchor::End, &ratio);
        svg.line("interval", (scale.at(*from), y), (scale.at(*to), y));
        for end in [from, to] {
            svg.line("interval", (scale.at(*end), y - 5.0), (scale.at(*end), y + 5.0));
        }
        svg.dot("point", (scale.at(*speed), y), 4.5, &ratio);
        svg.describe(&report.sentence(found));
    }
    for ratio in ratio_ticks(low - pad, high + pad) {
        let x = scale.at(ratio.ln());
        svg.line("tick", (x, bottom), (x, bottom + 4.0));
        svg.text("axis", (x, bottom + 16.0), Anchor::Middle, &format!("{ratio}"));
    }
    svg.text("axis", (LEFT, bottom + 34.0), Anchor::Start, &format!("← {b} is faster"));
    svg.text("axis", (RIGHT, bottom + 34.0), Anchor::End, &format!("{a} is faster →"));
    Some(svg.finish())
}

/// Ratios worth a mark between two logarithms, far enough from each other to be read.
fn ratio_ticks(low: f64, high: f64) -> Vec<f64> {
    const RATIOS: [f64; 25] = [
        1.0, 0.5, 2.0, 0.1, 10.0, 0.2, 5.0, 0.25, 4.0, 0.75, 1.5, 0.9, 1.1, 0.8, 1.25, 3.0, 0.33, 0.95, 1.05,
        0.01, 100.0, 0.98, 1.02, 0.97, 1.03,
    ];
    let apart = (high - low) * 0.11;
    let mut marks: Vec<f64> = Vec::new();
    for ratio in RATIOS {
        let log = ratio.ln();
        if (low..=high).contains(&log) && marks.iter().all(|mark| (mark.ln() - log).abs() >= apart) {
            marks.push(ratio);
        }
    }
    marks
}

/// The ratio of one figure block by block, void blocks hollow: drifts and jumps would show here.
pub(super) fn blocks(report: &Report, comparison: &Comparison) -> Option<String> {
    let ratio = comparison.ratio.as_ref()?;
    let metric = comparison.metric;
    let points: Vec<(usize, f64, String)> = report
        .blocks
        .iter()
        .enumerate()
        .filter(|(_, block)| block.kind == BlockKind::Ab)
        .filter_map(|(index, block)| {
            Some((index, -block.log_ratio(metric)?, report.codes_against(metric, index)))
        })
        .collect();
    let (first, last) = (points.first()?.0 as f64, points.last()?.0 as f64);
    let margin = comparison.margin.log();
    let logs = || points.iter().map(|point| point.1);
    let low = logs().fold(-margin, f64::min);
    let high = logs().fold(margin, f64::max);
    let pad = 0.1 * (high - low);
    let x = Scale::new(first - 0.5, last + 0.5, 48.0, RIGHT);
    let y = Scale::new(low - pad, high + pad, 132.0, 8.0);
    let mut svg = Svg::new(160.0, &format!("{}: ratio of speeds block by block", metric.name()));
    svg.rect("margin", (48.0, y.at(margin)), RIGHT - 48.0, y.at(-margin) - y.at(margin));
    for tick in ratio_ticks(low - pad, high + pad) {
        svg.line("grid", (48.0, y.at(tick.ln())), (RIGHT, y.at(tick.ln())));
        svg.text("axis", (42.0, y.at(tick.ln()) + 4.0), Anchor::End, &format!("{tick}"));
    }
    if let (_, Some(interval)) = ratio.speed() {
        let (top, bottom) = (y.at(interval.high.ln()), y.at(interval.low.ln()));
        svg.rect("band", (48.0, top), RIGHT - 48.0, bottom - top);
    }
    for (from, to, log) in levels(ratio, &points) {
        svg.line("mean", (x.at(from - 0.5), y.at(log)), (x.at(to + 0.5), y.at(log)));
    }
    svg.describe(&report.sentence(comparison));
    for (index, log, codes) in &points {
        let class = if codes.is_empty() { "point" } else { "void" };
        let block = &report.blocks[*index];
        let title = format!("block {} ({}): {:.3} {codes}", index + 1, block.order, log.exp());
        svg.dot(class, (x.at(*index as f64), y.at(*log)), 3.5, title.trim_end());
    }
    svg.text("axis", (48.0, 152.0), Anchor::Start, &format!("block {}", first + 1.0));
    svg.text("axis", (RIGHT, 152.0), Anchor::End, &format!("block {}", last + 1.0));
    Some(svg.finish())
}

/// From which block to which the ratio was at which level, as ln of speeds: all the way at its mean, or part by part.
fn levels(ratio: &Ratio, points: &[(usize, f64, String)]) -> Vec<(f64, f64, f64)> {
    let valid: Vec<usize> =
        points.iter().filter(|(.., codes)| codes.is_empty()).map(|(index, ..)| *index).collect();
    let mut rest = valid.as_slice();
    let part = |part: &Part| {
        let (own, others) = rest.split_at_checked(part.n_blocks)?;
        rest = others;
        Some((*own.first()? as f64, *own.last()? as f64, -part.time_ratio.ln()))
    };
    let parts: Option<Vec<_>> = ratio.parts.iter().map(part).collect();
    parts.filter(|parts| !parts.is_empty()).unwrap_or_else(|| {
        let ends = points.first().zip(points.last());
        ends.map(|(first, last)| (first.0 as f64, last.0 as f64, -ratio.time_ratio.ln()))
            .into_iter()
            .collect()
    })
}

/// Which share of these latencies is at most so long, a line for each arm.
pub(super) fn distribution(report: &Report, title: &str, of: Latency) -> Option<String> {
    let mut values = Side::BOTH.map(|arm| of.milliseconds(report, arm));
    values.iter_mut().for_each(|values| values.sort_unstable_by(f64::total_cmp));
    if values.iter().any(Vec::is_empty) {
        return None;
    }
    // A few stragglers would press all others to one side: the axis ends a little after the slower arm's 99th percentile.
    let ends = values.iter().filter_map(|values| quantile(values, 0.99));
    let starts = values.iter().filter_map(|values| values.first().copied());
    let high = ends.fold(0.0, f64::max) * 1.05;
    let low = (starts.fold(f64::INFINITY, f64::min) * 0.95).min(high);
    let x = Scale::new(low, high, 48.0, RIGHT);
    let y = Scale::new(0.0, 1.0, 152.0, 8.0);
    let mut svg = Svg::new(214.0, title);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        svg.line("grid", (48.0, y.at(share)), (RIGHT, y.at(share)));
        svg.text("axis", (42.0, y.at(share) + 4.0), Anchor::End, &format!("{:.0} %", 100.0 * share));
    }
    for tick in x.ticks(6) {
        svg.text("axis", (x.at(tick), 168.0), Anchor::Middle, &format!("{}", (tick * 1e6).round() / 1e6));
    }
    for (side, values) in Side::BOTH.into_iter().zip(&values) {
        let n = values.len() as f64;
        let mut points = vec![(x.at(low), y.at(0.0))];
        for (index, value) in values.iter().enumerate() {
            points.push((x.at(*value), y.at(index as f64 / n)));
            points.push((x.at(*value), y.at((index as f64 + 1.0) / n)));
        }
        points.push((x.at(high), y.at(1.0)));
        svg.path(&format!("curve {}", class(side)), &points);
        let at = |p| quantile(values, p).unwrap_or(0.0);
        let short = |p| format!("{:.n$}", at(p), n = digits(at(p)));
        let line = 186.0 + 18.0 * side.index() as f64;
        svg.rect(&format!("fill {}", class(side)), (48.0, line - 9.0), 10.0, 10.0);
        let legend = format!(
            "{}: median {} ms, 95 % {}, most {}",
            report.label(side),
            short(0.5),
            short(0.95),
            short(1.0)
        );
        svg.text("legend", (64.0, line), Anchor::Start, &legend);
        svg.describe(&legend);
    }
    Some(svg.finish())
}

/// What a distribution is of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Latency {
    /// Forced steps.
    Steps,
    /// Times to the first token.
    FirstToken,
    /// Gaps between tokens.
    Gaps,
}

impl Latency {
    fn milliseconds(self, report: &Report, arm: Side) -> Vec<f64> {
        let of_ab = report.blocks.iter().filter(|block| block.kind == BlockKind::Ab);
        let visits = of_ab.flat_map(|block| &block.visits).filter(|visit| visit.arm == arm);
        let mut found: Vec<&u64> = Vec::new();
        for visit in visits {
            match self {
                Latency::Steps => found.extend(visit.runner.iter().flat_map(|sample| &sample.step_ns)),
                Latency::FirstToken => found.extend(
                    visit
                        .engine
                        .iter()
                        .flat_map(|sample| std::iter::once(&sample.ttft_ns).chain(&sample.ttft_again_ns)),
                ),
                Latency::Gaps => found.extend(visit.engine.iter().flat_map(|sample| &sample.itl_ns)),
            }
        }
        found.into_iter().map(|ns| *ns as f64 / 1e6).collect()
    }
}

pub(super) fn class(side: Side) -> &'static str {
    match side {
        Side::A => "a",
        Side::B => "b",
    }
}

/// The captions of the distributions, in the page's order.
pub(super) const DISTRIBUTIONS: [(Metric, &str, Latency); 3] = [
    (Metric::DecodeNative, "Gaps between tokens, as a user gets them", Latency::Gaps),
    (Metric::DecodeForced, "Decode steps of equal work", Latency::Steps),
    (Metric::Ttft, "Time to the first token", Latency::FirstToken),
];
