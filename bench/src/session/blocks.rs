//! Blocks of visits, one after the other, each in the journal.

use super::arm::Arm;
use super::journal::Journal;
use super::schedule::Planned;
use super::visit::Measure;
use crate::clock::nanos;
use crate::error::BenchError;
use crate::order::Side;
use crate::report::{Block, Visit};
use crate::reporter::{Phase, Reporter};

/// A run while its blocks are measured.
pub(super) struct Run<'a> {
    pub(super) measure: Measure<'a>,
    pub(super) arms: &'a mut [Arm; 2],
    pub(super) reporter: &'a dyn Reporter,
    pub(super) blocks: Vec<Block>,
    pub(super) journal: Option<Journal>,
    pub(super) context_length: u32,
    /// Processes before this one.
    pub(super) restart: u32,
    /// The arm of the visit before.
    pub(super) before: Option<Side>,
    /// Blocks planned so far, those of earlier processes among them.
    pub(super) n_planned: usize,
}

impl Run<'_> {
    /// Where only one arm is loaded at a time: frees the other one and loads this one; how long that took.
    async fn swap_to(&mut self, side: Side) -> Option<u64> {
        let options = self.measure.options;
        if !options.swap || self.arms[side.index()].running().is_none() {
            return None;
        }
        self.arms[side.other().index()].unload().await;
        let begin = options.clock.now();
        self.arms[side.index()].load(options, self.context_length).await;
        Some(nanos(options.clock.now().saturating_sub(begin)))
    }

    /// Measures these blocks, one after the other, but for those that an earlier process has done or lost.
    pub(super) async fn blocks(&mut self, planned: &[Planned], phase: &Phase) -> Result<(), BenchError> {
        let total: u64 = planned.iter().map(|block| block.visits.len() as u64).sum();
        let mut done = 0;
        for planned in planned {
            self.n_planned += 1;
            if self.n_planned <= self.blocks.len() {
                done += planned.visits.len() as u64;
                continue;
            }
            let visits = Vec::with_capacity(planned.visits.len());
            let (kind, order) = (planned.kind, planned.order.clone());
            let mut block = Block { kind, restart: self.restart, order, visits, lost: None };
            for (number, &visit) in planned.visits.iter().enumerate() {
                self.reporter.progress(phase, done, total);
                done += 1;
                let index = self.blocks.len();
                if let Some(journal) = &mut self.journal {
                    journal.begin(index, kind, &block.order, visit.arm)?;
                }
                let during = format!("block {}, visit {}", index + 1, number + 1);
                let switched = self.before != Some(visit.arm);
                let reload = if switched { self.swap_to(visit.arm).await } else { None };
                let arm = &mut self.arms[visit.arm.index()];
                let measured = arm.visit(&self.measure, visit, switched, during).await;
                block.visits.extend(measured.map(|visit| Visit { reload_ns: reload, ..visit }));
                self.before = Some(visit.arm);
            }
            if let Some(journal) = &mut self.journal {
                journal.done(&block)?;
            }
            self.blocks.push(block);
        }
        if total > 0 {
            self.reporter.progress(phase, total, total);
        }
        Ok(())
    }
}
