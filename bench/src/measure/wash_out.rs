//! Steps that are thrown away after a switch of arms, until the engine runs as it does when it has been running.
//!
//! After a pause clocks have sunk, caches hold the other arm's weights and buffers may have been given back; engines
//! differ in how they keep warm, so without this the order effect depends on the engine.

use duet_core::ModelRunner;
use duet_core::text::TokenId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MeasureError;
use super::runner::Sequence;
use crate::clock::{Clock, nanos};
use crate::stats::median;
use crate::stats::robust::robust_sd;

/// When an engine counts as warm: when the medians of the last `window` steps and of as many before them differ by no
/// more than `tolerance`, or by no more than steps of that spread let expect. Without the second, a machine on which
/// steps vary by 5 % would never be warm, and what has to be waited for is the end of a change, not of the noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WashOutRule {
    /// Steps compared with as many before them. At least 1.
    pub window: usize,
    /// The medians of the two windows differ by no more than this share.
    pub tolerance: f64,
    /// Give up after so many steps; 0: no wash-out.
    pub max_steps: usize,
}

/// What a wash-out took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WashOut {
    /// Times of the discarded steps.
    pub step_ns: Vec<u64>,
    /// Whether the rule was met before `max_steps`.
    pub steady: bool,
}

/// Decodes `ids` one by one from an empty cache until the rule is met, and releases the sequence. Call it on the
/// runner's thread.
///
/// # Errors
/// As [`super::measure_runner`]; `Work` if there are fewer than `max_steps` + 1 ids.
pub fn wash_out(
    runner: &mut dyn ModelRunner,
    ids: &[TokenId],
    rule: &WashOutRule,
    clock: &dyn Clock,
) -> Result<WashOut, MeasureError> {
    if rule.max_steps == 0 {
        return Ok(WashOut { step_ns: Vec::new(), steady: true });
    }
    if ids.len() <= rule.max_steps {
        let message = format!("a wash-out of up to {} steps from {} ids", rule.max_steps, ids.len());
        return Err(MeasureError::Work { message });
    }
    let mut sequence = Sequence::begin(runner)?;
    let chunk = 1;
    sequence.prefill(&ids[..1], chunk)?;
    let mut step_ns = Vec::with_capacity(rule.max_steps);
    let mut steady = false;
    for id in &ids[1..=rule.max_steps] {
        let started = clock.now();
        sequence.step(*id)?;
        step_ns.push(nanos(clock.now().saturating_sub(started)));
        if is_steady(&step_ns, rule) {
            steady = true;
            break;
        }
    }
    Ok(WashOut { step_ns, steady })
}

/// Whether the last window's median is the one before it, within tolerance or noise.
fn is_steady(step_ns: &[u64], rule: &WashOutRule) -> bool {
    let window = rule.window.max(1);
    let Some(start) = step_ns.len().checked_sub(2 * window) else { return false };
    let tail: Vec<f64> = step_ns[start..].iter().map(|ns| *ns as f64).collect();
    let (before, last) = tail.split_at(window);
    let (Some(from), Some(to)) = (median(before), median(last)) else { return false };
    // The standard error of a median is 1.2533 times a mean's; of a difference, √2 times that. Twice it.
    let spread = robust_sd(before).zip(robust_sd(last)).map_or(0.0, |(a, b)| f64::midpoint(a, b));
    let noise = 2.0 * 1.2533 * spread * (2.0 / window as f64).sqrt();
    (to - from).abs() <= (rule.tolerance * from).max(noise)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: WashOutRule = WashOutRule { window: 4, tolerance: 0.02, max_steps: 64 };

    #[test]
    fn steady_is_two_windows_alike() {
        assert!(!is_steady(&[100; 7], &RULE), "too few steps");
        assert!(is_steady(&[100; 8], &RULE));
        assert!(
            is_steady(&[900, 500, 300, 100, 100, 100, 101, 100, 101, 102, 101], &RULE),
            "only the tail counts"
        );
        assert!(!is_steady(&[100, 100, 100, 100, 103, 103, 103, 103], &RULE));
        assert!(!is_steady(&[103, 103, 103, 103, 100, 100, 100, 100], &RULE), "faster is not steady either");
    }

    #[test]
    fn noise_is_no_change() {
        let noisy = [100, 93, 108, 96, 104, 110, 99, 111];
        assert!(is_steady(&noisy, &RULE), "medians 98 and 107, but steps vary by as much");
        let falling: Vec<u64> = (0..16).map(|step| 200 - 6 * step).collect();
        let rule = WashOutRule { window: 8, ..RULE };
        assert!(!is_steady(&falling, &rule), "a change is one, however smooth");
        assert!(is_steady(
            &[&falling[..], &[104, 109, 99, 106, 103, 98, 105, 101].repeat(2)].concat(),
            &rule
        ));
    }
}
