//! The teacher-forced pass: a window on A, its logits kept; the same window on B, compared row by row as it comes.
//!
//! Memory is bounded by one window of A's logits, `[window, n_vocab]` f32. The arms take turns and are not streamed
//! side by side, because two models of one engine may share a thread.

use std::sync::Arc;

use duet_core::LoadedModel;
use duet_core::text::TokenId;

use super::{Agreement, NonFinite, Positions, compare_rows};
use crate::exclusive::exclusive;
use crate::measure::{MeasureError, Sequence};
use crate::order::Side;
use crate::reporter::{Phase, Reporter};
use crate::work::Work;

/// Tokens of a step that asks for all logits: bounds the engine's own output buffer.
const STEP: u32 = 128;

/// Sizes of the pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AgreementWork {
    pub(crate) n_windows: usize,
    pub(crate) window: usize,
}

/// Why there is no agreement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgreementError {
    /// An arm failed; nothing more can be expected of it.
    #[error("arm {} failed", side.name())]
    Arm {
        /// Which.
        side: Side,
        /// How.
        source: MeasureError,
    },
    /// The logits cannot be compared.
    #[error("window {window}, position {position}: {source}")]
    Rows {
        /// Which window.
        window: usize,
        /// Which of its positions.
        position: usize,
        /// What is wrong with them.
        source: NonFinite,
    },
    /// There was nothing to compare.
    #[error("no position was compared")]
    Empty,
}

/// Compares the arms over the windows of `work`.
pub(crate) async fn run(
    models: [&Arc<dyn LoadedModel>; 2],
    work: &Work,
    sizes: AgreementWork,
    reporter: &dyn Reporter,
) -> Result<Agreement, AgreementError> {
    let mut widths = [0; 2];
    for side in Side::BOTH {
        let width = exclusive(models[side.index()], |runner| runner.n_vocab()).await;
        widths[side.index()] = width.map_err(|error| AgreementError::Arm { side, source: error.into() })?;
    }
    let n_vocab = widths[0].min(widths[1]);
    let mut positions = Positions::default();
    let mut buffer = Vec::new();
    let total = 2 * sizes.n_windows as u64;
    for window in 0..sizes.n_windows {
        reporter.progress(&Phase::Agreement, 2 * window as u64, total);
        let ids = work.window(window, sizes.window);
        let for_a = ids.clone();
        buffer = exclusive(models[0], move |runner| {
            buffer.clear();
            Sequence::begin(runner)?
                .score(&for_a, STEP, |_, row| buffer.extend_from_slice(&row[..n_vocab]))?;
            Ok(buffer)
        })
        .await
        .map_err(MeasureError::from)
        .and_then(|result| result)
        .map_err(|source| AgreementError::Arm { side: Side::A, source })?;
        reporter.progress(&Phase::Agreement, 2 * window as u64 + 1, total);
        let compared = exclusive(models[1], move |runner| {
            let mut rows = Vec::with_capacity(ids.len());
            let mut nlls = Vec::with_capacity(ids.len());
            Sequence::begin(runner)?.score(&ids, STEP, |index, row_b| {
                let (row_a, row_b) = (&buffer[index * n_vocab..(index + 1) * n_vocab], &row_b[..n_vocab]);
                let compared = compare_rows(row_a, row_b);
                if let (Ok(compared), Some(&next)) = (&compared, ids.get(index + 1)) {
                    nlls.push(next_nll(row_a, compared.lse_a, next).zip(next_nll(
                        row_b,
                        compared.lse_b,
                        next,
                    )));
                }
                rows.push(compared);
            })?;
            Ok((buffer, rows, nlls))
        })
        .await
        .map_err(MeasureError::from)
        .and_then(|result: Result<_, MeasureError>| result)
        .map_err(|source| AgreementError::Arm { side: Side::B, source })?;
        let (returned, rows, nlls) = compared;
        buffer = returned;
        for (position, row) in rows.into_iter().enumerate() {
            let row =
                row.and_then(|row| if row.kl.is_finite() { Ok(row) } else { Err(NonFinite { arm: "B" }) });
            positions.rows.push(row.map_err(|source| AgreementError::Rows { window, position, source })?);
        }
        for (nll_a, nll_b) in nlls.into_iter().flatten() {
            positions.nll_a.push(nll_a);
            positions.nll_b.push(nll_b);
        }
    }
    reporter.progress(&Phase::Agreement, total, total);
    positions.summary(sizes.n_windows, sizes.window, n_vocab).ok_or(AgreementError::Empty)
}

/// −ln p(next), or `None` where the row does not reach that id.
fn next_nll(row: &[f32], lse: f64, next: TokenId) -> Option<f64> {
    row.get(next as usize).map(|logit| lse - f64::from(*logit))
}
