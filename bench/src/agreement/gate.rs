//! How far apart two arms may compute before a speed of theirs is worth nothing.
//!
//! Without a reference nobody knows which of the two is wrong, so neither can win. The limits are on the mean KL, in nats.
//! Equal values leave rounding only (activations as bytes, a cache of half precision): some thousandths. Published distances
//! of quantised weights from their originals: 0.001 to 0.003 at 8 bits, 0.02 to 0.07 at 4 bits (bench-verdicts.md).

use super::Agreement;
use crate::report::Metric;
use crate::validity::{Code, Finding};
use crate::weights::{Grade, Graded, nominal_bits};

/// The limit of arms with equal weights, or with half-precision or 8-bit ones.
const FINE: f64 = 0.02;
/// That of 5 to 7 bits.
const MIDDLE: f64 = 0.06;
/// That of 4 bits: both arms may be that far from the original, in directions of their own.
const COARSE: f64 = 0.25;
/// That of fewer bits, and of formats whose bits are not known.
const COARSEST: f64 = 1.0;

/// The largest mean KL at which a ratio of speeds counts, for arms of this grade and these formats ("Q4_1").
pub(crate) fn limit(grade: Grade, quantizations: [&str; 2]) -> f64 {
    if matches!(grade, Grade::A | Grade::B) {
        return FINE;
    }
    let [a, b] = quantizations.map(nominal_bits);
    match a.zip(b).map(|(a, b)| a.min(b)) {
        Some(8..) => FINE,
        Some(5..=7) => MIDDLE,
        Some(4) => COARSE,
        _ => COARSEST,
    }
}

/// `FIDELITY`: the arms compute too differently for what they hold. Takes all figures.
pub(crate) fn finding(
    agreement: Option<&Agreement>,
    grade: Option<&Graded>,
    quantizations: [&str; 2],
) -> Option<Finding> {
    let (kl, limit) = (agreement?.kl.mean, limit(grade?.grade, quantizations));
    // A NaN passes no gate.
    (kl.is_nan() || kl > limit).then(|| {
        let detail = format!(
            "the arms' distributions are {kl:.4} nats apart on average, and {limit} are allowed for these formats: \
             one of them computes something else, and a speed of that is worth nothing"
        );
        Finding::of_run(Code::Fidelity, None, &Metric::ALL, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_grade_and_bits() {
        assert_eq!(limit(Grade::A, ["Q2_K", "Q2_K"]), FINE, "equal values leave no excuse");
        assert_eq!(limit(Grade::B, ["Q4_1", "Q4_1"]), FINE);
        assert_eq!(limit(Grade::C, ["Q4_K_M", "affine 4-bit g64"]), COARSE);
        assert_eq!(limit(Grade::D, ["Q8_0", "affine 4-bit g64"]), COARSE, "the coarser of both");
        assert_eq!(limit(Grade::D, ["Q6_K", "BF16"]), MIDDLE);
        assert_eq!(limit(Grade::D, ["F16", "Q8_0"]), FINE);
        assert_eq!(limit(Grade::D, ["IQ2_XS", "F16"]), COARSEST);
        assert_eq!(limit(Grade::D, ["odd", "F16"]), COARSEST);
    }
}
