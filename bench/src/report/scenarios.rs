//! The scenarios of a report in each of its forms.

use std::fmt::Write;

use comfy_table::Cell;

use super::Report;
use super::csv::Place;
use super::html::svg::escape;
use super::markdown::escaped;
use super::table::{five_columns, fix_widths, right};
use crate::order::Side;
use crate::scenario::{ScenarioComparison, ScenarioReport};
use crate::stats::{median, quantile};

/// What stands where there is nothing.
const NONE: &str = "–";

impl Report {
    /// How long each arm took to load anew where only one is loaded at a time, median (lowest–highest).
    pub(super) fn reload_words(&self) -> Option<[String; 2]> {
        let of_arm = |side: Side| {
            let visits = self.blocks.iter().flat_map(|block| &block.visits).filter(|visit| visit.arm == side);
            let times: Vec<f64> = visits.filter_map(|visit| Some(visit.reload_ns? as f64 / 1e9)).collect();
            let (low, high) = (quantile(&times, 0.0)?, quantile(&times, 1.0)?);
            Some(format!("{:.2} ({low:.2}–{high:.2})", median(&times)?))
        };
        Some([of_arm(Side::A)?, of_arm(Side::B)?])
    }

    /// The verdict on a scenario's figure with its grade; counts have none.
    fn scenario_verdict(&self, found: &ScenarioComparison) -> String {
        let Some(verdict) = &found.verdict else { return String::new() };
        let grade = found.grade.as_ref().map_or_else(String::new, |graded| format!(", {:?}", graded.grade));
        format!("{}{grade}", self.verdict_in_short(verdict))
    }

    /// What speaks against scenarios, and how they failed, a line each.
    fn scenario_doubts(&self) -> Vec<String> {
        let of_one = |scenario: &ScenarioReport| {
            let failed =
                scenario.failure.iter().map(|failure| format!("{} FAILED: {failure}", scenario.name));
            let label = |side: Option<Side>| side.map_or("", |side| self.label(side));
            let findings = scenario.findings.iter().map(|found| found.line(scenario, label(found.arm)));
            failed.chain(findings).collect::<Vec<_>>()
        };
        self.scenarios.iter().flat_map(of_one).collect()
    }

    pub(super) fn write_scenarios(&self, text: &mut String) {
        if self.scenarios.is_empty() {
            return;
        }
        let (a, b) = (self.label(Side::A), self.label(Side::B));
        let mut table = five_columns(["scenario", a, b, &format!("{a} ÷ {b} [95 %]"), "verdict, grade"]);
        for scenario in self.scenarios.iter().filter(|scenario| !scenario.comparisons.is_empty()) {
            table.add_row([Cell::new(&scenario.name)]);
            for found in &scenario.comparisons {
                let value = |arm| right(found.values(arm).unwrap_or_else(|| "-".to_owned()));
                table.add_row([
                    Cell::new(format!("· {}", found.title())),
                    value(0),
                    value(1),
                    right(found.ratio_words().unwrap_or_default()),
                    right(self.scenario_verdict(found)),
                ]);
            }
        }
        fix_widths(&mut table);
        if self.scenarios.iter().any(|scenario| !scenario.comparisons.is_empty()) {
            let _ = writeln!(text, "{table}"); // writing to a String does not fail
        }
        for scenario in &self.scenarios {
            let _ = writeln!(text, "{}", scenario.headline());
        }
        for doubt in self.scenario_doubts() {
            let _ = writeln!(text, "{doubt}");
        }
        let _ = writeln!(
            text,
            "÷ of scenarios: how many times better A does, by rates or inverse times; counts and shares are only shown"
        );
    }

    pub(super) fn markdown_scenarios(&self, text: &mut String) {
        if self.scenarios.is_empty() {
            return;
        }
        let (a, b) = (escaped(self.label(Side::A)), escaped(self.label(Side::B)));
        // Writing to a String does not fail.
        let _ = writeln!(text, "\n| scenario | {a} | {b} | {a} ÷ {b} [95 %] | verdict, grade |");
        let _ = writeln!(text, "|---|--:|--:|--:|---|");
        for scenario in &self.scenarios {
            for found in &scenario.comparisons {
                let value = |arm| found.values(arm).unwrap_or_else(|| NONE.to_owned());
                let _ = writeln!(
                    text,
                    "| {}: {} | {} | {} | {} | {} |",
                    escaped(&scenario.name),
                    escaped(&found.title()),
                    value(0),
                    value(1),
                    found.ratio_words().unwrap_or_else(|| NONE.to_owned()),
                    escaped(&self.scenario_verdict(found)),
                );
            }
        }
        let _ = writeln!(text);
        for line in self.scenarios.iter().map(ScenarioReport::headline) {
            let _ = writeln!(text, "- {}", escaped(&line));
        }
        for line in self.scenario_doubts() {
            let _ = writeln!(text, "- ⚠ {}", escaped(&line));
        }
    }

    pub(super) fn html_scenarios(&self, body: &mut String) {
        if self.scenarios.is_empty() {
            return;
        }
        let (a, b) = (escape(self.label(Side::A)), escape(self.label(Side::B)));
        // Writing to a String does not fail.
        let _ = writeln!(
            body,
            "<h2>Scenarios</h2>\n<div class=\"scroll\"><table>\n<tr><th></th><th>{a}</th><th>{b}</th>\
             <th>{a} ÷ {b} [95 %]</th><th>verdict, grade</th></tr>"
        );
        for scenario in &self.scenarios {
            for found in &scenario.comparisons {
                let value = |arm| escape(&found.values(arm).unwrap_or_else(|| NONE.to_owned()));
                let _ = writeln!(
                    body,
                    "<tr><td>{}: {}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                    escape(&scenario.name),
                    escape(&found.title()),
                    value(0),
                    value(1),
                    found.ratio_words().unwrap_or_else(|| NONE.to_owned()),
                    escape(&self.scenario_verdict(found)),
                );
            }
        }
        body.push_str("</table></div>\n<ul>\n");
        for line in self.scenarios.iter().map(ScenarioReport::headline).chain(self.scenario_doubts()) {
            let _ = writeln!(body, "<li>{}</li>", escape(&line));
        }
        body.push_str("</ul>\n");
    }

    /// A line for each figure of each visit of each scenario, in the columns of the others.
    pub(super) fn csv_scenarios(&self, text: &mut String) {
        for scenario in &self.scenarios {
            for (index, block) in scenario.blocks.iter().enumerate() {
                for (position, visit) in block.visits.iter().enumerate() {
                    let place = Place {
                        restart: block.restart,
                        kind: block.kind,
                        block: index + 1,
                        order: &block.order,
                        position: position + 1,
                        arm: visit.arm,
                        label: self.label(visit.arm),
                        side: visit.side,
                        request: visit.request,
                        started_ns: visit.started_ns,
                    };
                    for value in &visit.figures {
                        let figure = [
                            format!("{}: {}", scenario.name, value.figure),
                            String::new(),
                            value.value.to_string(),
                            value.unit.clone(),
                            scenario.codes_in_short(&value.figure, index),
                        ];
                        place.write(&figure, text);
                    }
                }
            }
        }
    }
}
