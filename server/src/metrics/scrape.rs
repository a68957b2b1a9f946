//! What is not counted by the server but read at the moment of asking: the engines' own counters, memory, states.

use duet_core::backend::EngineLoad;
use prometheus::proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::drain::Drain;
use crate::models::{ModelTable, Phase};

type FromLoad = (&'static str, &'static str, MetricType, fn(&EngineLoad) -> f64);

/// Series of a loaded model. Counters begin at 0 again when the model is loaded again, as Prometheus expects of restarts.
const FROM_LOAD: [FromLoad; 12] = [
    ("vllm:num_requests_running", "Requests that hold a sequence.", MetricType::GAUGE, |load| {
        load.n_running as f64
    }),
    ("vllm:num_requests_waiting", "Requests that wait for a sequence.", MetricType::GAUGE, |load| {
        load.n_waiting as f64
    }),
    ("vllm:kv_cache_usage_perc", "KV cells in use; 1 is all of them.", MetricType::GAUGE, |load| {
        f64::from(load.n_cells_used) / f64::from(load.n_cells.max(1))
    }),
    (
        "vllm:prompt_tokens_total",
        "Prompt tokens evaluated; cached ones are not among them.",
        MetricType::COUNTER,
        |load| load.n_prompt_tokens as f64,
    ),
    ("vllm:generation_tokens_total", "Tokens generated.", MetricType::COUNTER, |load| {
        load.n_completion_tokens as f64
    }),
    (
        "vllm:prefix_cache_queries_total",
        "Prompt tokens looked up in the prefix cache.",
        MetricType::COUNTER,
        |load| load.n_prefix_queried as f64,
    ),
    ("vllm:prefix_cache_hits_total", "Of these, found there.", MetricType::COUNTER, |load| {
        load.n_prefix_hits as f64
    }),
    (
        "vllm:num_preemptions_total",
        "Times a running request gave its cells to others.",
        MetricType::COUNTER,
        |load| load.n_preempted as f64,
    ),
    ("duet_forward_passes_total", "Forward passes, however wide.", MetricType::COUNTER, |load| {
        load.n_forward_passes as f64
    }),
    (
        "duet_engine_cancellations_total",
        "Choices that the engine gave up since nobody read them.",
        MetricType::COUNTER,
        |load| load.n_cancelled as f64,
    ),
    ("duet_kv_cells", "KV cells there are.", MetricType::GAUGE, |load| f64::from(load.n_cells)),
    ("duet_kv_cells_used", "KV cells in use.", MetricType::GAUGE, |load| f64::from(load.n_cells_used)),
];

/// As [`Phase::name`] has them.
const STATES: [&str; 6] = ["inspecting", "unloaded", "loading", "ready", "crashed", "failed"];

struct Loaded<'a> {
    name: &'a str,
    engine: &'static str,
    load: EngineLoad,
    bytes: u64,
    cache_bytes: u64,
}

/// All of them as they are now.
pub(super) fn families(models: &ModelTable, drain: &Drain) -> Vec<MetricFamily> {
    let mut loaded = Vec::new();
    let mut reserved = Vec::new();
    let mut n_in_state = [0u32; STATES.len()];
    for entry in models.entries() {
        let phase = entry.phase();
        if let Some(state) = STATES.iter().position(|state| *state == phase.name()) {
            n_in_state[state] += 1;
        }
        let name = entry.config.name.as_str();
        match &phase {
            Phase::Ready(resident) => loaded.push(Loaded {
                name,
                engine: resident.described.engine,
                load: resident.model.load(),
                bytes: resident.described.plan.need_bytes,
                cache_bytes: resident.cache_bytes,
            }),
            Phase::Loading(loading) => {
                let bytes = loading.described.as_deref().map_or(0, |described| described.plan.need_bytes);
                reserved.push(gauge(&[("model_name", name)], bytes as f64));
            }
            _ => {}
        }
    }
    let states = STATES.iter().zip(n_in_state).map(|(state, n)| gauge(&[("state", state)], f64::from(n)));
    let mut families: Vec<MetricFamily> =
        FROM_LOAD.iter().map(|row| from_load(row, &loaded)).chain([step_tokens(&loaded)]).collect();
    families.extend([
        family("duet_models", "Configured models by state.", MetricType::GAUGE, states.collect()),
        family(
            "duet_resident_bytes",
            "What a loaded model was planned to take, its prefix cache in host memory left out.",
            MetricType::GAUGE,
            loaded.iter().map(|model| gauge(&labels(model), model.bytes as f64)).collect(),
        ),
        family(
            "duet_prefix_cache_limit_bytes",
            "Most host memory that a loaded model's prefixes may take.",
            MetricType::GAUGE,
            loaded.iter().map(|model| gauge(&labels(model), model.cache_bytes as f64)).collect(),
        ),
        family("duet_reserved_bytes", "What loads under way will take.", MetricType::GAUGE, reserved),
        family(
            "duet_budget_bytes",
            "What a further model may take.",
            MetricType::GAUGE,
            vec![gauge(&[], models.budget_bytes() as f64)],
        ),
        family(
            "duet_requests_active",
            "Requests in the server, from their head to their last byte.",
            MetricType::GAUGE,
            vec![gauge(&[], drain.n_active() as f64)],
        ),
    ]);
    families.retain(|family| !family.get_metric().is_empty());
    families
}

fn labels<'a>(model: &Loaded<'a>) -> [(&'static str, &'a str); 2] {
    [("engine", model.engine), ("model_name", model.name)] // in the order of the other families
}

fn from_load((name, help, kind, value): &FromLoad, loaded: &[Loaded<'_>]) -> MetricFamily {
    let one = |model: &Loaded<'_>| {
        let value = value(&model.load);
        match kind {
            MetricType::COUNTER => counter(&labels(model), value),
            _ => gauge(&labels(model), value),
        }
    };
    family(name, help, *kind, loaded.iter().map(one).collect())
}

/// vLLM's name for the tokens of a step. Sum and count are the engine's; how they spread over steps it does not tell, so
/// the one bucket is that of all.
fn step_tokens(loaded: &[Loaded<'_>]) -> MetricFamily {
    let one = |model: &Loaded<'_>| {
        let mut histogram = Histogram::default();
        histogram.set_sample_count(model.load.n_forward_passes);
        histogram.set_sample_sum((model.load.n_prompt_tokens + model.load.n_completion_tokens) as f64);
        let mut metric = Metric::from_label(pairs(&labels(model)));
        metric.set_histogram(histogram);
        metric
    };
    let (name, help) = ("vllm:iteration_tokens_total", "Tokens of a forward pass.");
    family(name, help, MetricType::HISTOGRAM, loaded.iter().map(one).collect())
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_counter(counter);
    metric
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}
