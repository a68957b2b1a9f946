//! What two reports can be compared in without a clock: the work, bytes, counts, tokens, agreement.

use crate::order::Side;
use crate::report::{ArmReport, BlockKind, Report, Visit};

/// Something that is another than it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Whose; `None` for what belongs to the pair.
    pub arm: Option<Side>,
    /// What.
    pub what: &'static str,
    /// As it was.
    pub old: f64,
    /// As it is.
    pub new: f64,
    /// Whether that is worse.
    pub direction: Direction,
}

/// Which way something has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Less of what costs, or more of what is good.
    Better,
    /// The other way round.
    Worse,
    /// Neither: other tokens, for instance.
    Other,
}

/// Byte counts that differ by less are allocation details.
const BYTES_TOLERANCE: f64 = 0.02;

impl Change {
    /// "gguf: KV cache, bytes: 1000 → 1200 (worse)".
    pub(super) fn line(&self, labels: [&str; 2]) -> String {
        let whose = self.arm.map_or_else(String::new, |side| format!("{}: ", labels[side.index()]));
        let judged = match self.direction {
            Direction::Better => " (better)",
            Direction::Worse => " (worse)",
            Direction::Other => "",
        };
        format!("{whose}{}: {} → {}{judged}", self.what, self.old, self.new)
    }
}

/// Why the reports are not of the same work on the same machine.
pub(super) fn obstacles(new: &Report, old: &Report) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, equal: bool| {
        if !equal {
            found.push(format!("{what} differs"));
        }
    };
    let (n, o) = (&new.manifest, &old.manifest);
    let machine = |report: &Report| {
        let machine = &report.manifest.machine;
        (machine.cpu.clone(), machine.n_threads, machine.arch.clone(), machine.memory_bytes >> 28)
    };
    same("the machine", machine(new) == machine(old));
    same("the number of threads", n.threads == o.threads);
    same("the type of the KV caches", n.kv_type == o.kv_type);
    same("how weights are held", n.weights_mode == o.weights_mode);
    let (n, o) = (&new.plan, &old.plan);
    same("the text's token ids", n.ids_sha256 == o.ids_sha256);
    same("the length of the requests", (n.n_prompt, n.n_decode) == (o.n_prompt, o.n_decode));
    same("the prefill chunk", n.prefill_chunk == o.prefill_chunk);
    for (new, old) in new.arms.iter().zip(&old.arms) {
        let side = new.side.name();
        same(&format!("the engine of arm {side}"), new.engine.id == old.engine.id);
        let hashes =
            |arm: &ArmReport| arm.model.files.iter().map(|file| file.sha256.clone()).collect::<Vec<_>>();
        same(&format!("the model of arm {side}"), hashes(new) == hashes(old));
    }
    found
}

/// What has changed in the arms and between them.
pub(super) fn changes(new: &Report, old: &Report) -> Vec<Change> {
    let mut changes = Vec::new();
    for (new, old) in new.arms.iter().zip(&old.arms) {
        changes.extend(of_arm(new, old));
    }
    for side in Side::BOTH {
        let Some((old, new)) = same_request(old, new, side) else { continue };
        let mut changed = |what, old: usize, new: usize, direction| {
            changes.push(Change { arm: Some(side), what, old: old as f64, new: new as f64, direction });
        };
        if old.n_forward_passes != new.n_forward_passes {
            let (old, new) = (old.n_forward_passes as usize, new.n_forward_passes as usize);
            let direction = if new > old { Direction::Worse } else { Direction::Better };
            changed("forward passes of a request", old, new, direction);
        }
        if old.ids != new.ids {
            let n_alike = old.ids.iter().zip(new.ids).take_while(|(a, b)| a == b).count();
            let what = "greedy tokens, and how many of them are still the same";
            changed(what, old.ids.len(), n_alike, Direction::Other);
        }
    }
    if let (Some(old), Some(new)) = (&old.agreement, &new.agreement)
        && (new.top1.high < old.top1.low || old.top1.high < new.top1.low)
    {
        let direction = if new.top1.share < old.top1.share { Direction::Worse } else { Direction::Better };
        let what = "share of positions with the same most probable token";
        changes.push(Change { arm: None, what, old: old.top1.share, new: new.top1.share, direction });
    }
    changes
}

fn of_arm(new: &ArmReport, old: &ArmReport) -> Vec<Change> {
    let memory = |arm: &ArmReport| arm.memory.as_ref().map(|memory| memory.engine.clone());
    let (o, n) = (memory(old), memory(new));
    let both = |of: fn(&crate::report::EngineMemory) -> Option<u64>| {
        (o.as_ref().and_then(of), n.as_ref().and_then(of))
    };
    let read = |arm: &ArmReport| arm.loaded.as_ref().map(|loaded| loaded.weight_bytes_per_token);
    let figures = [
        ("weights read per token, bytes", (read(old), read(new))),
        ("weights held, bytes", both(|memory| memory.weights_bytes)),
        ("KV cache, bytes", both(|memory| memory.kv_bytes)),
        ("scratch buffers, bytes", both(|memory| memory.compute_bytes)),
    ];
    let side = new.side;
    let change = |(what, values)| {
        let (Some(old), Some(new)) = values else { return None };
        let (old, new) = (old as f64, new as f64);
        let direction = match new - old {
            more if more > BYTES_TOLERANCE * old => Direction::Worse,
            less if less < -BYTES_TOLERANCE * old => Direction::Better,
            _ => return None,
        };
        Some(Change { arm: Some(side), what, old, new, direction })
    };
    figures.into_iter().filter_map(change).collect()
}

/// What does not depend on time in one request.
struct Sample<'a> {
    n_forward_passes: u64,
    ids: &'a [u32],
}

/// An arm's samples of the first request that both reports have.
fn same_request<'a>(old: &'a Report, new: &'a Report, arm: Side) -> Option<(Sample<'a>, Sample<'a>)> {
    let sample = |visit: &'a Visit| {
        let (runner, engine) = (visit.runner.as_ref()?, visit.engine.as_ref()?);
        let sample = Sample { n_forward_passes: runner.n_forward_passes, ids: &engine.ids };
        Some((visit.ids_sha256.as_str(), sample))
    };
    let samples = move |report: &'a Report| {
        let of_ab = report.blocks.iter().filter(|block| block.kind == BlockKind::Ab);
        of_ab.flat_map(|block| &block.visits).filter(move |visit| visit.arm == arm).filter_map(sample)
    };
    samples(new).find_map(|(hash, new)| Some((samples(old).find(|(other, _)| *other == hash)?.1, new)))
}
