//! How far both arms are from a third model that is taken as right: the unquantised file, for instance. With it a distance
//! between the arms can be laid at the door of one of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gate::limit;
use super::{Agreement, MeanInterval};
use crate::order::Side;
use crate::report::Metric;
use crate::validity::{Code, Finding};
use crate::weights::Grade;

/// A reference, and each arm against it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reference {
    /// The model's path.
    pub path: String,
    /// The engine that computed it.
    pub engine: String,
    /// How most of its weights are stored.
    pub quantization: String,
    /// The reference (as A) against arm A, and against arm B.
    pub agreements: Vec<Agreement>,
}

impl Reference {
    /// `FIDELITY` of the first arm that is further from the reference than its format explains. Takes all figures: a speed of
    /// something else wins nothing.
    pub(crate) fn finding(&self, quantizations: [&str; 2]) -> Option<Finding> {
        Side::BOTH.into_iter().zip(quantizations).zip(&self.agreements).find_map(|((side, held), found)| {
            let (kl, limit) = (found.kl.mean, limit(Grade::D, [held, &self.quantization]));
            // A NaN passes no gate.
            (kl.is_nan() || kl > limit).then(|| {
                let detail = format!(
                    "{kl:.4} nats from the reference ({}) on average, and {limit} are allowed for {held}",
                    self.quantization
                );
                Finding::of_run(Code::Fidelity, Some(side), &Metric::ALL, detail)
            })
        })
    }

    /// A sentence for each arm.
    pub(crate) fn lines(&self, labels: [&str; 2]) -> Vec<String> {
        let line = |(label, found): (&str, &Agreement)| {
            let interval = found
                .kl_interval
                .map_or_else(String::new, |MeanInterval { low, high }| format!(" [{low:.5}, {high:.5}]"));
            format!(
                "fidelity of {label}: KL(reference ‖ {label}) mean {:.5}{interval}, p99 {:.4} nats, top-1 {:.1} % of {} positions; \
                 perplexity {:.3}, the reference's {:.3} ({} on {}, {})",
                found.kl.mean,
                found.kl.p99,
                100.0 * found.top1.share,
                found.n_positions,
                found.perplexity_b,
                found.perplexity_a,
                self.path,
                self.engine,
                self.quantization,
            )
        };
        labels.into_iter().zip(&self.agreements).map(line).collect()
    }
}
