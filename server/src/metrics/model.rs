//! The handles of one model on one engine, looked up once at its load: counting a token is a few atomic additions.

use std::time::Duration;

use duet_core::event::Finished;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::{Measure, counters, histograms};
use crate::wire::openai::response::finish_reason;

const LABELS: [&str; 2] = ["model_name", "engine"];

/// The families that have a series per model and engine.
pub(super) struct ModelFamilies {
    measures: [HistogramVec; Measure::ALL.len()],
    ended: IntCounterVec,
}

/// One model's series.
pub(crate) struct ModelMetrics {
    measures: [Histogram; Measure::ALL.len()],
    stop: IntCounter,
    length: IntCounter,
    abort: IntCounter,
}

impl ModelFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            measures: Measure::ALL.map(|measure| {
                let (name, help, buckets) = measure.row();
                histograms(registry, name, help, buckets, &LABELS)
            }),
            ended: counters(
                registry,
                "vllm:request_success_total",
                "Choices that ended without a failure; abort: the client left or the server cut them.",
                &["model_name", "engine", "finished_reason"],
            ),
        }
    }

    pub(super) fn of(&self, name: &str, engine: &str) -> ModelMetrics {
        let ended = |reason| self.ended.with_label_values(&[name, engine, reason]);
        ModelMetrics {
            measures: self.measures.each_ref().map(|family| family.with_label_values(&[name, engine])),
            stop: ended("stop"),
            length: ended("length"),
            abort: ended("abort"),
        }
    }
}

impl ModelMetrics {
    pub(crate) fn observe(&self, measure: Measure, duration: Duration) {
        self.value(measure, duration.as_secs_f64());
    }

    fn value(&self, measure: Measure, value: f64) {
        self.measures[measure as usize].observe(value);
    }

    /// A choice has ended, so long after its request had arrived.
    pub(crate) fn finished(&self, finished: &Finished, since_arrival: Duration) {
        let (usage, timings) = (&finished.usage, &finished.timings);
        match finish_reason(&finished.reason) {
            "length" => self.length.inc(),
            _ => self.stop.inc(),
        }
        self.observe(Measure::EndToEnd, since_arrival);
        self.observe(Measure::Queue, timings.queue);
        self.observe(Measure::Prefill, timings.prefill);
        self.observe(Measure::Decode, timings.decode);
        self.observe(Measure::Inference, timings.prefill + timings.decode);
        if let Some(gaps) = usage.n_completion_tokens.checked_sub(1).filter(|gaps| *gaps > 0) {
            self.observe(Measure::TimePerOutputToken, timings.decode / gaps);
        }
        self.value(Measure::PromptTokens, usage.n_prompt_tokens.into());
        self.value(Measure::GenerationTokens, usage.n_completion_tokens.into());
        self.value(Measure::CachedTokens, usage.n_cached_tokens.into());
        self.value(Measure::BatchWidth, timings.batch_width.into());
    }

    /// Choices were given up before their end.
    pub(crate) fn aborted(&self, n: usize) {
        self.abort.inc_by(n as u64);
    }
}
