//! The machine around the visits: clocks, power, swap, other processes.
//!
//! Contention that weighs on both arms alike cancels in a mirrored block and takes nothing out; it has to be uneven.
//! None of this looks at a measured time, so taking blocks out for it cannot favour a result.

use super::{Code, Finding};
use crate::environment::Environment;
use crate::order::Side;
use crate::report::{Block, Metric, Visit};
use crate::stats::{mean, median};

/// A clock this much below the run's median is another state.
const CLOCK_SHARE: f64 = 0.85;
/// A few pages come back on any machine that has ever swapped.
const SWAP_BYTES: u64 = 4 << 20;
/// By how much other processes' share of the CPU time may differ between the arms of a block.
const UNEVEN_CPU: f64 = 0.10;

pub(super) fn find(blocks: &[Block]) -> Vec<Finding> {
    let clocks: Vec<f64> = environments(blocks).filter_map(|environment| environment.clock_mhz).collect();
    let usual_clock = median(&clocks);
    let mut findings = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let mut found = |code, detail: Option<String>| {
            let of = |detail| Finding::of_block(code, None, &Metric::ALL, index, detail);
            findings.extend(detail.map(of));
        };
        let of_block = || environments(std::slice::from_ref(block));
        found(Code::Clock, clock(of_block(), usual_clock));
        let on_battery = of_block().any(|environment| environment.on_battery == Some(true));
        found(Code::Power, on_battery.then(|| "the machine ran on battery".to_owned()));
        let swapped: u64 = of_block().filter_map(|environment| environment.swapped_in_bytes).sum();
        found(
            Code::Swap,
            (swapped > SWAP_BYTES).then(|| format!("{:.0} MB came back from swap", swapped as f64 / 1e6)),
        );
        found(Code::Contention, contention(block));
    }
    findings
}

fn environments(blocks: &[Block]) -> impl Iterator<Item = &Environment> {
    blocks.iter().flat_map(|block| &block.visits).filter_map(|visit| visit.environment.as_ref())
}

fn clock<'a>(of_block: impl Iterator<Item = &'a Environment>, usual: Option<f64>) -> Option<String> {
    let (mut lowest, mut n_throttled) = (f64::INFINITY, 0);
    for environment in of_block {
        lowest = lowest.min(environment.clock_mhz.unwrap_or(f64::INFINITY));
        n_throttled += environment.n_throttled.unwrap_or(0);
    }
    if n_throttled > 0 {
        return Some(format!("CPUs were throttled {n_throttled} times for their temperature"));
    }
    let usual = usual.filter(|usual| lowest < CLOCK_SHARE * usual)?;
    Some(format!("the CPUs' clock fell to {lowest:.0} MHz from {usual:.0}"))
}

fn contention(block: &Block) -> Option<String> {
    let share = |side: Side| {
        let of = |visit: &Visit| (visit.side == side).then_some(visit.environment?.others_cpu).flatten();
        mean(&block.visits.iter().filter_map(of).collect::<Vec<_>>())
    };
    let (a, b) = (share(Side::A)?, share(Side::B)?);
    ((a - b).abs() > UNEVEN_CPU).then(|| {
        let (a, b) = (100.0 * a, 100.0 * b);
        format!("other processes took {a:.0} % of the CPU time during A's visits and {b:.0} % during B's")
    })
}
