//! Student's t for the mean of a few observations: interval, test, and how many observations a question takes.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{mean, standard_deviation};

/// A mean and how well it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Degrees of freedom that the error was estimated with; at least 1.
    pub degrees: f64,
}

impl Estimate {
    /// From independent observations; `None` below two, or if one is not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let n = values.len() as f64;
        Some(Self {
            mean: mean(values)?,
            standard_error: standard_deviation(values)? / n.sqrt(),
            degrees: n - 1.0,
        })
    }

    /// The difference `self − other` of independent estimates, with Welch's degrees of freedom.
    pub fn minus(&self, other: &Estimate) -> Estimate {
        let (v1, v2) = (self.standard_error.powi(2), other.standard_error.powi(2));
        let shares = v1.powi(2) / self.degrees + v2.powi(2) / other.degrees;
        // Without any spread every number of degrees gives the same interval.
        let degrees = if shares > 0.0 { (v1 + v2).powi(2) / shares } else { self.degrees.min(other.degrees) };
        Estimate { mean: self.mean - other.mean, standard_error: (v1 + v2).sqrt(), degrees }
    }

    /// Lower and upper end of the two-sided interval of this coverage, 0 < `confidence` < 1.
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let half = t_quantile(0.5 + confidence / 2.0, self.degrees) * self.standard_error;
        (self.mean - half, self.mean + half)
    }

    /// Two-sided p-value of "the true mean is `at`".
    pub fn p_value(&self, at: f64) -> f64 {
        let distance = (self.mean - at).abs();
        if self.standard_error == 0.0 {
            return if distance == 0.0 { 1.0 } else { 0.0 };
        }
        match StudentsT::new(0.0, 1.0, self.degrees) {
            Ok(t) => 2.0 * t.sf(distance / self.standard_error),
            Err(_) => 1.0,
        }
    }
}

/// The `p`-quantile of Student's distribution with so many degrees of freedom; NaN without any.
pub fn t_quantile(p: f64, degrees: f64) -> f64 {
    StudentsT::new(0.0, 1.0, degrees).map_or(f64::NAN, |t| t.inverse_cdf(p))
}

/// The fewest observations with which a two-sided test at 5 % finds a mean of `difference` with a probability of 80 %,
/// when single observations have the standard deviation `sd`: least n with (t₀.₉₇₅ + t₀.₈)·sd/√n ≤ difference, which is
/// within one of the exact answer by the noncentral t. `None` beyond `most`, and for a difference of 0.
pub fn observations_for(difference: f64, sd: f64, most: usize) -> Option<usize> {
    least(difference, sd, [0.975, 0.8], most)
}

/// The fewest observations with which the 90 % interval of a mean that is truly `distance` away from the nearer limit
/// lies inside the limits with a probability of 80 % (both limits at that distance). `None` as above.
pub fn observations_to_fit(distance: f64, sd: f64, most: usize) -> Option<usize> {
    least(distance, sd, [0.95, 0.9], most)
}

fn least(difference: f64, sd: f64, quantiles: [f64; 2], most: usize) -> Option<usize> {
    let enough = |n: usize| {
        let degrees = (n - 1) as f64;
        let t: f64 = quantiles.iter().map(|p| t_quantile(*p, degrees)).sum();
        t * sd <= difference.abs() * (n as f64).sqrt()
    };
    if difference == 0.0 || !difference.is_finite() || !sd.is_finite() || most < 2 || !enough(most) {
        return None;
    }
    let (mut low, mut high) = (1, most); // `high` is enough, `low` is not (or is too few to ask)
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_the_tables() {
        for (p, degrees, t) in
            [(0.975, 4.0, 2.7764), (0.975, 1.0, 12.7062), (0.95, 7.0, 1.8946), (0.8, 9.0, 0.8834)]
        {
            assert!((t_quantile(p, degrees) - t).abs() < 5e-5, "{p} {degrees}");
        }
    }

    #[test]
    fn the_plan_of_the_method() {
        // 80 % power at 5 % two-sided: sd, then (difference, blocks), by the noncentral t.
        let table: [(f64, &[(f64, usize)]); 3] = [
            (0.01, &[(0.01, 10), (0.02, 5)]),
            (0.02, &[(0.01, 34), (0.02, 10), (0.05, 4)]),
            (0.05, &[(0.01, 200), (0.02, 52), (0.05, 11), (0.10, 5)]),
        ];
        for (sd, cells) in table {
            for &(difference, n) in cells {
                let found = observations_for(f64::ln_1p(difference), sd, 1000).unwrap();
                assert!(found.abs_diff(n) <= 1, "sd {sd}, difference {difference}: {found}, not {n}");
            }
        }
    }

    #[test]
    fn the_least_is_the_least() {
        let n = observations_for(0.02, 0.02, 1000).unwrap();
        assert_eq!(observations_for(0.02, 0.02, n), Some(n));
        assert_eq!(observations_for(0.02, 0.02, n - 1), None);
        assert_eq!(observations_for(0.0, 0.02, 1000), None);
        assert_eq!(observations_for(f64::NAN, 0.02, 1000), None);
        assert_eq!(observations_for(0.01, 0.0, 1000), Some(2), "without spread two show it");
        assert_eq!(observations_for(0.01, 0.01, 1), None);
        assert!(observations_to_fit(0.03, 0.1, 1000) > observations_for(0.03, 0.1, 1000));
    }

    #[test]
    fn welch_by_hand() {
        let a = Estimate { mean: 1.0, standard_error: 0.3, degrees: 4.0 };
        let b = Estimate { mean: 0.5, standard_error: 0.4, degrees: 9.0 };
        let found = a.minus(&b);
        // 0.25² / (0.09²/4 + 0.16²/9)
        assert!((found.mean - 0.5).abs() < 1e-12 && (found.standard_error - 0.5).abs() < 1e-12);
        assert!((found.degrees - 0.0625 / (0.0081 / 4.0 + 0.0256 / 9.0)).abs() < 1e-9);
        let still = Estimate { standard_error: 0.0, ..a };
        assert_eq!(still.minus(&still), Estimate { mean: 0.0, ..still });
    }

    #[test]
    fn p_values() {
        let found = Estimate { mean: 2.7764, standard_error: 1.0, degrees: 4.0 };
        assert!((found.p_value(0.0) - 0.05).abs() < 1e-5);
        let exact = Estimate { standard_error: 0.0, ..found };
        assert_eq!((exact.p_value(0.0), exact.p_value(2.7764)), (0.0, 1.0));
        assert_eq!(Estimate::of(&[1.0]), None);
        assert_eq!(Estimate::of(&[1.0, f64::NAN]), None);
    }
}
