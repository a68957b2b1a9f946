//! How long a run will take, and how many blocks there is time for.

use std::time::Duration;

use super::arm::Arm;
use super::schedule::{Counts, Piloted};
use crate::options::BenchOptions;
use crate::reporter::Reporter;
use crate::work::Sizes;

/// How long things take here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A block of four visits.
    pub(super) block: Duration,
    /// The agreement.
    pub(super) agreement: Duration,
}

/// From the warm-ups; `None` if an arm has none.
pub(super) fn pace(arms: &[Arm; 2], sizes: Sizes, swap: bool) -> Option<Pace> {
    let (mut block, mut agreement) = (0.0, 0.0);
    for arm in arms {
        let visit = arm.warm_up.as_ref()?;
        let (prompt_ns, step_ns) = match (&visit.runner, &visit.engine) {
            (Some(sample), _) => (sample.prefill_ns, &sample.step_ns),
            (None, Some(sample)) => (sample.ttft_ns, &sample.itl_ns),
            (None, None) => return None,
        };
        let per_token = prompt_ns as f64 / 1e9 / sizes.n_prompt as f64;
        let times: Vec<f64> = step_ns.iter().map(|ns| *ns as f64 / 1e9).collect();
        let step = crate::stats::median(&times)?;
        // Both modes, twice; a wash-out at about every second visit, which mostly ends when it may.
        let prompts = (sizes.n_reads * sizes.n_prompt) as f64;
        let visit = 2.0 * (per_token * prompts + step * sizes.n_decode as f64);
        block += 2.0 * visit + step * sizes.n_wash_out as f64 / 2.0;
        if swap {
            // Each arm comes back once in a block, and at about every second one's beginning.
            block += 1.5 * arm.load_time().as_secs_f64();
        }
        agreement += (sizes.n_windows * sizes.window) as f64 * per_token * 1.3; // all heads instead of one
    }
    let duration = |seconds| Duration::try_from_secs_f64(seconds).ok();
    Some(Pace { block: duration(block)?, agreement: duration(agreement)? })
}

/// Cuts the blocks to the time there is, and says so.
pub(super) fn fit(asked: Counts, block: Duration, budget: Duration, reporter: &dyn Reporter) -> Counts {
    let counts = asked.fitted(block, budget);
    if counts != asked {
        let floor = match counts.n_aa {
            0 if asked.n_aa > 0 => ", without a noise floor".to_owned(),
            0 => String::new(),
            n => format!(" and {n} for the noise floor"),
        };
        reporter.note(&format!(
            "a block takes about {} here: {} of {} blocks{floor}, to keep the blocks within {}",
            seconds(block),
            counts.n_ab,
            asked.n_ab,
            seconds(budget.max(counts.time(block))),
        ));
    }
    counts
}

pub(super) fn say_piloted(
    piloted: &Piloted,
    n_here: usize,
    options: &BenchOptions,
    pace: Option<Pace>,
    reporter: &dyn Reporter,
) {
    let time = pace.map(|pace| pace.block.saturating_mul(n_here as u32));
    let shared = match options.n_processes {
        1 => String::new(),
        n => format!(", {n_here} in each of {n} processes"),
    };
    reporter.note(&format!(
        "pilot: blocks of {} vary by {:.1} %; {} blocks resolve {:.1} % with a probability of 80 %{shared}{}",
        piloted.metric.name(),
        100.0 * piloted.log_sd,
        piloted.n_ab,
        100.0 * options.margin,
        time.map_or_else(String::new, |time| {
            format!("; about {}", seconds(time.saturating_mul(options.n_processes)))
        }),
    ));
    if let (Some(time), Some(pace)) = (time, pace) {
        reporter.estimated(time + pace.agreement);
    }
}

/// "3m 20s"; below ten seconds with a decimal.
fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 10.0 => format!("{s:.1}s"),
        s => humantime::format_duration(Duration::from_secs(s.round() as u64)).to_string(),
    }
}
