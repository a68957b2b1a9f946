//! The report for people, at most 100 columns wide.

use std::fmt::Write;

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, TableComponent, Width, presets,
};

use super::{ArmMemory, ArmReport, Metric, Report};
use crate::stats::ratio::Ratio;

const WIDTH: u16 = 100;
/// Name, A, B, ratio.
const COLUMNS: [u16; 4] = [26, 24, 24, 26];

impl Report {
    /// The arms, the table, the agreement, and what the figures are. No colours, no trailing line break.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_arms(&mut text);
        let _ = writeln!(text, "{}", self.table()); // writing to a String does not fail
        self.write_findings(&mut text);
        let mut text =
            text.lines().flat_map(|line| wrap(line, WIDTH as usize)).collect::<Vec<_>>().join("\n");
        text.truncate(text.trim_end().len());
        text
    }

    fn write_arms(&self, text: &mut String) {
        for (arm, planned) in self.arms.iter().zip(&self.plan.arms) {
            let (model, engine) = (&arm.model, &arm.engine);
            let name = planned.path.file_name().unwrap_or(planned.path.as_os_str()).to_string_lossy();
            let _ = write!(
                text,
                "{}: {name} {} on {} {}",
                arm.label, model.quantization, engine.library, engine.version
            );
            let _ = match &arm.loaded {
                Some(loaded) => {
                    writeln!(text, ", {}, weights {}, KV {}", loaded.device, loaded.weights, loaded.kv_type)
                }
                None => writeln!(text),
            };
        }
        let (n_prompt, n_decode) = (self.plan.n_prompt, self.plan.n_decode);
        let depth = n_prompt + n_decode;
        let _ = writeln!(text, "{n_prompt} prompt tokens, then {n_decode} at depth {n_prompt} to {depth}");
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        for line in [TableComponent::HorizontalLines, TableComponent::MiddleIntersections] {
            table.remove_style(line);
        }
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        table.set_constraints(COLUMNS.map(|n| ColumnConstraint::Absolute(Width::Fixed(n))));
        let label = |index: usize| self.arms.get(index).map_or("-", |arm| arm.label.as_str());
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let ratio = format!("{} ÷ {} speed [95 %]", label(0), label(1));
        table.set_header([
            Cell::new(""),
            right(label(0).to_owned()),
            right(label(1).to_owned()),
            right(ratio),
        ]);
        let mut row = |name: &str, of: &dyn Fn(&ArmReport) -> Option<String>, ratio: String| {
            let cell = |index: usize| self.arms.get(index).and_then(of).unwrap_or_else(|| "-".to_owned());
            table.add_row([Cell::new(name), right(cell(0)), right(cell(1)), right(ratio)]);
        };
        for metric in Metric::ALL {
            let comparison = self.comparisons.iter().find(|comparison| comparison.metric == metric);
            let ratio = comparison.map_or_else(|| "-".to_owned(), |comparison| ratio_text(&comparison.ratio));
            row(&format!("{}, {}", metric.name(), metric.unit()), &|arm| summary(arm, metric), ratio);
        }
        let none = String::new;
        row("load, s", &|arm| Some(format!("{:.2}", arm.loaded.as_ref()?.load_ns as f64 / 1e9)), none());
        let read = |arm: &ArmReport| Some(mb(arm.loaded.as_ref()?.weight_bytes_per_token as i64));
        row("weights read, MB/token", &read, none());
        row("weights+KV+scratch, MB", &|arm| Some(engine_memory(arm.memory.as_ref()?)), none());
        let grown = |arm: &ArmReport| {
            let delta = arm.memory.as_ref()?.process_warm?;
            Some(format!("{} (anonymous {})", mb(delta.pss_bytes), mb(delta.anonymous_bytes)))
        };
        row("process grew by, MB", &grown, none());
        table
    }

    fn write_findings(&self, text: &mut String) {
        for arm in &self.arms {
            if let Some(failure) = &arm.failure {
                let _ =
                    writeln!(text, "arm {} FAILED during {}: {}", arm.label, failure.during, failure.error);
            }
        }
        match (&self.agreement, &self.no_agreement) {
            (Some(agreement), _) => {
                let (top1, kl) = (&agreement.top1, &agreement.kl);
                let _ = writeln!(
                    text,
                    "agreement: top-1 {:.1} % [{:.1}, {:.1}] of {} positions; KL({} ‖ {}) mean {:.5}, median {:.5}, \
                     p99 {:.4}, max {:.4} nats; perplexity {:.3} and {:.3}",
                    100.0 * top1.share,
                    100.0 * top1.low,
                    100.0 * top1.high,
                    agreement.n_positions,
                    self.arms.first().map_or("A", |arm| &arm.label),
                    self.arms.get(1).map_or("B", |arm| &arm.label),
                    kl.mean,
                    kl.median,
                    kl.p99,
                    kl.max,
                    agreement.perplexity_a,
                    agreement.perplexity_b,
                );
            }
            (None, reason) => {
                let _ = writeln!(text, "no agreement: {}", reason.as_deref().unwrap_or("not asked for"));
            }
        }
        let _ = writeln!(text, "{}", self.weights);
        if let Some(graded) = &self.grade {
            let _ = writeln!(text, "grade {:?}: {}", graded.grade, graded.reason);
        }
        for difference in &self.differences {
            let _ = writeln!(text, "differs: {difference}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        self.write_definitions(text);
    }

    fn write_definitions(&self, text: &mut String) {
        let orders = &self.plan.orders;
        let _ = writeln!(text);
        for metric in Metric::ALL {
            let _ = writeln!(text, "{}: {}", metric.name(), metric.definition());
        }
        let _ = writeln!(
            text,
            "load: load called to ready, files cached; weights+KV+scratch: by the engine's own count; process: growth of the proportional set size from before the load \
             to after the first request, mapped files counted"
        );
        let _ = writeln!(
            text,
            "figures: median request (lowest–highest) of {} per arm; ratio: exp of the mean of {} block log-ratios \
             ({}), with Student's 95 % interval",
            2 * orders.len(),
            orders.len(),
            if orders.len() > 6 { format!("{} …", orders[..6].join(" ")) } else { orders.join(" ") },
        );
        if let Some(agreement) = &self.agreement {
            let _ = writeln!(
                text,
                "agreement: teacher-forced on {} windows of {} tokens of {}, each from an empty cache, all positions; \
                 KL in nats, f64; top-1 with Wilson's interval",
                agreement.n_windows, agreement.window, self.plan.text,
            );
        }
    }
}

/// "97 + 12 + 3", with a dash for what the engine does not count.
fn engine_memory(memory: &ArmMemory) -> String {
    let engine = &memory.engine;
    let parts = [engine.weights_bytes, engine.kv_bytes, engine.compute_bytes];
    parts.map(|bytes| bytes.map_or_else(|| "-".to_owned(), |bytes| mb(bytes as i64))).join(" + ")
}

fn summary(arm: &ArmReport, metric: Metric) -> Option<String> {
    let found = arm.summaries.iter().find(|summary| summary.metric == metric)?;
    let n = digits(found.median);
    Some(format!("{:.n$} ({:.n$}–{:.n$})", found.median, found.low, found.high))
}

/// Decimals that leave about three significant digits.
pub(crate) fn digits(value: f64) -> usize {
    match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.1 => 3,
        _ => 4,
    }
}

fn ratio_text(ratio: &Ratio) -> String {
    let (speed, interval) = ratio.speed();
    match interval {
        Some(interval) => format!("{speed:.3} [{:.3}, {:.3}]", interval.low, interval.high),
        None => format!("{speed:.3} (one block)"),
    }
}

fn mb(bytes: i64) -> String {
    format!("{:.0}", bytes as f64 / 1e6)
}

/// Breaks a line at spaces; lines of the table, which are no wider, stay as they are.
pub(crate) fn wrap(line: &str, width: usize) -> Vec<String> {
    if line.chars().count() <= width {
        return vec![line.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let n = lines.last().map_or(0, |last| last.chars().count());
        if n > 0 && n + 1 + word.chars().count() > width {
            lines.push(format!("  {word}"));
        } else if let Some(last) = lines.last_mut() {
            if n > 0 {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}
