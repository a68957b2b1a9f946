//! `e^x` for softmax: branch-free, so that loops over it become vector code, and the same bits on every machine.

/// Adding it to a number below 2^22 rounds to an integer, which then sits in the low bits of the sum.
const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has few enough bits for n * `LN2_HIGH` to be exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Below it the result would be subnormal; 0 is close enough for a probability.
const UNDERFLOW: f32 = -87.3;

/// `e^x` for `x <= 0`, relative error below 2e-7; 0 below -87.3 (minus infinity included), NaN for NaN.
///
/// Range reduction by ln 2 and the polynomial of Cephes' `expf`. No fused multiply-add: the result must not depend
/// on the machine.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let of_r = p * r * r + r + 1.0;
    // 2^n by its exponent bits: `rounded` holds n in its low mantissa bits.
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < UNDERFLOW { 0.0 } else { of_r * scale }
}

/// Partial sums kept apart while adding up weights: one per vector lane, and the order of addition is fixed.
const N_LANES: usize = 16;

/// The sum of `e^((x - max) * scale)` over `values`, added up in f64 at the end of each call only: for short slices.
#[inline]
pub(super) fn sum_exp(values: &[f32], max: f32, scale: f32) -> f64 {
    let mut lanes = [0.0f32; N_LANES];
    let (chunks, rest) = values.as_chunks::<N_LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += exp((value - max) * scale);
        }
    }
    let mut sum: f64 = rest.iter().map(|&value| f64::from(exp((value - max) * scale))).sum();
    for lane in lanes {
        sum += f64::from(lane);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_libm() {
        let mut worst = 0.0f64;
        for step in 0..300_000 {
            let x = -87.3 * (step as f32 / 3e5);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "relative error {worst:e}");
    }

    #[test]
    fn edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(-88.0), 0.0);
        assert!(exp(-87.29) > 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_any_length() {
        for n in [0, 1, 15, 16, 17, 64, 100] {
            let values: Vec<f32> = (0..n).map(|i| -(i as f32) * 0.1).collect();
            let exact: f64 = values.iter().map(|&x| f64::from(x * 0.5).exp()).sum();
            assert!((sum_exp(&values, 0.0, 0.5) - exact).abs() <= 1e-6 * exact, "{n} values");
        }
    }
}
