//! A sweep over depths as one page: the curves, the laws, and what each depth says.

use std::fmt::Write;

use super::svg::escape;
use super::{charts, depth, figure, page};
use crate::order::Side;
use crate::sweep::Sweep;

impl Sweep {
    /// The sweep as a page of its own, as [`crate::Report::to_html`].
    pub fn to_html(&self) -> String {
        let mut body = String::new();
        let Some(first) = self.reports.first() else { return page("a sweep over no depth", &body) };
        let (a, b) = (escape(first.label(Side::A)), escape(first.label(Side::B)));
        // Writing to a String does not fail.
        let _ = writeln!(
            body,
            "<h1>{a} against {b} over depth</h1>\n<p class=\"dim\">prompts of {} tokens; {}</p>",
            self.reports.iter().map(|report| report.plan.n_prompt.to_string()).collect::<Vec<_>>().join(", "),
            first.machine_line(),
        );
        body.push_str("<ul class=\"verdicts\">\n");
        for line in self.law_lines() {
            let _ = writeln!(body, "<li>{}</li>", escape(&line));
        }
        body.push_str("</ul>\n");
        let reports: Vec<_> = self.reports.iter().collect();
        figure(
            &mut body,
            depth::decode(&reports),
            "Decoding at each depth: steps of equal work, with 95 % intervals over blocks, and what reading weights and KV \
             cache from memory allows. Logarithmic both ways.",
        );
        for report in &self.reports {
            let plan = &report.plan;
            let _ = writeln!(
                body,
                "<h2>Depth {} to {}</h2>\n<ul class=\"verdicts\">",
                plan.n_prompt,
                plan.n_prompt + plan.n_decode
            );
            for found in &report.comparisons {
                let (class, sentence) = (found.verdict.name(), escape(&report.sentence(found)));
                let _ = writeln!(body, "<li class=\"{class}\">{sentence}</li>");
            }
            body.push_str("</ul>\n");
            figure(&mut body, charts::ratios(report), "Ratios of speeds with 95 % intervals at this depth.");
        }
        page(&format!("{a} against {b} over depth"), &body)
    }
}
