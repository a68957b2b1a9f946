//! Two rows of logits compared: one position of a teacher-forced text.

use duet_core::text::TokenId;

/// A row has a NaN or a +∞ in it, or nothing but −∞.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the logits of arm {arm} are not finite")]
pub struct NonFinite {
    /// "A" or "B".
    pub arm: &'static str,
}

/// One position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowComparison {
    /// D(A‖B) = Σ p_A·(ln p_A − ln p_B) in nats; +∞ where B rules out what A does not.
    pub kl: f64,
    /// The most probable token of A; of equals the lowest id.
    pub top_a: TokenId,
    /// The most probable token of B.
    pub top_b: TokenId,
    /// ln p_A(top_a) − ln p_A(top_b): what A would lose by B's choice, in nats. 0 where they agree.
    pub margin: f64,
    /// ln Σ exp(logit) of A.
    pub lse_a: f64,
    /// ln Σ exp(logit) of B.
    pub lse_b: f64,
}

impl RowComparison {
    /// Whether both find the same token the most probable.
    pub fn agrees(&self) -> bool {
        self.top_a == self.top_b
    }
}

/// Compares two rows of the same length `[n_vocab]`; all sums in f64.
///
/// # Errors
/// [`NonFinite`], A first. A logit of −∞ (a token ruled out) is fine.
///
/// # Panics
/// If the rows differ in length or are empty: a bug of the caller.
pub fn compare_rows(a: &[f32], b: &[f32]) -> Result<RowComparison, NonFinite> {
    assert!(a.len() == b.len() && !a.is_empty(), "rows of {} and {} logits", a.len(), b.len());
    let (top_a, max_a) = top(a).ok_or(NonFinite { arm: "A" })?;
    let (top_b, max_b) = top(b).ok_or(NonFinite { arm: "B" })?;
    let (max_a, max_b) = (f64::from(max_a), f64::from(max_b));
    let (mut sum_a, mut sum_b, mut cross) = (0.0, 0.0, 0.0);
    for (&logit_a, &logit_b) in a.iter().zip(b) {
        let (logit_a, logit_b) = (f64::from(logit_a), f64::from(logit_b));
        let exp_a = (logit_a - max_a).exp();
        sum_a += exp_a;
        sum_b += (logit_b - max_b).exp();
        if exp_a > 0.0 {
            cross += exp_a * (logit_a - logit_b);
        }
    }
    let (lse_a, lse_b) = (max_a + f64::ln(sum_a), max_b + f64::ln(sum_b));
    // Never negative in exact arithmetic; rounding leaves some −1e-16 on equal rows.
    let kl = (cross / sum_a - lse_a + lse_b).max(0.0);
    let margin = f64::from(a[top_a as usize]) - f64::from(a[top_b as usize]);
    Ok(RowComparison { kl, top_a, top_b, margin, lse_a, lse_b })
}

/// The highest logit and the lowest id that has it; `None` if the row is empty, holds a NaN or a +∞, or only −∞.
fn top(row: &[f32]) -> Option<(TokenId, f32)> {
    let id = argmax(row)?;
    let max = row[id as usize];
    max.is_finite().then_some((id, max))
}

/// The id of the highest logit, the lowest one among equals; `None` for an empty row or one with a NaN.
///
/// Sixteen running maxima side by side, so that the compiler can use vectors: this is inside of timed steps.
pub fn argmax(row: &[f32]) -> Option<TokenId> {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut saw_nan = [false; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for lane in 0..16 {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
            saw_nan[lane] |= chunk[lane].is_nan();
        }
    }
    if saw_nan.contains(&true) || rest.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter().position(|logit| *logit == max).and_then(|id| TokenId::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn distributions_made_by_hand() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): D = ln 2 · (1/2 − 1/4)
        let row = |p: [f32; 3]| p.map(f32::ln);
        let found = compare_rows(&row([0.5, 0.25, 0.25]), &row([0.25, 0.5, 0.25])).unwrap();
        near(found.kl, 0.25 * std::f64::consts::LN_2);
        assert_eq!((found.top_a, found.top_b, found.agrees()), (0, 1, false));
        near(found.margin, std::f64::consts::LN_2);
        near(found.lse_a, 0.0);
        // A coin of 0.9 against a fair one: 0.9·ln 1.8 + 0.1·ln 0.2
        let found = compare_rows(&[0.9f32.ln(), 0.1f32.ln()], &[7.0, 7.0]).unwrap();
        near(found.kl, 0.368_064_207);
        near(found.lse_b, 7.0 + std::f64::consts::LN_2);
        assert_eq!(found.top_b, 0, "of equals the lowest id");
    }

    #[test]
    fn logits_have_no_zero_point() {
        let (a, b) = ([1.0, 2.0, 3.0], [1001.0, 1002.0, 1003.0]);
        let found = compare_rows(&a, &b).unwrap();
        near(found.kl, 0.0);
        assert!(found.agrees());
    }

    #[test]
    fn small_distances_are_resolved() {
        // Second order: D ≈ var_p(δ)/2; δ = ±1e-4 on a fair coin gives 5e-9.
        let found = compare_rows(&[1.0, 1.0], &[1.0001, 0.9999]).unwrap();
        assert!((found.kl - 5e-9).abs() < 1e-11, "{}", found.kl);
    }

    #[test]
    fn ruled_out_tokens() {
        let out = f32::NEG_INFINITY;
        near(compare_rows(&[0.0, out], &[0.0, out]).unwrap().kl, 0.0);
        near(compare_rows(&[0.0, out], &[0.0, 0.0]).unwrap().kl, std::f64::consts::LN_2);
        assert_eq!(compare_rows(&[0.0, 0.0], &[0.0, out]).unwrap().kl, f64::INFINITY);
    }

    #[test]
    fn rows_that_are_not_finite_are_named() {
        let good = [0.0, 1.0];
        for bad in [[0.0, f32::NAN], [f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY; 2]] {
            assert_eq!(compare_rows(&bad, &good), Err(NonFinite { arm: "A" }));
            assert_eq!(compare_rows(&good, &bad), Err(NonFinite { arm: "B" }));
        }
        assert_eq!(argmax(&[]), None);
    }

    proptest! {
        #[test]
        fn argmax_is_the_first_highest(row in prop::collection::vec(-3i8..3, 1..70)) {
            let row: Vec<f32> = row.into_iter().map(f32::from).collect();
            let mut best = 0;
            for (id, logit) in row.iter().enumerate() {
                if *logit > row[best] { best = id; }
            }
            prop_assert_eq!(argmax(&row), Some(best as TokenId));
        }

        #[test]
        fn a_nan_anywhere_is_seen(n in 1usize..70, at in 0usize..70) {
            let mut row = vec![1.0; n];
            row[at % n] = f32::NAN;
            prop_assert_eq!(argmax(&row), None);
        }

        #[test]
        fn the_distance_is_never_negative_and_zero_to_oneself(
            a in prop::collection::vec(-30f32..30.0, 40), b in prop::collection::vec(-30f32..30.0, 40),
        ) {
            prop_assert!(compare_rows(&a, &b).unwrap().kl >= 0.0);
            let own = compare_rows(&a, &a).unwrap();
            prop_assert!(own.kl < 1e-13 && own.agrees());
        }
    }
}
