//! The raw figures as CSV (RFC 4180): a line for each figure of each visit, with what took it out of the verdict.

use super::{Metric, Report};

/// The columns.
const HEAD: &str =
    "restart,kind,block,order,position,arm,label,side,request,started_ns,metric,time_ns,value,unit,void";

impl Report {
    /// Every figure of every visit, void ones too: `time_ns` is a whole prompt's or the median step's time, `value` the
    /// same in `unit`, `void` the codes that take it out of the verdict. Lines end in CRLF.
    pub fn to_csv(&self) -> String {
        let mut text = format!("{HEAD}\r\n");
        for (index, block) in self.blocks.iter().enumerate() {
            for (position, visit) in block.visits.iter().enumerate() {
                for metric in Metric::ALL {
                    let Some(time_ns) = metric.time_ns(visit) else { continue };
                    let fields = [
                        block.restart.to_string(),
                        block.kind.name().to_owned(),
                        (index + 1).to_string(),
                        block.order.clone(),
                        (position + 1).to_string(),
                        visit.arm.name().to_owned(),
                        quoted(self.label(visit.arm)),
                        visit.side.name().to_owned(),
                        visit.request.to_string(),
                        visit.started_ns.to_string(),
                        metric.name().to_owned(),
                        time_ns.to_string(),
                        metric.in_unit(time_ns, self.plan.n_prompt).to_string(),
                        metric.unit().to_owned(),
                        self.codes_against(metric, index),
                    ];
                    text.push_str(&fields.join(","));
                    text.push_str("\r\n");
                }
            }
        }
        self.csv_scenarios(&mut text);
        text
    }

    /// The codes that take a block, or the whole run, out of the verdict on a figure.
    pub(super) fn codes_against(&self, metric: Metric, block: usize) -> String {
        let against =
            |finding: &&crate::validity::Finding| finding.invalidates(metric) || finding.voids(metric, block);
        let mut codes: Vec<&str> =
            self.findings.iter().filter(against).map(|finding| finding.code.name()).collect();
        codes.dedup();
        codes.join(" ")
    }
}

pub(super) fn quoted(field: &str) -> String {
    match field.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn only_what_needs_it_is_quoted() {
        assert_eq!(quoted("gguf"), "gguf");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"x\""), "\"say \"\"x\"\"\"");
    }
}
