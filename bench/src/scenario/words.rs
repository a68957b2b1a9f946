//! Scenarios in words, for the table, Markdown, HTML and CSV.

use super::report::{ScenarioComparison, ScenarioFinding, ScenarioReport, ScenarioSpread};
use crate::load::Better;
use crate::report::words::{consequence, digits, ratio_text};

impl ScenarioComparison {
    /// "TTFT p90, s ↓": what it is, and which way is up.
    pub(crate) fn title(&self) -> String {
        let arrow = match self.better {
            Better::Higher => '↑',
            Better::Lower => '↓',
        };
        format!("{}, {} {arrow}", self.figure, self.unit)
    }

    /// An arm's median with the lowest and the highest beside it.
    pub(crate) fn values(&self, arm: usize) -> Option<String> {
        let ScenarioSpread { median, low, high, .. } = self.arms.get(arm).copied().flatten()?;
        let n = if self.unit == "tokens" { 0 } else { digits(median) };
        Some(format!("{median:.n$} ({low:.n$}–{high:.n$})"))
    }

    /// How much better A does than B, with its interval.
    pub(crate) fn ratio_words(&self) -> Option<String> {
        self.ratio.as_ref().map(ratio_text)
    }
}

impl ScenarioReport {
    /// What was done, or why it was not, as a line.
    pub(crate) fn headline(&self) -> String {
        match &self.skipped {
            Some(skipped) => format!("{}: not done: {}", self.name, skipped.detail),
            None => format!("{}: {}", self.name, self.statement),
        }
    }

    /// Codes in the raw samples' column.
    pub(crate) fn codes_in_short(&self, figure: &str, block: usize) -> String {
        let codes: Vec<&str> =
            self.codes_against(figure, block).into_iter().map(|code| code.name()).collect();
        codes.join(" ")
    }
}

impl ScenarioFinding {
    /// As a line: code, what was seen, what it takes out.
    pub(crate) fn line(&self, scenario: &ScenarioReport, arm: &str) -> String {
        let arm = if arm.is_empty() { String::new() } else { format!(" ({arm})") };
        let consequence = consequence(self.stands, &self.blocks, "the scenario", &self.figures.join(", "));
        format!("{}{arm}: {}: {}; {consequence}", self.code, scenario.name, self.detail)
    }
}
