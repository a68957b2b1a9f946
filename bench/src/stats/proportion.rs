//! Shares of positions, with Wilson's interval: right near 0 % and 100 %, where the textbook interval is not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

/// A share with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proportion {
    /// How many had the property.
    pub n_yes: u64,
    /// Of how many.
    pub n: u64,
    /// `n_yes / n`.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Nominal coverage of the interval (0.95).
    pub confidence: f64,
}

/// The share `n_yes / n` with Wilson's score interval; `None` without observations, for more successes than
/// observations, or a confidence outside of (0, 1). Takes the observations as independent.
pub fn wilson(n_yes: u64, n: u64, confidence: f64) -> Option<Proportion> {
    if n == 0 || n_yes > n || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let z = Normal::standard().inverse_cdf(0.5 + confidence / 2.0);
    let (total, share) = (n as f64, n_yes as f64 / n as f64);
    let z2 = z * z;
    let scale = 1.0 + z2 / total;
    let centre = (share + z2 / (2.0 * total)) / scale;
    let half = z / scale * (share * (1.0 - share) / total + z2 / (4.0 * total * total)).sqrt();
    // At 0 and n the bound is exactly 0 or 1; rounding leaves 1e-17 beside it.
    let low = if n_yes == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if n_yes == n { 1.0 } else { (centre + half).min(1.0) };
    Some(Proportion { n_yes, n, share, low, high, confidence })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(n_yes: u64, n: u64, low: f64, high: f64) {
        let found = wilson(n_yes, n, 0.95).unwrap();
        assert!((found.low - low).abs() < 5e-5 && (found.high - high).abs() < 5e-5, "{found:?}");
    }

    #[test]
    fn published_values() {
        // Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        check(81, 263, 0.2553, 0.3662);
        check(15, 148, 0.0624, 0.1605);
        check(0, 20, 0.0, 0.1611);
        check(1, 29, 0.0061, 0.1718);
        check(29, 29, 0.8830, 1.0);
    }

    #[test]
    fn nonsense_has_no_interval() {
        assert_eq!(wilson(0, 0, 0.95), None);
        assert_eq!(wilson(3, 2, 0.95), None);
        assert_eq!(wilson(1, 2, 1.0), None);
        assert_eq!(wilson(1, 2, f64::NAN), None);
    }
}
