//! Tokens drawn on the device, by the rule of [`duet_core::sampling`].

use duet_core::DeviceSampling;

use crate::tensor::{Result, Tensor};

/// One token per row of `logits`, `[n, n_vocab]`: `[n]` u32, lazy.
///
/// Greedy rows take the best logit, the lowest id of equal ones. Others take the first id at which the cumulative
/// distribution, in order of ids, exceeds their share of its whole mass. Its sums are f32 here and f64 on the host, so that
/// a draw within about 1e-5 of a boundary may fall on the other side.
pub(super) fn draw(logits: &Tensor, draws: &[DeviceSampling]) -> Result<Tensor> {
    if draws.iter().all(|draw| draw.temperature <= 0.0) {
        return logits.argmax();
    }
    if draws.iter().any(|draw| draw.temperature <= 0.0) {
        let n_vocab = logits.len(1);
        let rows = draws.iter().enumerate().map(|(row, one)| {
            draw(&logits.slice(&[row, 0], &[row + 1, n_vocab])?, std::slice::from_ref(one))
        });
        return crate::tensor::concat(&rows.collect::<Result<Vec<_>>>()?, 0);
    }
    let column = |of: fn(&DeviceSampling) -> f32| {
        let values: Vec<f32> = draws.iter().map(of).collect();
        Tensor::from_f32(&values, &[values.len(), 1])
    };
    let (n, n_vocab) = (logits.len(0), logits.len(1));
    let masses = logits.divide(&column(|draw| draw.temperature))?.softmax()?.cumulative_sum()?;
    let whole = masses.slice(&[0, n_vocab - 1], &[n, n_vocab])?;
    let share = whole.multiply(&column(|draw| draw.uniform))?;
    // Rounded up to the whole mass, a share would lie behind the last id that has any.
    masses.count_at_most(&share)?.minimum(&masses.count_below(&whole)?)
}
