//! What `GET /metrics` tells: counts and distributions of requests, kept as they happen, and the engines' figures, read
//! when somebody asks.
//!
//! The names, labels and buckets of `vllm:*` are vLLM's, so that its dashboards and scrapers work; everything else is
//! `duet_*`. Label values come from the settings and from closed lists, never from a request.

mod measure;
mod model;
mod scrape;

use std::time::Duration;

use axum::http::StatusCode;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

pub(crate) use measure::Measure;
pub(crate) use model::ModelMetrics;

use crate::drain::Drain;
use crate::error::ErrorCode;
use crate::models::ModelTable;
use crate::record::Stage;
use measure::{HTTP_SECONDS, LOAD_SECONDS};
use model::ModelFamilies;

const EXPECT: &str = "names are valid and used once";

/// Everything that is counted in this server.
pub(crate) struct Metrics {
    registry: Registry,
    models: ModelFamilies,
    errors: IntCounterVec,
    cancelled: IntCounterVec,
    http_requests: IntCounterVec,
    http_seconds: HistogramVec,
    loads: IntCounterVec,
    load_seconds: HistogramVec,
    ignored_fields: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let cancelled = counters(
            &registry,
            "duet_requests_cancelled_total",
            "Requests whose client left, by what the request was doing.",
            &["state"],
        );
        for stage in Stage::ALL {
            let _ = cancelled.with_label_values(&[stage.name()]); // so that there is a 0 to rise from
        }
        Self {
            models: ModelFamilies::new(&registry),
            errors: counters(&registry, "duet_errors_total", "Requests that ended in an error.", &["code"]),
            cancelled,
            http_requests: counters(
                &registry,
                "duet_http_requests_total",
                "Answers by route and status.",
                &["route", "status"],
            ),
            http_seconds: histograms(
                &registry,
                "duet_http_request_duration_seconds",
                "From a request's head to its answer's head.",
                HTTP_SECONDS,
                &["route"],
            ),
            loads: counters(
                &registry,
                "duet_model_loads_total",
                "Loads of a model that have ended.",
                &["model_name", "result"],
            ),
            load_seconds: histograms(
                &registry,
                "duet_model_load_duration_seconds",
                "Loads of a model that have succeeded.",
                LOAD_SECONDS,
                &["model_name", "engine"],
            ),
            ignored_fields: counters(
                &registry,
                "duet_ignored_fields_total",
                "Fields of requests that no API documents.",
                &[],
            )
            .with_label_values::<&str>(&[]),
            registry,
        }
    }

    /// The handles of one model on one engine; the same series again after a reload.
    pub(crate) fn model(&self, name: &str, engine: &str) -> ModelMetrics {
        self.models.of(name, engine)
    }

    pub(crate) fn error(&self, code: ErrorCode) {
        self.errors.with_label_values(&[code.as_str()]).inc();
    }

    pub(crate) fn cancelled(&self, stage: Stage) {
        self.cancelled.with_label_values(&[stage.name()]).inc();
    }

    /// `route`: the pattern of the router, never the path itself.
    pub(crate) fn answered(&self, route: &str, status: StatusCode, took: Duration) {
        self.http_requests.with_label_values(&[route, status.as_str()]).inc();
        self.http_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// `engine`: of a load that succeeded.
    pub(crate) fn load_ended(&self, model: &str, engine: Option<&str>, took: Duration) {
        let result = if engine.is_some() { "ok" } else { "error" };
        self.loads.with_label_values(&[model, result]).inc();
        if let Some(engine) = engine {
            self.load_seconds.with_label_values(&[model, engine]).observe(took.as_secs_f64());
        }
    }

    pub(crate) fn ignored_fields(&self, n: usize) {
        self.ignored_fields.inc_by(n as u64);
    }

    /// All of it in Prometheus' text format. Waits for no engine.
    ///
    /// # Errors
    /// What the encoder says of a family that it cannot write.
    pub(crate) fn render(&self, models: &ModelTable, drain: &Drain) -> prometheus::Result<String> {
        let mut families = self.registry.gather();
        families.extend(scrape::families(models, drain));
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&families, &mut text)?;
        Ok(text)
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let family = IntCounterVec::new(Opts::new(name, help), labels).expect(EXPECT);
    registry.register(Box::new(family.clone())).expect(EXPECT);
    family
}

fn histograms(registry: &Registry, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let family = HistogramVec::new(options, labels).expect(EXPECT);
    registry.register(Box::new(family.clone())).expect(EXPECT);
    family
}
