//! The report as Markdown, for issues and pull requests: verdicts first, then figures, then what they were measured on.

use std::fmt::Write;

use super::words::{engine_memory, mb, ratio_text, summary};
use super::{Metric, Report};
use crate::order::Side;

impl Report {
    /// The report as Markdown (GitHub's tables). Ends with a line break.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        let (a, b) = (escaped(self.label(Side::A)), escaped(self.label(Side::B)));
        // Writing to a String does not fail.
        let _ = writeln!(text, "## {a} against {b}\n");
        for comparison in &self.comparisons {
            let _ = writeln!(text, "- {}", escaped(&self.sentence(comparison)));
        }
        if let Some(graded) = &self.grade {
            let _ = writeln!(text, "- grade **{:?}**: {}", graded.grade, escaped(&graded.reason));
        }
        for line in self.reference_lines().into_iter().chain(self.why()) {
            let _ = writeln!(text, "- {}", escaped(&line));
        }
        for line in self.findings.iter().map(|found| self.finding_line(found)).chain(self.memory_warnings()) {
            let _ = writeln!(text, "- ⚠ {}", escaped(&line));
        }
        let _ = writeln!(text, "\n| | {a} | {b} | {a} ÷ {b} speed [95 %] | verdict | grade |");
        let _ = writeln!(text, "|---|--:|--:|--:|---|---|");
        for metric in Metric::ALL {
            let figure = |index: usize| {
                self.arms.get(index).and_then(|arm| summary(arm, metric)).unwrap_or_else(|| "–".to_owned())
            };
            let found = self.comparisons.iter().find(|found| found.metric == metric);
            let ratio =
                found.and_then(|found| found.ratio.as_ref()).map_or_else(|| "–".to_owned(), ratio_text);
            let verdict = found.map_or_else(|| "–".to_owned(), |found| self.verdict_in_short(&found.verdict));
            let grade = found.and_then(|found| found.grade.as_ref());
            let grade = grade.map_or_else(|| "–".to_owned(), |graded| format!("{:?}", graded.grade));
            let _ = writeln!(
                text,
                "| {} ({}) | {} | {} | {ratio} | {} | {grade} |",
                metric.name(),
                metric.unit(),
                figure(0),
                figure(1),
                escaped(&verdict),
            );
        }
        self.memory_rows(&mut text);
        self.markdown_scenarios(&mut text);
        self.conditions(&mut text);
        text
    }

    fn memory_rows(&self, text: &mut String) {
        let cell = |of: &dyn Fn(&super::ArmReport) -> Option<String>| {
            let of_arm = |index: usize| self.arms.get(index).and_then(of).unwrap_or_else(|| "–".to_owned());
            (of_arm(0), of_arm(1))
        };
        let (a, b) = cell(&|arm| Some(engine_memory(arm.memory.as_ref()?)));
        let _ = writeln!(text, "| weights + KV + scratch (MB) | {a} | {b} | | | |");
        let (a, b) = cell(&|arm| Some(mb(arm.memory.as_ref()?.process_warm?.pss_bytes)));
        let _ = writeln!(text, "| process grew by (MB) | {a} | {b} | | | |");
        let (a, b) = cell(&|arm| Some(format!("{:.2}", arm.loaded.as_ref()?.load_ns as f64 / 1e9)));
        let _ = writeln!(text, "| load (s) | {a} | {b} | | | |");
    }

    fn conditions(&self, text: &mut String) {
        let (plan, manifest) = (&self.plan, &self.manifest);
        let machine = &manifest.machine;
        let _ = writeln!(text, "\n<details><summary>Measured on</summary>\n");
        let cpu = machine.cpu.as_deref().unwrap_or("unknown CPU");
        let cores = machine.n_cores.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let _ = writeln!(
            text,
            "- {} ({cores} cores, {:.0} GB, {}), duet {}, {}",
            escaped(cpu),
            machine.memory_bytes as f64 / 1e9,
            escaped(machine.os.as_deref().unwrap_or(&machine.arch)),
            manifest.duet_version,
            manifest.started,
        );
        for (arm, planned) in self.arms.iter().zip(&plan.arms) {
            let name = planned.path.file_name().unwrap_or(planned.path.as_os_str()).to_string_lossy();
            let _ = write!(
                text,
                "- {}: {} on {} {}",
                escaped(&arm.label),
                escaped(&name),
                escaped(&arm.engine.library),
                escaped(&arm.engine.version)
            );
            let _ = match &arm.loaded {
                Some(loaded) => {
                    let held =
                        format!("{}, weights {}, KV {}", loaded.device, loaded.weights, loaded.kv_type);
                    writeln!(text, ", {}", escaped(&held))
                }
                None => writeln!(text),
            };
        }
        let _ = writeln!(
            text,
            "- {} prompt + {} decoded tokens, {} A/B and {} A/A blocks, ids sha256 {}…",
            plan.n_prompt,
            plan.n_decode,
            plan.orders.len(),
            plan.n_aa_blocks,
            &plan.ids_sha256.get(..12).unwrap_or(&plan.ids_sha256),
        );
        for note in self.differences.iter().chain(&self.notes) {
            let _ = writeln!(text, "- {}", escaped(note));
        }
        for metric in Metric::ALL {
            let _ = writeln!(text, "- {}: {}", metric.name(), escaped(metric.definition()));
        }
        let _ = writeln!(text, "\n</details>");
    }
}

/// Text that Markdown and HTML take as text, in a table too.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '~' | '#' => escaped.extend(['\\', c]),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escaped("a|b\n<img>*x*"), "a\\|b &lt;img>\\*x\\*");
    }
}
