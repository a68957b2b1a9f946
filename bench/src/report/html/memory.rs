//! Memory of both arms as bars: predicted from the headers, counted by the engine, seen by the system.

use super::svg::{Anchor, Scale, Svg, WIDTH};
use crate::order::Side;
use crate::report::words::mb;
use crate::report::{ArmMemory, Report};

const LEFT: f64 = 12.0;
const RIGHT: f64 = WIDTH - 12.0;
/// Height of an arm: its name, and three bars with a line of text above each.
const ROW: f64 = 138.0;

/// A part of a bar: its class and its bytes.
type Part = (&'static str, u64);

/// The classes, and what they are called.
const PARTS: [(&str, &str); 5] = [
    ("weights", "weights"),
    ("kv", "KV cache"),
    ("scratch", "scratch"),
    ("grown", "process"),
    ("unexplained", "unexplained"),
];

/// Three bars for each arm whose memory is known; `None` if none is.
pub(super) fn bars(report: &Report) -> Option<String> {
    type Arm<'a> = (Side, &'a ArmMemory, Vec<(&'static str, Vec<Part>)>);
    let known = report.arms.iter().filter_map(|arm| Some((arm.side, arm.memory.as_ref()?)));
    let arms: Vec<Arm<'_>> = known.map(|(side, memory)| (side, memory, of_arm(memory))).collect();
    let most = arms.iter().flat_map(|(_, _, bars)| bars).map(|(_, parts)| total(parts)).max()?;
    if most == 0 {
        return None;
    }
    let scale = Scale::new(0.0, most as f64, LEFT, RIGHT);
    let mut svg = Svg::new(ROW * arms.len() as f64 + 28.0, "Memory of both arms");
    for (index, (side, memory, bars)) in arms.iter().enumerate() {
        let top = ROW * index as f64;
        let flag = memory.ledger.filter(|ledger| ledger.flagged).map_or("", |_| ": ⚠ unexplained memory");
        svg.text("name", (LEFT, top + 14.0), Anchor::Start, &format!("{}{flag}", report.label(*side)));
        for (number, (name, parts)) in bars.iter().enumerate() {
            let y = top + 32.0 + 36.0 * number as f64;
            let said = said(name, parts);
            svg.text("legend", (LEFT, y), Anchor::Start, &said);
            svg.describe(&format!("{}, {said}", report.label(*side)));
            let mut from = 0u64;
            for (class, bytes) in parts {
                let (start, end) = (scale.at(from as f64), scale.at(from.saturating_add(*bytes) as f64));
                svg.rect(class, (start, y + 5.0), end - start, 14.0);
                from = from.saturating_add(*bytes);
            }
        }
    }
    let (line, mut x) = (ROW * arms.len() as f64 + 18.0, LEFT);
    for (class, name) in PARTS {
        svg.rect(class, (x, line - 9.0), 10.0, 10.0);
        svg.text("axis", (x + 14.0, line), Anchor::Start, name);
        x += 30.0 + 6.0 * name.len() as f64;
    }
    Some(svg.finish())
}

fn total(parts: &[Part]) -> u64 {
    parts.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add)
}

/// The bars from top to bottom, those that are not known left out.
fn of_arm(memory: &ArmMemory) -> Vec<(&'static str, Vec<Part>)> {
    let mut bars = Vec::new();
    if let Some(predicted) = &memory.predicted {
        let parts = [predicted.weights_bytes, predicted.kv_bytes, predicted.compute_bytes];
        bars.push(("predicted", named(parts.map(Some))));
    }
    let engine = &memory.engine;
    let counted = named([engine.weights_bytes, engine.kv_bytes, engine.compute_bytes]);
    if !counted.is_empty() {
        bars.push(("engine", counted));
    }
    if let Some(grown) = memory.process_warm {
        let bytes = u64::try_from(grown.pss_bytes).unwrap_or(0);
        let unexplained = memory
            .ledger
            .filter(|ledger| ledger.flagged)
            .map_or(0, |ledger| u64::try_from(ledger.unexplained_bytes).unwrap_or(0).min(bytes));
        let mut parts = vec![("grown", bytes - unexplained)];
        if unexplained > 0 {
            parts.push(("unexplained", unexplained));
        }
        bars.push(("process", parts));
    }
    bars
}

fn named(bytes: [Option<u64>; 3]) -> Vec<Part> {
    PARTS.iter().zip(bytes).filter_map(|((class, _), bytes)| Some((*class, bytes?))).collect()
}

/// "engine: weights 97 + KV cache 6 + scratch 16 = 119 MB".
fn said(name: &str, parts: &[Part]) -> String {
    let mb = |bytes: u64| mb(i64::try_from(bytes).unwrap_or(i64::MAX));
    let name_of = |class: &str| PARTS.iter().find(|(known, _)| *known == class).map_or("", |(_, name)| *name);
    match parts {
        [(_, bytes)] => format!("{name}: {} MB", mb(*bytes)),
        parts => {
            let each: Vec<String> =
                parts.iter().map(|(class, bytes)| format!("{} {}", name_of(class), mb(*bytes))).collect();
            format!("{name}: {} = {} MB", each.join(" + "), mb(total(parts)))
        }
    }
}
