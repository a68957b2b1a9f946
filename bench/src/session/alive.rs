//! Signs of life of a measuring process, for whoever watches it: progress beside the blocks (hashing, loading, windows of the
//! agreement, scenarios, tensors) as lines of the journal, which only tells of blocks otherwise.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::journal::ALIVE;
use crate::error::BenchError;
use crate::plan::Plan;
use crate::reporter::{Phase, Reporter};

/// Time between two signs.
const INTERVAL: Duration = Duration::from_secs(1);

/// Passes everything on, and notes progress in the journal.
pub(super) struct Alive {
    inner: Arc<dyn Reporter>,
    /// The journal, and when it was written to.
    file: Mutex<(File, Instant)>,
}

impl Alive {
    /// # Errors
    /// `File`.
    pub(super) fn new(inner: Arc<dyn Reporter>, journal: &Path) -> Result<Self, BenchError> {
        let failed = |source| BenchError::File { path: journal.to_owned(), source };
        let file = OpenOptions::new().create(true).append(true).open(journal).map_err(failed)?;
        Ok(Self { inner, file: Mutex::new((file, Instant::now())) })
    }
}

impl Reporter for Alive {
    fn planned(&self, plan: &Plan) {
        self.inner.planned(plan);
    }

    fn estimated(&self, remaining: Duration) {
        self.inner.estimated(remaining);
    }

    fn progress(&self, phase: &Phase, done: u64, total: u64) {
        self.inner.progress(phase, done, total);
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, last) = &mut *guard;
        if last.elapsed() >= INTERVAL {
            *last = Instant::now();
            // One write of whole lines, so that it does not end up within another. If the disk is full, the next block says so.
            let _ = file.write_all(ALIVE.as_bytes());
        }
    }

    fn note(&self, note: &str) {
        self.inner.note(note);
    }
}
