//! The report for people, at most 110 columns wide.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableComponent, presets};

use super::figure::Better;
use super::report::{Comparison, LoadReport, Spread, ValueRatio};
use crate::order::{Side, order_name};
use crate::report::table::wrap;
use crate::report::words::digits;

const WIDTH: u16 = 110;

impl LoadReport {
    /// The arms, the table, and what makes figures doubtful. No colours, no trailing line break.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (side, arm) in Side::BOTH.iter().zip(&self.arms) {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{} = {}: {}", side.name(), arm.arm, arm.command);
            let version = arm.version.as_deref().unwrap_or("version unknown");
            let fingerprint = arm.system_fingerprint.as_deref().unwrap_or("none");
            let _ = writeln!(text, "  {version}; model {}, fingerprint {fingerprint}", arm.model);
        }
        let _ = writeln!(text, "{}", self.table());
        self.write_doubts(&mut text);
        let _ = writeln!(
            text,
            "values: median visit (lowest–highest); ÷: exp of the mean of block log-ratios, {} blocks ({}), with Student's \
             95 % interval; ↑ more is better, ↓ less",
            self.orders.len(),
            self.orders.iter().map(order_name).collect::<Vec<_>>().join(" "),
        );
        let lines: Vec<String> = text.lines().flat_map(|line| wrap(line, WIDTH as usize)).collect();
        lines.join("\n")
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        for line in [TableComponent::HorizontalLines, TableComponent::MiddleIntersections] {
            table.remove_style(line);
        }
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let mut header = vec![Cell::new("")];
        header.extend(self.arms.iter().map(|arm| right(arm.arm.clone())));
        if let [a, b] = &self.arms[..] {
            header.push(right(format!("{} ÷ {} [95 %]", a.arm, b.arm)));
        }
        table.set_header(header);
        for comparison in &self.comparisons {
            let mut row = vec![Cell::new(name(comparison))];
            row.extend(comparison.arms.iter().map(|spread| right(spread_text(spread.as_ref()))));
            if self.arms.len() == 2 {
                row.push(right(ratio_text(comparison.ratio.as_ref())));
            }
            table.add_row(row);
        }
        table
    }

    fn write_doubts(&self, text: &mut String) {
        for (side, arm) in Side::BOTH.into_iter().zip(&self.arms) {
            let n_visits = self.visits.iter().filter(|visit| visit.side == side).count();
            for (flag, n) in self.flagged(side) {
                let _ = writeln!(text, "{}: {} in {n} of {n_visits} visits", arm.arm, flag.name());
            }
        }
        let others = self.visits.iter().filter_map(|visit| visit.others_cores).max_by(f64::total_cmp);
        if let Some(others) = others {
            let _ = writeln!(text, "others on this machine used at most {others:.2} cores during a visit");
        }
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "STOPPED: {failure}");
        }
    }
}

fn name(comparison: &Comparison) -> String {
    let arrow = match comparison.better {
        Better::Higher => '↑',
        Better::Lower => '↓',
    };
    format!("{}, {} {arrow}", comparison.figure, comparison.unit)
}

fn spread_text(spread: Option<&Spread>) -> String {
    let Some(spread) = spread else { return "-".to_owned() };
    let n = digits(spread.median);
    format!("{:.n$} ({:.n$}–{:.n$})", spread.median, spread.low, spread.high)
}

fn ratio_text(ratio: Option<&ValueRatio>) -> String {
    let Some(ratio) = ratio else { return "-".to_owned() };
    let n = digits(ratio.a_over_b).max(2);
    match ratio.interval {
        Some(interval) => format!("{:.n$} [{:.n$}, {:.n$}]", ratio.a_over_b, interval.low, interval.high),
        None => format!("{:.n$} (one block)", ratio.a_over_b),
    }
}
