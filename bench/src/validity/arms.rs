//! What an arm was said to be, against what it was.

use super::{Code, Finding};
use crate::order::Side;
use crate::report::Metric;

/// How far the KV cache that an engine reports may be from the predicted one: 2 %.
pub const KV_TOLERANCE: f64 = 0.02;
/// What an engine's own report may be off by because of how it is written: llama.cpp's log has hundredths of MiB, of up to
/// two buffers. It is more than [`KV_TOLERANCE`] only of caches below half a MiB.
const KV_ROUNDING_BYTES: f64 = 0.01 * (1 << 20) as f64;
/// How much faster than a plain reading of as many bytes a decode step may be: the probe is no perfect one.
const CEILING_TOLERANCE: f64 = 1.25;

/// `ARM`: the loaded model says that it runs on another engine than the one that was asked for.
pub fn proof(side: Side, asked: &str, answered: &str) -> Option<Finding> {
    (asked != answered).then(|| {
        let detail = format!("`{asked}` was asked for and `{answered}` answered");
        Finding::of_run(Code::Arm, Some(side), &Metric::ALL, detail)
    })
}

/// `KV`: prediction and report of the KV cache differ by more than [`KV_TOLERANCE`]. Nothing is said where either is
/// missing.
pub fn kv(side: Side, predicted_bytes: Option<u64>, reported_bytes: Option<u64>) -> Option<Finding> {
    let (predicted, reported) = (predicted_bytes? as f64, reported_bytes? as f64);
    let tolerance = (KV_TOLERANCE * predicted).max(KV_ROUNDING_BYTES);
    ((reported - predicted).abs() > tolerance).then(|| {
        let (predicted, reported) = (predicted / 1e6, reported / 1e6);
        let detail =
            format!("a KV cache of {predicted:.1} MB was predicted, the engine reports {reported:.1} MB");
        Finding::of_run(Code::Kv, Some(side), &Metric::ALL, detail)
    })
}

/// `CEILING`: a decode step of `step_seconds` would have read `bytes` faster than they can be read here, by a probe with
/// as many bytes.
pub fn ceiling(
    side: Side,
    metric: Metric,
    step_seconds: f64,
    bytes: u64,
    bytes_per_second: f64,
) -> Option<Finding> {
    let rate = bytes as f64 / step_seconds;
    (rate > CEILING_TOLERANCE * bytes_per_second).then(|| {
        let detail = format!(
            "{}: a step would have read weights at {:.1} GB/s, and memory gives {:.1}",
            metric.name(),
            rate / 1e9,
            bytes_per_second / 1e9
        );
        Finding::of_run(Code::Ceiling, Some(side), &[metric], detail)
    })
}

/// `NON_FINITE`: an arm's logits were not numbers.
pub fn non_finite(side: Side, error: &str) -> Finding {
    Finding::of_run(Code::NonFinite, Some(side), &Metric::ALL, error.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn limits() {
        assert!(proof(Side::A, "gguf", "gguf").is_none());
        assert_eq!(proof(Side::B, "mlx", "gguf").unwrap().code, Code::Arm);
        assert!(
            kv(Side::A, Some(MB), Some(1_020_000)).is_none()
                && kv(Side::A, Some(MB), Some(980_000)).is_none()
        );
        assert_eq!(kv(Side::A, Some(MB), Some(1_021_000)).unwrap().code, Code::Kv);
        assert_eq!(kv(Side::A, Some(MB), Some(MB / 2)).unwrap().code, Code::Kv);
        // 0.0625 MiB, which llama.cpp writes as 0.06.
        assert!(kv(Side::A, Some(65_536), Some(62_914)).is_none());
        assert_eq!(kv(Side::A, Some(65_536), Some(131_072)).unwrap().code, Code::Kv, "twice is no rounding");
        assert!(kv(Side::A, None, Some(1)).is_none() && kv(Side::A, Some(1), None).is_none());
        let ceiling = |seconds| super::ceiling(Side::A, Metric::DecodeForced, seconds, 1_000_000_000, 1e10);
        assert!(ceiling(0.1).is_none() && ceiling(0.081).is_none());
        assert_eq!(ceiling(0.079).unwrap().code, Code::Ceiling);
    }
}
