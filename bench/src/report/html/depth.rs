//! Speed over depth against what memory allows: one report is one depth, a sweep several.

use super::charts::class;
use super::svg::{Anchor, LogScale, Svg, WIDTH};
use crate::order::Side;
use crate::report::words::digits;
use crate::report::{Block, BlockKind, Metric, Report};
use crate::stats::mean;
use crate::stats::ratio::CONFIDENCE;
use crate::stats::student::Estimate;

const LEFT: f64 = 48.0;
const RIGHT: f64 = WIDTH - 12.0;
const BOTTOM: f64 = 190.0;
/// Places on the line of what memory allows.
const N_PLACES: usize = 32;

/// An arm at one depth.
#[derive(Debug, Clone, Copy)]
struct Point {
    depth: f64,
    /// Steps per second.
    rate: f64,
    /// Its 95 % interval over blocks; absent with one block.
    interval: Option<(f64, f64)>,
    /// Whether findings took all blocks out, and all are in it nevertheless.
    void: bool,
}

/// What memory allows an arm, around one depth.
#[derive(Debug, Clone, Copy)]
struct Ceiling {
    depth: f64,
    kv_bytes: f64,
    weight_bytes: f64,
    memory_rate: f64,
}

impl Ceiling {
    /// Steps per second at a depth near this one's: the cache that is read grows with it.
    fn at(&self, depth: f64) -> f64 {
        self.memory_rate / (self.weight_bytes + self.kv_bytes * depth / self.depth.max(1.0))
    }
}

/// Forced decode steps of each arm at each depth, with the rate at which memory could be read for them. Logarithmic both
/// ways.
pub(super) fn decode(reports: &[&Report]) -> Option<String> {
    let first = *reports.first()?;
    let points = Side::BOTH.map(|side| arm_points(reports, side));
    let ceilings = Side::BOTH.map(|side| arm_ceilings(reports, side));
    let all = || points.iter().flatten();
    let shortest = all().map(|point| point.depth).fold(f64::INFINITY, f64::min) / 1.4;
    let longest = all().map(|point| point.depth).fold(0.0, f64::max) * 1.4;
    all().next()?;
    let lines = ceilings.each_ref().map(|known| ceiling_line(known, shortest, longest));
    let spans = all().flat_map(|point| [point.rate, low_of(point), high_of(point)]);
    let rates: Vec<f64> = spans.chain(lines.iter().flatten().map(|(_, rate)| *rate)).collect();
    let low = rates.iter().copied().fold(f64::INFINITY, f64::min) / 1.15;
    let high = rates.iter().copied().fold(0.0, f64::max) * 1.15;
    let x = LogScale::new(shortest, longest, LEFT, RIGHT);
    let y = LogScale::new(low, high, BOTTOM, 10.0);
    let n_lines = 1 + Side::BOTH.iter().filter(|side| !points[side.index()].is_empty()).count();
    let mut svg = Svg::new(BOTTOM + 38.0 + 18.0 * n_lines as f64, "Decode steps per second over depth");
    for tick in y.ticks(22.0) {
        svg.line("grid", (LEFT, y.at(tick)), (RIGHT, y.at(tick)));
        svg.text("axis", (LEFT - 6.0, y.at(tick) + 4.0), Anchor::End, &plain(tick));
    }
    for tick in x.ticks(44.0) {
        svg.line("tick", (x.at(tick), BOTTOM), (x.at(tick), BOTTOM + 4.0));
        svg.text("axis", (x.at(tick), BOTTOM + 16.0), Anchor::Middle, &plain(tick));
    }
    svg.text("axis", (RIGHT, BOTTOM + 30.0), Anchor::End, "tokens in the cache →");
    svg.text("axis", (LEFT, BOTTOM + 30.0), Anchor::Start, "↑ tokens per second");
    let mut legend = BOTTOM + 48.0;
    for side in Side::BOTH {
        let line: Vec<(f64, f64)> =
            lines[side.index()].iter().map(|(depth, rate)| (x.at(*depth), y.at(*rate))).collect();
        if !line.is_empty() {
            svg.path(&format!("roof {}", class(side)), &line);
        }
        let points = &points[side.index()];
        if points.is_empty() {
            continue;
        }
        let measured: Vec<(f64, f64)> =
            points.iter().map(|point| (x.at(point.depth), y.at(point.rate))).collect();
        svg.path(&format!("curve {}", class(side)), &measured);
        for point in points {
            let (place, said) = (x.at(point.depth), said(first.label(side), point, &ceilings[side.index()]));
            svg.line(
                &format!("bar {}", class(side)),
                (place, y.at(low_of(point))),
                (place, y.at(high_of(point))),
            );
            svg.mark(side, (place, y.at(point.rate)), &said);
            svg.describe(&said);
        }
        svg.mark(side, (LEFT + 6.0, legend - 4.0), first.label(side));
        svg.text("legend", (LEFT + 18.0, legend), Anchor::Start, &legend_of(first.label(side), points));
        legend += 18.0;
    }
    let note = match lines.iter().all(Vec::is_empty) {
        true => "no memory rate was measured here, so there is no ceiling",
        false => "dotted: what reading weights and cache from memory allows",
    };
    svg.text("axis", (LEFT, legend), Anchor::Start, note);
    Some(svg.finish())
}

fn low_of(point: &Point) -> f64 {
    point.interval.map_or(point.rate, |(low, _)| low)
}

fn high_of(point: &Point) -> f64 {
    point.interval.map_or(point.rate, |(_, high)| high)
}

fn plain(value: f64) -> String {
    // Through six decimals, so that 0.30000000000000004 is 0.3.
    format!("{}", (value * 1e6).round() / 1e6)
}

/// "gguf at depth 512: 151 tok/s [148, 154], 62 % of what memory allows".
fn said(label: &str, point: &Point, ceilings: &[Ceiling]) -> String {
    let n = digits(point.rate);
    let interval = point.interval.map_or_else(String::new, |(low, high)| format!(" [{low:.n$}, {high:.n$}]"));
    let here = ceilings.iter().find(|ceiling| (ceiling.depth - point.depth).abs() < 0.5);
    let share = here.map_or_else(String::new, |ceiling| {
        format!(", {:.0} % of what memory allows", 100.0 * point.rate / ceiling.at(point.depth))
    });
    let void = if point.void { ", of blocks without a verdict" } else { "" };
    format!("{label} at depth {:.0}: {:.n$} tok/s{interval}{share}{void}", point.depth, point.rate)
}

fn legend_of(label: &str, points: &[Point]) -> String {
    match points {
        [one] => format!("{label}: {:.n$} tok/s, 95 % interval over blocks", one.rate, n = digits(one.rate)),
        [first, .., last] => format!(
            "{label}: {:.n$} tok/s at {:.0}, {:.m$} at {:.0}; bars: 95 %",
            first.rate,
            first.depth,
            last.rate,
            last.depth,
            n = digits(first.rate),
            m = digits(last.rate)
        ),
        [] => label.to_owned(),
    }
}

fn arm_points(reports: &[&Report], side: Side) -> Vec<Point> {
    let mut points: Vec<Point> = reports.iter().filter_map(|report| point(report, side)).collect();
    points.sort_by(|one, other| one.depth.total_cmp(&other.depth));
    points
}

/// The mean over blocks of the logarithm of an arm's step, as a rate; blocks that findings took out are left out, unless none
/// would be left.
fn point(report: &Report, side: Side) -> Option<Point> {
    let is_valid = |index: usize| report.codes_against(Metric::DecodeForced, index).is_empty();
    let valid = block_logs(report, side, is_valid);
    let void = valid.is_empty();
    let logs = if void { block_logs(report, side, |_| true) } else { valid };
    let rate = |log: f64| 1e9 / log.exp();
    let interval = Estimate::of(&logs).map(|found| found.interval(CONFIDENCE));
    let point = Point {
        depth: report.step_depth(),
        rate: rate(mean(&logs)?),
        interval: interval.map(|(low, high)| (rate(high), rate(low))),
        void,
    };
    (point.rate.is_finite() && point.rate > 0.0 && point.depth > 0.0).then_some(point)
}

/// The mean logarithm of an arm's step in each block that is asked for.
fn block_logs(report: &Report, side: Side, which: impl Fn(usize) -> bool) -> Vec<f64> {
    let of_ab = report.blocks.iter().enumerate().filter(|(_, block)| block.kind == BlockKind::Ab);
    let log = |block: &Block| {
        let visits = block.visits.iter().filter(|visit| visit.arm == side);
        let times = visits.filter_map(|visit| Metric::DecodeForced.time_ns(visit));
        mean(&times.map(f64::ln).collect::<Vec<_>>()).filter(|log| log.is_finite())
    };
    of_ab.filter(|(index, _)| which(*index)).filter_map(|(_, block)| log(block)).collect()
}

fn arm_ceilings(reports: &[&Report], side: Side) -> Vec<Ceiling> {
    let of_one = |report: &&Report| {
        let costs = report.step_costs(report.arms.get(side.index())?)?;
        Some(Ceiling {
            depth: report.step_depth(),
            kv_bytes: costs.kv_bytes,
            weight_bytes: costs.weight_bytes,
            memory_rate: costs.memory_rate,
        })
    };
    let mut known: Vec<Ceiling> = reports.iter().filter_map(of_one).collect();
    known.sort_by(|one, other| one.depth.total_cmp(&other.depth));
    // One line takes one rate: the best that was seen.
    let best = known.iter().map(|ceiling| ceiling.memory_rate).fold(0.0, f64::max);
    known.iter_mut().for_each(|ceiling| ceiling.memory_rate = best);
    known
}

/// Rates over the whole range of depths, from the ceilings nearest to each.
fn ceiling_line(known: &[Ceiling], shortest: f64, longest: f64) -> Vec<(f64, f64)> {
    let place = |index: usize| {
        let share = index as f64 / (N_PLACES - 1) as f64;
        let depth = (shortest.ln() + share * (longest.ln() - shortest.ln())).exp();
        let apart = |ceiling: &&Ceiling| (ceiling.depth.ln() - depth.ln()).abs();
        let nearest = known.iter().min_by(|one, other| apart(one).total_cmp(&apart(other)))?;
        Some((depth, nearest.at(depth))).filter(|(_, rate)| rate.is_finite() && *rate > 0.0)
    };
    (0..N_PLACES).filter_map(place).collect()
}
