//! Progress on standard error: bars on a terminal, nothing elsewhere.

use std::sync::Arc;

use duet_core::LoadProgress;
use indicatif::{ProgressBar, ProgressStyle};

/// Steps of a load's bar.
const STEPS: u64 = 1000;

/// A bar for a load, and what reports to it. The bar vanishes with [`ProgressBar::finish_and_clear`].
pub(crate) fn load_bar(what: &str) -> (ProgressBar, LoadProgress) {
    let style =
        ProgressStyle::with_template("{msg} [{bar:30}] {percent:>3}%").expect("the template is well-formed");
    let bar = ProgressBar::new(STEPS).with_style(style.progress_chars("=> ")).with_message(what.to_owned());
    let reported = bar.clone();
    let progress: LoadProgress = Arc::new(move |fraction| {
        reported.set_position((f64::from(fraction) * STEPS as f64) as u64);
        true
    });
    (bar, progress)
}
