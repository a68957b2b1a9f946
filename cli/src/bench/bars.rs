//! Progress of a run on the terminal.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use duet_bench::{Phase, Plan, Reporter};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use crate::say;

/// A bar per phase on a terminal; the plan and notes as lines.
#[derive(Default)]
pub(super) struct Bars {
    all: MultiProgress,
    by_phase: Mutex<HashMap<Phase, ProgressBar>>,
}

impl Bars {
    pub(super) fn clear(&self) {
        for (_, bar) in self.by_phase.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            bar.finish_and_clear();
        }
    }
}

impl Reporter for Bars {
    fn planned(&self, plan: &Plan) {
        self.all.suspend(|| say(&plan.to_string()));
    }

    fn estimated(&self, remaining: Duration) {
        self.all.suspend(|| say(&format!("about {} to go", HumanDuration(remaining))));
    }

    fn progress(&self, phase: &Phase, done: u64, total: u64) {
        let mut bars = self.by_phase.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(phase.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg:24} [{bar:30}] {percent:>3}% {eta:>4} left");
            let style = style.expect("the template is well-formed").progress_chars("=> ");
            self.all.add(ProgressBar::new(total).with_style(style).with_message(phase.to_string()))
        });
        bar.set_length(total.max(done));
        bar.set_position(done);
        if total > 0 && done >= total {
            bar.finish_and_clear();
        }
    }

    fn note(&self, note: &str) {
        self.all.suspend(|| say(note));
    }
}
