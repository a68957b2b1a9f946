//! The report for people, at most 100 columns wide.

use std::fmt::Write;

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, TableComponent, Width, presets,
};

use super::words::{engine_memory, mb, ratio_text, summary};
use super::{ArmReport, Metric, Report};
use crate::agreement::{DepthBand, MeanInterval};
use crate::order::Side;
use crate::stats::ratio::Ratio;

const WIDTH: u16 = 100;
/// Name, A, B, ratio, verdict; between them one column each.
const COLUMNS: [u16; 5] = [21, 19, 19, 21, 16];

impl Report {
    /// The arms, the table, the agreement, and what the figures are. No colours, no trailing line break.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_arms(&mut text);
        let _ = writeln!(text, "{}", self.table()); // writing to a String does not fail
        self.write_scenarios(&mut text);
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
        let (a, b) = (self.label(Side::A), self.label(Side::B));
        let mut table = five_columns(["", a, b, &format!("{a} ÷ {b} [95 %]"), "verdict, grade"]);
        let mut row = |name: &str,
                       of: &dyn Fn(&ArmReport) -> Option<String>,
                       [ratio, verdict]: [String; 2]| {
            let cell = |index: usize| self.arms.get(index).and_then(of).unwrap_or_else(|| "-".to_owned());
            table.add_row([Cell::new(name), right(cell(0)), right(cell(1)), right(ratio), right(verdict)]);
        };
        for metric in Metric::ALL {
            let comparison = self.comparisons.iter().find(|comparison| comparison.metric == metric);
            let dash = || "-".to_owned();
            let ratio = comparison.and_then(|found| found.ratio.as_ref()).map_or_else(dash, ratio_text);
            let verdict = comparison.map_or_else(dash, |found| {
                let grade =
                    found.grade.as_ref().map_or_else(String::new, |graded| format!(", {:?}", graded.grade));
                format!("{}{grade}", self.verdict_in_short(&found.verdict))
            });
            row(
                &format!("{}, {}", metric.name(), metric.unit()),
                &|arm| summary(arm, metric),
                [ratio, verdict],
            );
        }

        let none = || [String::new(), String::new()];
        if let Some(reload) = self.reload_words() {
            row("reload, s", &|arm| Some(reload[arm.side.index()].clone()), none());
        }
        row("load, s", &|arm| Some(format!("{:.2}", arm.loaded.as_ref()?.load_ns as f64 / 1e9)), none());
        let read = |arm: &ArmReport| Some(mb(arm.loaded.as_ref()?.weight_bytes_per_token as i64));
        row("weights/token, MB", &read, none());
        row("weights+KV+rest, MB", &|arm| Some(engine_memory(arm.memory.as_ref()?)), none());
        let grown = |arm: &ArmReport| {
            let delta = arm.memory.as_ref()?.process_warm?;
            Some(format!("{} (anon {})", mb(delta.pss_bytes), mb(delta.anonymous_bytes)))
        };
        row("process grew by, MB", &grown, none());
        fix_widths(&mut table);
        table
    }

    fn write_findings(&self, text: &mut String) {
        for arm in &self.arms {
            if let Some(failure) = &arm.failure {
                let _ =
                    writeln!(text, "arm {} FAILED during {}: {}", arm.label, failure.during, failure.error);
            }
        }
        for comparison in &self.comparisons {
            let _ = writeln!(text, "{}", self.sentence(comparison));
        }
        if let Some(graded) = &self.grade {
            let _ = writeln!(text, "grade {:?} of these ratios: {}", graded.grade, graded.reason);
        }
        for finding in &self.findings {
            let _ = writeln!(text, "{}", self.finding_line(finding));
        }
        for warning in self.memory_warnings() {
            let _ = writeln!(text, "{warning}");
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
                let band = |band: &DepthBand| {
                    let DepthBand { from, to, top1, kl_mean, .. } = band;
                    format!("{from}–{} {kl_mean:.5} nats, top-1 {:.1} %", to - 1, 100.0 * top1)
                };
                let bands: Vec<String> = agreement.by_depth.iter().map(band).collect();
                let interval =
                    agreement.kl_interval.map_or_else(String::new, |MeanInterval { low, high }| {
                        format!("mean KL [{low:.5}, {high:.5}] over windows; ")
                    });
                let _ = writeln!(text, "agreement by depth: {interval}{}", bands.join("; "));
            }
            (None, reason) => {
                let _ = writeln!(text, "no agreement: {}", reason.as_deref().unwrap_or("not asked for"));
            }
        }
        for line in self.reference_lines().into_iter().chain(self.why()) {
            let _ = writeln!(text, "{line}");
        }
        let _ = writeln!(text, "{}", self.weights);
        for difference in &self.differences {
            let _ = writeln!(text, "differs: {difference}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        if self.manifest.mode == "swap" {
            let _ = writeln!(
                text,
                "one arm at a time: the model is loaded anew at each switch, which no figure but reload holds"
            );
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
            "load: load called to ready, files cached; weights+KV+rest: by the engine's own count, the rest is scratch; process: growth of the proportional set size from before the load \
             to after the first request, mapped files counted"
        );
        let ratios = || self.comparisons.iter().filter_map(|comparison| comparison.ratio.as_ref());
        let restarts = match ratios().map(|ratio| ratio.n_restarts).max() {
            Some(n) if n > 1 => format!(" in {n} processes"),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "figures: median request (lowest–highest) of {} per arm; ratio: of speeds, exp of the mean of {} block log-ratios \
             ({}){restarts}, with Student's 95 % interval; grade: what the ratio compares, A and B engines, C and D \
             artefacts",
            self.arms.iter().flat_map(|arm| &arm.summaries).map(|found| found.n_requests).max().unwrap_or(0),
            ratios().map(|ratio: &Ratio| ratio.n_blocks).max().unwrap_or(0),
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

/// A table with this head: name, A, B, ratio, verdict.
pub(super) fn five_columns(head: [&str; 5]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    for line in [TableComponent::HorizontalLines, TableComponent::MiddleIntersections] {
        table.remove_style(line);
    }
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    let [name, figures @ ..] = head;
    table.set_header([Cell::new(name)].into_iter().chain(figures.map(|text| right(text.to_owned()))));
    table
}

/// A cell of figures.
pub(super) fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Gives the columns of a whole table their widths: constraints of columns that do not exist yet are dropped.
pub(super) fn fix_widths(table: &mut Table) {
    table.set_constraints(COLUMNS.map(|n| ColumnConstraint::Absolute(Width::Fixed(n))));
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding(if index == 0 { (0, 1) } else { (1, 0) });
    }
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
