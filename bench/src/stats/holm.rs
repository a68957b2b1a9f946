//! Many tests at once: Holm's procedure, which holds the chance of any false claim among them at the level.

/// For each p-value whether it is significant at `level` among all of them. NaN never is.
pub fn holm(p_values: &[f64], level: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut significant = vec![false; p_values.len()];
    for (rank, index) in order.into_iter().enumerate() {
        let at_most = level / (p_values.len() - rank) as f64;
        if p_values[index].is_nan() || p_values[index] > at_most {
            break;
        }
        significant[index] = true;
    }
    significant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_has_the_hardest_test() {
        assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005], 0.05), [true, false, false, true]);
        assert_eq!(holm(&[0.02, 0.03], 0.05), [true, true]);
        assert_eq!(holm(&[0.03, 0.001, f64::NAN], 0.05), [false, true, false]);
        assert!(holm(&[], 0.05).is_empty());
    }
}
