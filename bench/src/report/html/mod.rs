//! The report as one HTML page with its charts in it: no script, nothing from elsewhere, readable on a phone and in print.
//! Well-formed as XML too, so that a test can hold it to that.

mod charts;
mod depth;
mod memory;
mod spread;
pub(super) mod svg;
mod sweep;

use std::fmt::Write;

use self::charts::DISTRIBUTIONS;
use self::spread::Wait;
use self::svg::escape;
use super::words::{engine_memory, mb, ratio_text, summary};
use super::{ArmReport, Metric, Report};
use crate::order::Side;

const CSS: &str = include_str!("page.css");

/// A page of this title, which is HTML already, as the body is.
fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>duet bench: {title}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// A chart with its caption; nothing where there is no chart.
fn figure(body: &mut String, chart: Option<String>, caption: &str) {
    if let Some(chart) = chart {
        let caption = escape(caption);
        // Writing to a String does not fail.
        let _ = writeln!(body, "<figure>\n{chart}<figcaption>{caption}</figcaption>\n</figure>");
    }
}

impl Report {
    /// The report as a page of its own.
    pub fn to_html(&self) -> String {
        let (a, b) = (escape(self.label(Side::A)), escape(self.label(Side::B)));
        let mut body = String::new();
        let kind = if self.is_aa() {
            "one engine against itself"
        } else {
            "measured in turns on the same token ids"
        };
        // Writing to a String does not fail.
        let _ =
            writeln!(body, "<h1>{a} against {b}</h1>\n<p class=\"dim\">{kind}; {}</p>", self.machine_line());
        self.verdicts(&mut body);
        self.figures(&mut body);
        self.html_scenarios(&mut body);
        self.chart_sections(&mut body);
        self.why_section(&mut body);
        self.agreement_section(&mut body);
        self.conditions_section(&mut body);
        page(&format!("{a} against {b}"), &body)
    }

    fn machine_line(&self) -> String {
        let machine = &self.manifest.machine;
        let cpu = machine.cpu.as_deref().unwrap_or("unknown CPU");
        let cores = machine.n_cores.map_or_else(String::new, |n| format!(", {n} cores"));
        let gb = machine.memory_bytes as f64 / 1e9;
        let (started, version) = (&self.manifest.started, &self.manifest.duet_version);
        escape(&format!("{cpu}{cores}, {gb:.0} GB; {started}; duet {version}"))
    }

    fn verdicts(&self, body: &mut String) {
        body.push_str("<ul class=\"verdicts\">\n");
        for found in &self.comparisons {
            let (class, sentence) = (found.verdict.name(), escape(&self.sentence(found)));
            let _ = writeln!(body, "<li class=\"{class}\">{sentence}</li>");
        }
        if let Some(graded) = &self.grade {
            let reason = escape(&graded.reason);
            let _ = writeln!(body, "<li><b>Grade {:?}</b>: {reason}</li>", graded.grade);
        }
        for arm in &self.arms {
            if let Some(failure) = &arm.failure {
                let text =
                    escape(&format!("{} failed during {}: {}", arm.label, failure.during, failure.error));
                let _ = writeln!(body, "<li class=\"invalid\">{text}</li>");
            }
        }
        for line in self.findings.iter().map(|found| self.finding_line(found)).chain(self.memory_warnings()) {
            let _ = writeln!(body, "<li class=\"finding\">{}</li>", escape(&line));
        }
        body.push_str("</ul>\n");
    }

    fn figures(&self, body: &mut String) {
        let (a, b) = (escape(self.label(Side::A)), escape(self.label(Side::B)));
        let _ = writeln!(
            body,
            "<h2>Figures</h2>\n<div class=\"scroll\"><table>\n<tr><th></th><th>{a}</th><th>{b}</th>\
             <th>{a} ÷ {b} speed [95 %]</th><th>verdict, grade</th></tr>"
        );
        let mut row = |name: &str, of: &dyn Fn(&ArmReport) -> Option<String>, ratio: &str, verdict: &str| {
            let cell =
                |index: usize| escape(&self.arms.get(index).and_then(of).unwrap_or_else(|| "–".to_owned()));
            let (a, b) = (cell(0), cell(1));
            let _ = writeln!(
                body,
                "<tr><td>{name}</td><td>{a}</td><td>{b}</td><td>{ratio}</td><td>{}</td></tr>",
                escape(verdict)
            );
        };
        for metric in Metric::ALL {
            let found = self.comparisons.iter().find(|found| found.metric == metric);
            let ratio =
                found.and_then(|found| found.ratio.as_ref()).map_or_else(|| "–".to_owned(), ratio_text);
            let verdict = found.map_or_else(String::new, |found| {
                let grade =
                    found.grade.as_ref().map_or_else(String::new, |graded| format!(", {:?}", graded.grade));
                format!("{}{grade}", self.verdict_in_short(&found.verdict))
            });
            let name = format!("{}, {}", metric.name(), metric.unit());
            row(&name, &|arm| summary(arm, metric), &ratio, &verdict);
        }
        let load = |arm: &ArmReport| Some(format!("{:.2}", arm.loaded.as_ref()?.load_ns as f64 / 1e9));
        row("load, s", &load, "", "");
        let read = |arm: &ArmReport| Some(mb(arm.loaded.as_ref()?.weight_bytes_per_token as i64));
        row("weights read, MB/token", &read, "", "");
        row("weights + KV + scratch, MB", &|arm| Some(engine_memory(arm.memory.as_ref()?)), "", "");
        let grown = |arm: &ArmReport| Some(mb(arm.memory.as_ref()?.process_warm?.pss_bytes));
        row("process grew by, MB", &grown, "", "");
        body.push_str("</table></div>\n");
    }

    fn chart_sections(&self, body: &mut String) {
        figure(
            body,
            charts::ratios(self),
            "Ratios of speeds with 95 % intervals. Grey: differences too small to matter, or within the noise of an \
             engine against itself.",
        );
        for (metric, title, latency) in DISTRIBUTIONS {
            let caption =
                format!("{title}: which share takes at most so many milliseconds ({}).", metric.name());
            figure(body, charts::distribution(self, title, latency), &caption);
        }
        figure(
            body,
            depth::decode(&[self]),
            "Decoding against what memory allows: steps of equal work with 95 % intervals over blocks. Logarithmic both ways; \
             --depths measures several depths.",
        );
        for (wait, what) in [
            (Wait::FirstToken, "Time to the first token of each request"),
            (Wait::NextToken, "Gaps between the tokens of each request"),
        ] {
            let caption = format!(
                "{what} of the scenarios: the mark is the median, the line holds eight of ten, the tick is the slowest. \
                 Logarithmic."
            );
            figure(body, spread::scenarios(self, wait), &caption);
        }
        figure(
            body,
            memory::bars(self),
            "Memory: predicted from the model's headers, by the engine's own count, and what the process grew by.",
        );
        for found in &self.comparisons {
            let caption = format!(
                "{}: the ratio in each block, in the order of time. Blue: mean and interval; grey: margin; hollow: void \
                 or of a figure without a verdict.",
                found.metric.name()
            );
            figure(body, charts::blocks(self, found), &caption);
        }
    }

    fn why_section(&self, body: &mut String) {
        let lines = self.why();
        if lines.is_empty() {
            return;
        }
        body.push_str("<h2>What bounds it</h2>\n<ul>\n");
        for line in lines {
            let _ = writeln!(body, "<li>{}</li>", escape(&line));
        }
        body.push_str("</ul>\n");
    }

    fn agreement_section(&self, body: &mut String) {
        body.push_str("<h2>Do both compute the same?</h2>\n");
        let text = match &self.agreement {
            Some(found) => format!(
                "At {:.1} % [{:.1}, {:.1}] of {} positions both find the same token the most probable. KL divergence: \
                 mean {:.5}, median {:.5}, 99th percentile {:.4}, largest {:.4} nats. Perplexity {:.3} and {:.3}.",
                100.0 * found.top1.share,
                100.0 * found.top1.low,
                100.0 * found.top1.high,
                found.n_positions,
                found.kl.mean,
                found.kl.median,
                found.kl.p99,
                found.kl.max,
                found.perplexity_a,
                found.perplexity_b,
            ),
            None => format!("Not compared: {}.", self.no_agreement.as_deref().unwrap_or("not asked for")),
        };
        let lines = [vec![text], self.reference_lines(), vec![self.weights.to_string()]];
        for line in lines.concat() {
            let _ = writeln!(body, "<p>{}</p>", escape(&line));
        }
    }

    fn conditions_section(&self, body: &mut String) {
        let plan = &self.plan;
        body.push_str("<h2>How it was measured</h2>\n<ul>\n");
        let mut item = |text: &str| {
            let _ = writeln!(body, "<li>{}</li>", escape(text));
        };
        for (arm, planned) in self.arms.iter().zip(&plan.arms) {
            let name = planned.path.file_name().unwrap_or(planned.path.as_os_str()).to_string_lossy();
            let loaded = arm.loaded.as_ref().map_or_else(String::new, |loaded| {
                format!(", {}, weights {}, KV {}", loaded.device, loaded.weights, loaded.kv_type)
            });
            item(&format!("{}: {name} on {} {}{loaded}", arm.label, arm.engine.library, arm.engine.version));
            for file in &arm.model.files {
                item(&format!("{}: sha256 {}", file.path.display(), file.sha256));
            }
        }
        item(&format!(
            "{} prompt tokens, then {} decoded, from {} (ids sha256 {})",
            plan.n_prompt, plan.n_decode, plan.text, plan.ids_sha256
        ));
        item(&format!(
            "{} blocks A against B ({}), {} blocks of each arm against itself, {} pilot blocks, seed {}",
            plan.orders.len(),
            plan.orders.join(" "),
            plan.n_aa_blocks,
            plan.n_pilot_blocks,
            plan.seed
        ));
        for note in self.differences.iter().chain(&self.notes) {
            item(note);
        }
        body.push_str("</ul>\n<details open=\"open\"><summary>What the figures are</summary>\n<dl>\n");
        for metric in Metric::ALL {
            let _ = writeln!(body, "<dt>{}</dt><dd>{}</dd>", metric.name(), escape(metric.definition()));
        }
        body.push_str("</dl>\n</details>\n");
    }
}
