//! How fast requests end, for telling a client when to come back.

use std::time::{Duration, Instant};

/// Weight of the newest interval.
const SMOOTHING: f64 = 0.2;

/// The mean time between two ends while there was something to do.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    last: Option<Instant>,
    mean_s: Option<f64>,
}

impl DrainRate {
    /// A request ended.
    pub(super) fn ended(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let interval = now.saturating_duration_since(last).as_secs_f64();
            let mean = self.mean_s.unwrap_or(interval);
            self.mean_s = Some(mean + SMOOTHING * (interval - mean));
        }
    }

    /// Nothing is left to do: the time until the next request says nothing about the rate.
    pub(super) fn idle(&mut self) {
        self.last = None;
    }

    /// Time from one end to the next; `None` before two requests ended in a row.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.mean_s.map(Duration::from_secs_f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_does_not_count() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut rate = DrainRate::default();
        rate.ended(at(0));
        assert_eq!(rate.interval(), None);
        rate.ended(at(100));
        assert_eq!(rate.interval(), Some(Duration::from_millis(100)));
        rate.idle();
        rate.ended(at(100_000));
        assert_eq!(rate.interval(), Some(Duration::from_millis(100)));
        rate.ended(at(100_600));
        assert_eq!(rate.interval(), Some(Duration::from_millis(200)));
    }
}
