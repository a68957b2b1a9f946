//! What a few wild observations do to the rest: scored and compared with, never taken out.

use super::{mean, median};

/// 1.4826 · median |x − median|: the standard deviation of a normal law, deaf to outliers. `None` for no values.
pub fn robust_sd(values: &[f64]) -> Option<f64> {
    let middle = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    Some(1.482_602_218_5 * median(&distances)?)
}

/// How many values are further than 3.5 robust standard deviations from the median (Iglewicz and Hoaglin's limit). With
/// a robust deviation of 0, as where more than half are equal, none is.
pub fn n_outliers(values: &[f64]) -> usize {
    let (Some(middle), Some(sd)) = (median(values), robust_sd(values)) else { return 0 };
    if sd == 0.0 {
        return 0;
    }
    values.iter().filter(|value| (*value - middle).abs() > 3.5 * sd).count()
}

/// The mean without the lowest and the highest value; `None` below five values.
pub fn trimmed_mean(values: &[f64]) -> Option<f64> {
    if values.len() < 5 {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    mean(&sorted[1..sorted.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wild_value_moves_nothing() {
        let values = [1.0, 2.0, 3.0, 4.0, 1e9];
        assert!((robust_sd(&values).unwrap() - 1.482_602_218_5).abs() < 1e-9);
        assert_eq!(n_outliers(&values), 1);
        assert_eq!(trimmed_mean(&values), Some(3.0));
    }

    #[test]
    fn few_or_equal_values() {
        assert_eq!((robust_sd(&[]), n_outliers(&[]), trimmed_mean(&[1.0; 4])), (None, 0, None));
        assert_eq!(n_outliers(&[1.0, 1.0, 1.0, 9.0]), 0, "no scale to score by");
    }
}
