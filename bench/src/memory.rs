//! What the process itself weighs, as the system counts it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process's memory at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Footprint {
    /// Resident pages, shared ones in full.
    pub rss_bytes: u64,
    /// Resident pages, shared ones by share.
    pub pss_bytes: u64,
    /// Of the resident pages, those of no file: heap, buffers, weights that were copied.
    pub anonymous_bytes: u64,
}

/// By how much a footprint grew; negative where memory was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FootprintDelta {
    /// See [`Footprint::rss_bytes`].
    pub rss_bytes: i64,
    /// See [`Footprint::pss_bytes`].
    pub pss_bytes: i64,
    /// See [`Footprint::anonymous_bytes`].
    pub anonymous_bytes: i64,
}

impl Footprint {
    /// This process now; `None` where the system has no /proc/self/smaps_rollup.
    pub fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/smaps_rollup").ok()?)
    }

    /// From the text of /proc/PID/smaps_rollup; `None` if a figure is missing or is not in kB.
    pub fn parse(text: &str) -> Option<Self> {
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Self {
            rss_bytes: figure("Rss")?,
            pss_bytes: figure("Pss")?,
            anonymous_bytes: figure("Anonymous")?,
        })
    }

    /// What came on top since `before`.
    pub fn since(&self, before: &Footprint) -> FootprintDelta {
        let delta = |now: u64, then: u64| now as i64 - then as i64;
        FootprintDelta {
            rss_bytes: delta(self.rss_bytes, before.rss_bytes),
            pss_bytes: delta(self.pss_bytes, before.pss_bytes),
            anonymous_bytes: delta(self.anonymous_bytes, before.anonymous_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLUP: &str = "5581e0a000-7ffd1c [rollup]\nRss:                1788 kB\nPss:                 391 kB\n\
        Pss_Anon:            100 kB\nPss_File:            291 kB\nAnonymous:           116 kB\nSwap:    0 kB\n";

    #[test]
    fn a_rollup_is_read() {
        let found = Footprint::parse(ROLLUP).unwrap();
        assert_eq!((found.rss_bytes, found.pss_bytes, found.anonymous_bytes), (1_830_912, 400_384, 118_784));
        let before = Footprint { rss_bytes: 2_000_000, pss_bytes: 384, anonymous_bytes: 784 };
        let grown = found.since(&before);
        assert_eq!((grown.rss_bytes, grown.pss_bytes, grown.anonymous_bytes), (-169_088, 400_000, 118_000));
    }

    #[test]
    fn other_texts_are_none() {
        for text in ["", "Rss: 1 kB\nPss: 1 kB\n", "Rss: 1 MB\nPss: 1 kB\nAnonymous: 1 kB\n"] {
            assert_eq!(Footprint::parse(text), None);
        }
        assert_eq!(Footprint::parse(&ROLLUP.replace("391", "-3")), None);
        assert_eq!(Footprint::parse(&ROLLUP.replace("391", "18446744073709551615")), None);
    }
}
