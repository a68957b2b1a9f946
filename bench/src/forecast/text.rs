//! A forecast for people.

use std::fmt::Write;

use super::{Forecast, Outcome, Planned};

impl Forecast {
    /// The forecast, the verdict of each engine first in its line. No colours, no trailing line break.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let requests = match self.n_sequences {
            1 => "one request".to_owned(),
            n => format!("{n} requests at once"),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}: {requests} of up to {} tokens", self.model, self.context);
        if self.trained_context > 0 && self.context > u64::from(self.trained_context) {
            let _ = writeln!(text, "it was trained for {} tokens only", self.trained_context);
        }
        if let Some(bytes) = self.kv_f16_bytes {
            let windows = self.kv_f16_without_windows_bytes.filter(|all| *all > bytes);
            let windows = windows.map_or_else(String::new, |all| {
                format!(" ({} if its attention windows were ignored)", gib(all))
            });
            let _ = writeln!(text, "KV cache of one: {} in f16{windows}", gib(bytes));
        }
        for engine in &self.engines {
            let _ = match &engine.outcome {
                Outcome::Planned(planned) => self.engine_lines(&mut text, &engine.engine, planned),
                Outcome::Refused { reason } => {
                    writeln!(text, "{}: does not take it: {reason}", engine.engine)
                }
                Outcome::Unknown { reason } => writeln!(text, "{}: cannot be told: {reason}", engine.engine),
            };
        }
        if let Some(rate) = self.bytes_per_second {
            let rate = rate / 1e9;
            let _ = writeln!(
                text,
                "ceilings: what memory at {rate:.1} GB/s allows; engines reach 40 to 80 % of it"
            );
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn engine_lines(&self, text: &mut String, engine: &str, planned: &Planned) -> std::fmt::Result {
        let verdict = if planned.fits { "fits" } else { "does not fit" };
        writeln!(
            text,
            "{engine}: {verdict}: weights {} ({}) + KV {} in {} + compute about {} = {} of {}",
            gib(planned.weights_bytes),
            planned.weights,
            gib(planned.kv_bytes),
            planned.kv_type,
            gib(planned.compute_bytes),
            gib(planned.total_bytes),
            gib(self.available_bytes),
        )?;
        match planned.longest_context {
            _ if planned.fits => {}
            Some(context) => writeln!(text, "  {context} tokens would fit")?,
            None => writeln!(text, "  no context fits")?,
        }
        if let Some([empty, full]) = planned.ceilings {
            let weights = planned.step_weight_bytes / 1e9;
            writeln!(
                text,
                "  at most {empty:.0} tokens/s at the beginning and {full:.0} at {} ({weights:.2} GB of weights a step)",
                self.context
            )?;
        }
        for note in &planned.notes {
            writeln!(text, "  {note}")?;
        }
        Ok(())
    }
}

/// "3.00 GiB", "512 MiB".
fn gib(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes / f64::from(1 << 30) {
        gib if gib >= 0.995 => format!("{gib:.2} GiB"),
        _ => format!("{:.0} MiB", bytes / f64::from(1 << 20)),
    }
}
