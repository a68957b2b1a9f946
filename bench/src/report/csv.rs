//! The raw figures as CSV (RFC 4180): a line for each figure of each visit, with what took it out of the verdict.

use super::{BlockKind, Metric, Report};
use crate::order::Side;

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
                for metric in Metric::ALL {
                    let Some(time_ns) = metric.time_ns(visit) else { continue };
                    let figure = [
                        metric.name().to_owned(),
                        time_ns.to_string(),
                        metric.in_unit(time_ns, self.plan.n_prompt).to_string(),
                        metric.unit().to_owned(),
                        self.codes_against(metric, index),
                    ];
                    place.write(&figure, &mut text);
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

/// Where in a measurement a figure is from: the columns that all lines begin with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) restart: u32,
    pub(super) kind: BlockKind,
    pub(super) block: usize,
    pub(super) order: &'a str,
    pub(super) position: usize,
    pub(super) arm: Side,
    pub(super) label: &'a str,
    pub(super) side: Side,
    pub(super) request: usize,
    pub(super) started_ns: u64,
}

impl Place<'_> {
    /// A line for a figure: its name, time, value, unit, and what takes it out of the verdict.
    pub(super) fn write(&self, figure: &[String; 5], text: &mut String) {
        let place = [
            self.restart.to_string(),
            self.kind.name().to_owned(),
            self.block.to_string(),
            self.order.to_owned(),
            self.position.to_string(),
            self.arm.name().to_owned(),
            quoted(self.label),
            self.side.name().to_owned(),
            self.request.to_string(),
            self.started_ns.to_string(),
        ];
        text.push_str(&place.join(","));
        for field in figure {
            text.push(',');
            text.push_str(&quoted(field));
        }
        text.push_str("\r\n");
    }
}

fn quoted(field: &str) -> String {
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
