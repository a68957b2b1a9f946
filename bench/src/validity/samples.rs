//! Single visits: counts and hashes that are not as planned.

use std::collections::HashMap;

use super::{Code, Finding, Planned};
use crate::report::{Block, Level, Metric, Visit};

/// Everything wrong with single visits, a finding per block and kind.
pub(super) fn find(blocks: &[Block], planned: Planned) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        findings.extend(block.lost.as_ref().map(|lost| {
            Finding::of_block(lost.code, Some(lost.arm), &Metric::ALL, index, lost.detail.clone())
        }));
        for visit in &block.visits {
            let mut found = |code, metrics: &[Metric], detail: String| {
                findings.push(Finding::of_block(code, Some(visit.arm), metrics, index, detail));
            };
            if let Some(failure) = &visit.failure {
                found(failure.code, Level::Engine.metrics(), failure.detail.clone());
            }
            if let Some(engine) = &visit.engine
                && engine.n_cached_tokens > 0
            {
                let detail = format!("{} prompt tokens came from a cache", engine.n_cached_tokens);
                found(Code::CacheHit, Level::Engine.metrics(), detail);
            }
            if visit.wash_out.as_ref().is_some_and(|washed| !washed.steady) {
                found(Code::NoSteady, &Metric::ALL, "the wash-out ended at its limit".to_owned());
            }
            for (level, n_tokens) in token_counts(visit) {
                if n_tokens != planned.n_decode {
                    let detail = format!("{n_tokens} tokens were decoded instead of {}", planned.n_decode);
                    found(Code::Tokens, level.metrics(), detail);
                }
            }
        }
    }
    findings.extend(ids(blocks));
    findings
}

fn token_counts(visit: &Visit) -> impl Iterator<Item = (Level, usize)> {
    let runner = visit.runner.as_ref().map(|sample| (Level::Runner, sample.step_ns.len()));
    let engine = visit.engine.as_ref().map(|sample| (Level::Engine, sample.n_tokens as usize));
    runner.into_iter().chain(engine)
}

/// Equal requests have to have equal ids, other requests other ones.
fn ids(blocks: &[Block]) -> Vec<Finding> {
    let mut by_request: HashMap<(u32, usize), &str> = HashMap::new();
    let mut by_hash: HashMap<(u32, &str), usize> = HashMap::new();
    let mut findings = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let mut found = |detail: String| {
            findings.push(Finding::of_block(Code::Ids, None, &Metric::ALL, index, detail));
        };
        for visit in &block.visits {
            let hash = visit.ids_sha256.as_str();
            let known = *by_request.entry((block.restart, visit.request)).or_insert(hash);
            let first = *by_hash.entry((block.restart, hash)).or_insert(visit.request);
            if known != hash {
                found(format!("request {} was not the same on both arms", visit.request));
            } else if first != visit.request {
                found(format!("requests {first} and {} were the same", visit.request));
            }
        }
    }
    findings
}
