//! What an engine's own library reaches here: the rate at which it streams matrices past one row, and at which it multiplies
//! them with many. The model's steps are held against it.

use std::sync::Arc;

use duet_core::{BackendError, LoadedModel, ProductTiming, ProductWork};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exclusive::exclusive;

/// No pass streams more: beyond every cache the rate no longer depends on the size.
const MOST_STREAMED: u64 = 256 << 20;
/// Products of many rows are bound by arithmetic; a few matrices tell as much as all.
const MULTIPLIED: u64 = 8 << 20;

/// The rates of an engine's library, with matrices like those that the model has most of, measured in the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LibraryRates {
    /// The operation on one row, with form and shape of the matrices.
    pub stream: String,
    /// Bytes of matrices per second that go past one row, as in decoding.
    pub stream_bytes_per_second: f64,
    /// The operation on many rows.
    pub gemm: String,
    /// Rows of it.
    pub gemm_rows: u32,
    /// Operations per second of it: two for each weight and row.
    pub gemm_flops_per_second: f64,
}

impl LibraryRates {
    /// With one row and with `n_rows`, through about `step_bytes` of matrices; nothing else may run on the model.
    ///
    /// # Errors
    /// `Unsupported` of an engine that does not offer it, and what its library says.
    pub(crate) async fn measure(
        model: &Arc<dyn LoadedModel>,
        step_bytes: u64,
        n_rows: u32,
    ) -> Result<Self, BackendError> {
        let timed = exclusive(model, move |runner| {
            let one = ProductWork { n_rows: 1, n_bytes: step_bytes.min(MOST_STREAMED) };
            let many = ProductWork { n_rows, n_bytes: step_bytes.min(MULTIPLIED) };
            Ok::<_, BackendError>((runner.time_products(one)?, runner.time_products(many)?))
        });
        let (one, many) = timed.await??;
        Self::of(one, many, n_rows).ok_or_else(|| BackendError::engine("time products", "no time passed"))
    }

    fn of(one: ProductTiming, many: ProductTiming, n_rows: u32) -> Option<Self> {
        let seconds = |timing: &ProductTiming| Some(timing.time.as_secs_f64()).filter(|s| *s > 0.0);
        Some(Self {
            stream_bytes_per_second: one.n_bytes as f64 / seconds(&one)?,
            gemm_flops_per_second: 2.0 * many.n_weights as f64 * f64::from(n_rows) / seconds(&many)?,
            stream: one.what,
            gemm: many.what,
            gemm_rows: n_rows,
        })
    }

    /// The better of each: something else may have slowed one measurement down.
    pub(crate) fn or_better(self, other: Self) -> Self {
        let stream = self.stream_bytes_per_second.max(other.stream_bytes_per_second);
        let gemm = self.gemm_flops_per_second.max(other.gemm_flops_per_second);
        Self { stream_bytes_per_second: stream, gemm_flops_per_second: gemm, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn timing(ms: u64) -> ProductTiming {
        let time = Duration::from_millis(ms);
        ProductTiming { what: "a product".into(), n_weights: 1_000_000, n_bytes: 600_000, time }
    }

    #[test]
    fn rates_are_of_bytes_and_of_operations() {
        let found = LibraryRates::of(timing(1), timing(10), 512).unwrap();
        assert!((found.stream_bytes_per_second / 6e8 - 1.0).abs() < 1e-12);
        assert!((found.gemm_flops_per_second / 1.024e11 - 1.0).abs() < 1e-12);
        let slower = LibraryRates::of(timing(2), timing(5), 512).unwrap();
        let best = found.clone().or_better(slower);
        assert!((best.stream_bytes_per_second / 6e8 - 1.0).abs() < 1e-12);
        assert!((best.gemm_flops_per_second / 2.048e11 - 1.0).abs() < 1e-12);
        assert_eq!(LibraryRates::of(timing(0), timing(1), 512), None, "no time is no rate");
    }
}
