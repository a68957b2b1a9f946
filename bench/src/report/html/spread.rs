//! Latencies of the scenarios' single requests: for each scenario and arm the median, what eight of ten lie between, and the
//! slowest.

use super::charts::class;
use super::svg::{Anchor, LogScale, Svg, WIDTH};
use crate::order::Side;
use crate::report::words::digits;
use crate::report::{BlockKind, Report};
use crate::scenario::{ScenarioReport, ScenarioRequest};
use crate::stats::quantile;

const LEFT: f64 = 12.0;
const RIGHT: f64 = WIDTH - 12.0;
/// Height of a scenario: its name and a line for each arm.
const ROW: f64 = 72.0;

/// What is spread.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    /// For the first token.
    FirstToken,
    /// For each next one.
    NextToken,
}

/// One arm's latencies in one scenario, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Spread {
    n: usize,
    low: f64,
    median: f64,
    high: f64,
    most: f64,
}

/// A row for each scenario that has such latencies. Logarithmic.
pub(super) fn scenarios(report: &Report, wait: Wait) -> Option<String> {
    let rows: Vec<(&str, [Option<Spread>; 2])> = report
        .scenarios
        .iter()
        .map(|scenario| (scenario.name.as_str(), Side::BOTH.map(|arm| spread(scenario, arm, wait))))
        .filter(|(_, arms)| arms.iter().any(Option::is_some))
        .collect();
    let all = || rows.iter().flat_map(|(_, arms)| arms.iter().flatten());
    let low = all().map(|found| found.low).fold(f64::INFINITY, f64::min) / 1.1;
    let high = all().map(|found| found.most).fold(0.0, f64::max) * 1.1;
    all().next()?;
    let x = LogScale::new(low, high, LEFT + 6.0, RIGHT - 6.0);
    let bottom = ROW * rows.len() as f64;
    let title = match wait {
        Wait::FirstToken => "Time to the first token in the scenarios",
        Wait::NextToken => "Gaps between tokens in the scenarios",
    };
    let mut svg = Svg::new(bottom + 36.0, title);
    for tick in x.ticks(44.0) {
        svg.line("grid", (x.at(tick), 0.0), (x.at(tick), bottom));
        svg.text("axis", (x.at(tick), bottom + 14.0), Anchor::Middle, &plain(tick));
    }
    svg.text("axis", (RIGHT, bottom + 30.0), Anchor::End, "milliseconds");
    for (index, (name, arms)) in rows.iter().enumerate() {
        let top = ROW * index as f64;
        svg.text("name", (LEFT, top + 14.0), Anchor::Start, name);
        for (side, found) in Side::BOTH.into_iter().zip(arms) {
            let Some(found) = found else { continue };
            let y = top + 40.0 + 27.0 * side.index() as f64;
            let said = found.said(report.label(side));
            svg.text("figure", (LEFT, y - 9.0), Anchor::Start, &said);
            svg.line(&format!("bar {}", class(side)), (x.at(found.low), y), (x.at(found.high), y));
            svg.line(
                &format!("bar {}", class(side)),
                (x.at(found.most), y - 5.0),
                (x.at(found.most), y + 5.0),
            );
            svg.mark(side, (x.at(found.median), y), &said);
            svg.describe(&format!("{name}, {said}"));
        }
    }
    Some(svg.finish())
}

fn plain(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

impl Spread {
    fn said(&self, label: &str) -> String {
        let Self { n, low, median, high, most } = *self;
        let (d, m) = (digits(median), digits(most));
        format!("{label}: median {median:.d$} ms, 10–90 % {low:.d$}–{high:.d$}, most {most:.m$} (n {n})")
    }
}

fn spread(scenario: &ScenarioReport, arm: Side, wait: Wait) -> Option<Spread> {
    let of_ab = scenario.blocks.iter().filter(|block| block.kind == BlockKind::Ab);
    let of_arm = of_ab.flat_map(|block| &block.visits).filter(|visit| visit.arm == arm);
    let mut values: Vec<f64> =
        of_arm.flat_map(|visit| &visit.requests).flat_map(|request| waits(request, wait)).collect();
    values.retain(|ms| *ms > 0.0);
    let at = |p| quantile(&values, p);
    Some(Spread { n: values.len(), low: at(0.1)?, median: at(0.5)?, high: at(0.9)?, most: at(1.0)? })
}

/// A request's latencies in milliseconds.
fn waits(request: &ScenarioRequest, wait: Wait) -> Vec<f64> {
    let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
    match wait {
        Wait::FirstToken => {
            request.arrivals_ns.first().map(|at| ms(request.sent_ns, *at)).into_iter().collect()
        }
        Wait::NextToken => request.arrivals_ns.windows(2).map(|pair| ms(pair[0], pair[1])).collect(),
    }
}
