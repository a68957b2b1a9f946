//! Distances by depth: windows, RoPE scaling and attention sinks fail where the cache is long, and a mean hides it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RowComparison;
use crate::stats::mean;
use crate::stats::ratio::CONFIDENCE;
use crate::stats::student::Estimate;

/// Bands of equal width that a window is cut into, as far as it has tokens.
const N_BANDS: usize = 4;

/// The positions of all windows with so many tokens before them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DepthBand {
    /// Fewest tokens before a position.
    pub from: usize,
    /// Most tokens before a position, this one excluded.
    pub to: usize,
    /// Positions compared.
    pub n_positions: usize,
    /// Share of them at which both arms find the same token the most probable.
    pub top1: f64,
    /// Mean D(A‖B), in nats.
    pub kl_mean: f64,
}

/// A 95 % interval of a mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeanInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The bands of windows of `window` positions each, in order.
pub(super) fn bands(rows: &[RowComparison], window: usize) -> Vec<DepthBand> {
    let width = window.div_ceil(N_BANDS).max(1);
    let band = |from: usize| {
        let to = (from + width).min(window);
        let of_band: Vec<&RowComparison> =
            rows.chunks(window).flat_map(|rows| rows.iter().take(to).skip(from)).collect();
        let n_agree = of_band.iter().filter(|row| row.agrees()).count();
        let kl: Vec<f64> = of_band.iter().map(|row| row.kl).collect();
        let n_positions = of_band.len();
        Some(DepthBand {
            from,
            to,
            n_positions,
            top1: n_agree as f64 / n_positions as f64,
            kl_mean: mean(&kl)?,
        })
    };
    (0..window).step_by(width).filter_map(band).collect()
}

/// The interval of the mean KL by Student's t over windows, since neighbours in a text are alike; `None` below two.
pub(super) fn interval(kl_nats: &[f64], window: usize) -> Option<MeanInterval> {
    let of_windows: Vec<f64> = kl_nats.chunks(window.max(1)).filter_map(mean).collect();
    let (low, high) = Estimate::of(&of_windows)?.interval(CONFIDENCE);
    Some(MeanInterval { low: low.max(0.0), high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kl: f64, agrees: bool) -> RowComparison {
        RowComparison { kl, top_a: 1, top_b: if agrees { 1 } else { 2 }, margin: 0.0, lse_a: 0.0, lse_b: 0.0 }
    }

    #[test]
    fn what_fails_at_depth_is_seen_there() {
        let window = |deep| [row(0.0, true), row(0.0, true), row(0.0, true), row(deep, deep < 0.1)];
        let rows: Vec<_> = [window(0.4), window(0.0)].concat();
        let bands = bands(&rows, 4);
        assert_eq!(
            bands.iter().map(|band| (band.from, band.to)).collect::<Vec<_>>(),
            [(0, 1), (1, 2), (2, 3), (3, 4)]
        );
        assert_eq!((bands[0].kl_mean, bands[0].top1), (0.0, 1.0));
        assert_eq!((bands[3].kl_mean, bands[3].top1, bands[3].n_positions), (0.2, 0.5, 2));
    }

    #[test]
    fn short_windows_have_fewer_bands() {
        assert_eq!(bands(&[row(0.1, true); 2], 2).len(), 2);
        assert_eq!(bands(&[row(0.1, true); 10], 5).iter().map(|band| band.n_positions).sum::<usize>(), 10);
        assert!(bands(&[], 4).is_empty());
    }

    #[test]
    fn windows_are_the_observations() {
        assert_eq!(interval(&[0.1; 4], 4), None, "one window has no interval");
        let found = interval(&[0.1, 0.3, 0.2, 0.2, 0.3, 0.3], 2).unwrap();
        // Means 0.2, 0.2, 0.3: t with 2 degrees is 4.303.
        assert!(
            (found.high - (0.7 / 3.0 + 4.303 * (0.01f64 / 3.0).sqrt() / 3f64.sqrt())).abs() < 1e-3,
            "{found:?}"
        );
        assert!(found.low >= 0.0);
    }
}
