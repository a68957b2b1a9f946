//! Statistics as pure functions: no clock, no engine, no report.
//!
//! A measurement is reduced in steps, and raw samples are kept beside each of them: steps → the median of a request →
//! the log-ratio of a block ([`ratio`]) → the interval over blocks or processes ([`restarts`]) → the verdict
//! ([`verdict`]). What tells whether a measurement may be believed at all is in [`crate::validity`].

pub mod holm;
pub mod parts;
pub mod proportion;
pub mod ratio;
pub mod restarts;
pub mod robust;
pub mod series;
pub mod student;
pub mod verdict;

/// The arithmetic mean; `None` for no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation with n − 1 in the denominator; `None` below two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values)?;
    let sum: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((sum / (values.len() - 1) as f64).sqrt())
}

/// The `p`-quantile, 0 ≤ p ≤ 1, linear between order statistics (Hyndman and Fan's type 7); `None` for no values, and
/// for a `p` out of range. NaN sorts above all numbers.
pub fn quantile(values: &[f64], p: f64) -> Option<f64> {
    if values.is_empty() || !(0.0..=1.0).contains(&p) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = p * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    // Not below + t·(above − below) alone: that is NaN between two infinities.
    Some(if below == above { below } else { below + (at - at.floor()) * (above - below) })
}

/// The middle value; `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_values_have_no_statistics() {
        assert_eq!((mean(&[]), median(&[]), standard_deviation(&[])), (None, None, None));
        assert_eq!(standard_deviation(&[1.0]), None);
    }

    #[test]
    fn the_quantile_is_linear_between_order_statistics() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), Some(2.5));
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert!((quantile(&values, 0.9).unwrap() - 3.7).abs() < 1e-12);
        assert_eq!(quantile(&values, 1.1), None);
        assert_eq!(quantile(&values, f64::NAN), None);
        assert_eq!(quantile(&[f64::INFINITY, f64::INFINITY], 0.5), Some(f64::INFINITY));
    }

    #[test]
    fn the_deviation_divides_by_n_minus_one() {
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert!((standard_deviation(&values).unwrap() - 2.138_089_935).abs() < 1e-9);
    }
}
