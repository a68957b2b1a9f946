//! The run: blocks of scenarios, the arms in turns.

use std::time::Duration;

use super::arm::{Arm, ArmInfo};
use super::cpu::CpuTimes;
use super::error::LoadError;
use super::prompts::{Prompts, VisitPrompts};
use super::report::{LoadFlag, LoadReport, Visit, compare};
use super::scenario::Scenario;
use super::sizes::Sizes;
use crate::machine::Machine;
use crate::order::{BlockOrder, Side, block_orders};

/// What to do.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// In this order within each block.
    pub scenarios: Vec<Scenario>,
    /// Lengths.
    pub sizes: Sizes,
    /// Blocks: each does every scenario twice to each arm, in mirrored order.
    pub n_blocks: usize,
    /// Decides the order of the arms.
    pub seed: u64,
    /// How long one visit may take.
    pub patience: Duration,
}

/// Busy cores of others from which on a visit is flagged.
const CONTENTION_CORES: f64 = 0.05;

/// Takes one arm, or two in turns, through the plan; tells each visit when it is done. The servers keep running: they
/// belong to the caller. An arm that fails ends the run, and the report says so.
///
/// # Errors
/// `Option` for sizes that give no figures, or other than one or two arms.
pub async fn run(
    plan: &LoadPlan,
    arms: &mut [Arm],
    prompts: &Prompts,
    mut done: impl FnMut(&Visit),
) -> Result<LoadReport, LoadError> {
    plan.sizes.check()?;
    if !matches!(arms.len(), 1 | 2) {
        return Err(LoadError::Option(format!("{} arms: one or two can be measured", arms.len())));
    }
    let orders: Vec<BlockOrder> = match arms.len() {
        1 => vec![[Side::A; 4]; plan.n_blocks],
        _ => block_orders(plan.seed, plan.n_blocks),
    };
    let mut visits = Vec::new();
    let failure = visit_all(plan, &orders, arms, prompts, |visit| {
        done(&visit);
        visits.push(visit);
    });
    let failure = failure.await.err().map(|error| duet_core::chain(&error));
    let comparisons = compare(&visits, arms.len(), plan.n_blocks);
    let infos = arms.iter().enumerate().map(|(index, arm)| info(arm, &visits, Side::BOTH[index]));
    Ok(LoadReport {
        schema: "duet-load/1",
        machine: Machine::this(),
        arms: infos.collect(),
        sizes: plan.sizes,
        seed: plan.seed,
        orders,
        visits,
        comparisons,
        failure,
    })
}

fn info(arm: &Arm, visits: &[Visit], side: Side) -> ArmInfo {
    let answers = visits.iter().filter(|visit| visit.side == side).flat_map(|visit| &visit.requests);
    let system_fingerprint =
        answers.map(|request| &request.answer).find_map(|answer| answer.system_fingerprint.clone());
    ArmInfo { system_fingerprint, ..arm.info() }
}

async fn visit_all(
    plan: &LoadPlan,
    orders: &[BlockOrder],
    arms: &mut [Arm],
    prompts: &Prompts,
    mut done: impl FnMut(Visit),
) -> Result<(), LoadError> {
    let mut number = 0;
    let per_visit = plan.scenarios.iter().map(|scenario| scenario.n_prompts(&plan.sizes)).max().unwrap_or(0);
    for (block, order) in orders.iter().enumerate() {
        for scenario in &plan.scenarios {
            let mut n_visits = [0; 2];
            for side in order {
                // The arms get the same prompts in their first visits, and others in their second.
                let mut of_visit = prompts.of_visit(number + n_visits[side.index()], per_visit);
                n_visits[side.index()] += 1;
                let arm = &mut arms[side.index()];
                let visit = match visit(plan, *scenario, arm, &mut of_visit).await {
                    Ok(visit) => visit,
                    Err(error) => return Err(arm.explain(error).await),
                };
                done(Visit { side: *side, block, ..visit });
            }
            number += n_visits[0].max(n_visits[1]);
        }
    }
    Ok(())
}

async fn visit(
    plan: &LoadPlan,
    scenario: Scenario,
    arm: &mut Arm,
    prompts: &mut VisitPrompts<'_>,
) -> Result<Visit, LoadError> {
    let name = scenario.to_string();
    let late = |arm: &Arm| arm.problem(format!("{name} took more than {} s", plan.patience.as_secs()));
    let deadline = tokio::time::Instant::now() + plan.patience;
    let warmed = tokio::time::timeout_at(deadline, arm.warm(prompts)).await;
    warmed.map_err(|_| late(arm))??;
    let (began, before) = (arm.now(), CpuTimes::read(arm.process_id()));
    let outcome = tokio::time::timeout_at(deadline, scenario.run(arm, &plan.sizes, prompts)).await;
    let mut outcome = outcome.map_err(|_| late(arm))??;
    let wall = arm.now().saturating_sub(began);
    // A server that was restarted meanwhile has another process, whose times say nothing.
    let after = CpuTimes::read(arm.process_id());
    let cores = before.zip(after).and_then(|(before, after)| after.cores_since(&before, wall));
    if cores.is_some_and(|(_, others)| others > CONTENTION_CORES) {
        outcome.flags.push(LoadFlag::Contention);
    }
    Ok(Visit {
        scenario: name,
        side: Side::A,
        block: 0,
        wall_s: wall.as_secs_f64(),
        server_cores: cores.map(|(server, _)| server),
        others_cores: cores.map(|(_, others)| others),
        flags: outcome.flags,
        figures: outcome.figures,
        requests: outcome.requests,
    })
}
