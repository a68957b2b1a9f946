//! What figures and verdicts say, in words and short numbers; shared by the table, Markdown and HTML.

use super::{ArmMemory, ArmReport, Comparison, Metric, Report};
use crate::order::Side;
use crate::stats::parts::Part;
use crate::stats::ratio::Ratio;
use crate::stats::verdict::{Needs, NeedsUnit, Verdict};
use crate::validity::Finding;

impl Metric {
    /// What it is to somebody who has not read the definitions.
    pub(super) fn plainly(self) -> &'static str {
        match self {
            Metric::Prefill => "reading the prompt",
            Metric::DecodeForced => "decoding, equal steps",
            Metric::Ttft => "time to the first token",
            Metric::DecodeNative => "decoding, as a user gets it",
        }
    }
}

impl Report {
    /// How the report calls an arm.
    pub fn label(&self, side: Side) -> &str {
        self.arms.get(side.index()).map_or(side.name(), |arm| arm.label.as_str())
    }

    /// Whether both arms are one engine with one model.
    pub fn is_aa(&self) -> bool {
        let [a, b] = self.arms.as_slice() else { return false };
        a.engine.id == b.engine.id && a.model == b.model
    }

    /// The verdict in two or three words: "gguf is faster", "equivalent".
    pub(super) fn verdict_in_short(&self, verdict: &Verdict) -> String {
        match verdict {
            Verdict::Winner { side } => format!("{} wins", self.label(*side)),
            other => other.name().to_owned(),
        }
    }

    /// One sentence on a figure: the verdict with ratio, interval, margin and, where it is open, what it would take.
    pub fn sentence(&self, comparison: &Comparison) -> String {
        let (a, b) = (self.label(Side::A), self.label(Side::B));
        let metric = comparison.metric;
        let name = format!("{} ({})", metric.name(), metric.plainly());
        let ratio = comparison.ratio.as_ref().map_or_else(|| "no block left".to_owned(), ratio_text);
        let measured = format!("{a} ÷ {b} speed {ratio}");
        let margin = &comparison.margin;
        let within = match margin.floor {
            Some(floor) if floor > margin.asked => {
                format!("±{:.1} %, the noise floor, which is above the margin of ", 100.0 * floor)
                    + &format!("{:.1} %", 100.0 * margin.asked)
            }
            Some(floor) => format!("±{:.1} % (noise floor {:.1} %)", 100.0 * margin.asked, 100.0 * floor),
            None => format!("±{:.1} % (noise floor not measured)", 100.0 * margin.asked),
        };
        let said = match &comparison.verdict {
            Verdict::Winner { side } => format!("{} is faster by more than {within}", self.label(*side)),
            Verdict::Equivalent => format!("{a} and {b} are equally fast within {within}"),
            Verdict::Inconclusive { faster, needs } => {
                let open = match faster {
                    Some(side) => {
                        format!("{} is faster, but whether by more than {within} is open", self.label(*side))
                    }
                    None => format!("which is faster by more than {within} is open"),
                };
                format!("{open}; {}", needs_in_words(comparison.ratio.as_ref(), *needs))
            }
            Verdict::Invalid { codes } => format!("no verdict, because of {}", codes.join(", ")),
        };
        let void = match comparison.n_void {
            0 => String::new(),
            1 => ", one block void".to_owned(),
            n => format!(", {n} blocks void"),
        };
        let parts = comparison.ratio.as_ref().map_or_else(String::new, parts_text);
        format!("{name}: {said}: {measured}{parts}{void}")
    }

    /// A sentence for each arm on its distance from the reference.
    pub(super) fn reference_lines(&self) -> Vec<String> {
        let labels = Side::BOTH.map(|side| self.label(side));
        self.reference.as_ref().map_or_else(Vec::new, |reference| reference.lines(labels))
    }

    /// A sentence for each arm whose process grew by more than its ledger explains.
    pub(super) fn memory_warnings(&self) -> Vec<String> {
        let warning = |arm: &ArmReport| {
            Some(format!("{}: {}", arm.label, arm.memory.as_ref()?.ledger.as_ref()?.warning()?))
        };
        self.arms.iter().filter_map(warning).collect()
    }

    /// A finding as a line: its code, what it takes out, and what was seen.
    pub(crate) fn finding_line(&self, finding: &Finding) -> String {
        let arm = finding.arm.map_or_else(String::new, |side| format!(" ({})", self.label(side)));
        let metrics: Vec<&str> = finding.metrics.iter().map(|metric| metric.name()).collect();
        let metrics =
            if metrics.len() == Metric::ALL.len() { "all figures".to_owned() } else { metrics.join(", ") };
        let consequence = consequence(finding.stands, &finding.blocks, "the run", &metrics);
        format!("{}{arm}: {}; {consequence}", finding.code, finding.detail)
    }
}

/// What a finding does to the verdict on `figures`: "takes block 3, 4 out of ttft". Without blocks it is about `whole`.
pub(crate) fn consequence(stands: bool, blocks: &[usize], whole: &str, figures: &str) -> String {
    if stands {
        return format!("the verdict on {figures} stands, for each part of {whole} gives it by itself");
    }
    let out = match blocks {
        [] => whole.to_owned(),
        blocks => {
            let numbers: Vec<String> = blocks.iter().map(|block| (block + 1).to_string()).collect();
            format!("block {}", numbers.join(", "))
        }
    };
    format!("takes {out} out of {figures}")
}

fn needs_in_words(ratio: Option<&Ratio>, needs: Option<Needs>) -> String {
    match needs {
        Some(Needs { unit, n_more, seconds, .. }) => {
            let unit = match unit {
                NeedsUnit::Blocks => "blocks",
                NeedsUnit::Restarts => "processes (--restarts)",
            };
            let time = seconds.map_or_else(String::new, |seconds| format!(", about {}", duration(seconds)));
            format!("{n_more} more {unit}{time} would decide it with a probability of 80 %")
        }
        None if ratio.is_some_and(|ratio| ratio.n_blocks < 2) => "one block has no interval".to_owned(),
        None => "it lies so close to the margin that no reasonable number of blocks decides it".to_owned(),
    }
}

/// "40 s", "12 min", "3.5 h".
fn duration(seconds: u64) -> String {
    match seconds {
        0..=90 => format!("{seconds} s"),
        91..=5400 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

/// Speed of A over speed of B: "1.034 [1.021, 1.047]".
pub(crate) fn ratio_text(ratio: &Ratio) -> String {
    let (speed, interval) = ratio.speed();
    match interval {
        Some(interval) => format!("{speed:.3} [{:.3}, {:.3}]", interval.low, interval.high),
        None => format!("{speed:.3} (one block)"),
    }
}

/// What the ratio was in each part, if it jumped: "; it jumped, and its parts are 3.035 (13 blocks), 2.586 (3)".
fn parts_text(ratio: &Ratio) -> String {
    let part = |(index, part): (usize, &Part)| {
        let unit = if index == 0 { " blocks" } else { "" };
        format!("{:.3} ({}{unit})", 1.0 / part.time_ratio, part.n_blocks)
    };
    match ratio.parts.as_slice() {
        [] => String::new(),
        parts => {
            let parts: Vec<String> = parts.iter().enumerate().map(part).collect();
            format!("; it jumped, and its parts are {}", parts.join(", "))
        }
    }
}

/// "97 + 12 + 3", with a dash for what the engine does not count.
pub(super) fn engine_memory(memory: &ArmMemory) -> String {
    let engine = &memory.engine;
    let parts = [engine.weights_bytes, engine.kv_bytes, engine.compute_bytes];
    parts.map(|bytes| bytes.map_or_else(|| "-".to_owned(), |bytes| mb(bytes as i64))).join(" + ")
}

/// The median request with the lowest and the highest beside it.
pub(super) fn summary(arm: &ArmReport, metric: Metric) -> Option<String> {
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

/// Megabytes.
pub(super) fn mb(bytes: i64) -> String {
    format!("{:.0}", bytes as f64 / 1e6)
}
