//! guidellm's JSON report: a list of benchmarks, each with its requests.
//!
//! Its "time per output token" holds the prefill: (last token − start of the request) / n since 0.4, and
//! (last − first) / n before. Its "inter-token latency" is (last − first) / (n − 1), which is this bench's `tpot`.

use serde::Deserialize;

use super::{ImportError, Imported, ImportedFigure, Source};

const BROKEN: Source = Source::Guidellm;

#[derive(Debug, Deserialize)]
struct Report {
    benchmarks: Vec<Benchmark>,
}

#[derive(Debug, Deserialize)]
struct Benchmark {
    requests: Requests,
}

#[derive(Debug, Deserialize)]
struct Requests {
    #[serde(default)]
    successful: Vec<Request>,
    #[serde(default)]
    incomplete: Option<Vec<serde::de::IgnoredAny>>,
    #[serde(default)]
    errored: Option<Vec<serde::de::IgnoredAny>>,
}

/// The fields that all versions write, computed from instants whose place differs.
#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    time_to_first_token_ms: Option<f64>,
    #[serde(default)]
    inter_token_latency_ms: Option<f64>,
    #[serde(default)]
    time_per_output_token_ms: Option<f64>,
}

pub(super) fn from_report(text: &str) -> Result<Imported, ImportError> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| ImportError::broken(BROKEN, error))?;
    if value.get("benchmarks").is_none() {
        return Err(ImportError::Unknown);
    }
    let report: Report = serde_json::from_value(value).map_err(|error| ImportError::broken(BROKEN, error))?;
    let mut figures = Vec::new();
    let mut n_lost = 0;
    for benchmark in &report.benchmarks {
        let requests = &benchmark.requests;
        n_lost += requests.incomplete.as_ref().map_or(0, Vec::len);
        n_lost += requests.errored.as_ref().map_or(0, Vec::len);
        figures.extend(of_benchmark(&requests.successful)?);
    }
    let mut biases = vec![
        "measured from outside: queue, network and the server's own work are in every figure".to_owned(),
        "tokens are counted by the server, or as chunks where it does not say".to_owned(),
    ];
    if n_lost > 0 {
        biases.push(format!("{n_lost} requests that failed or were cut off are not in the figures"));
    }
    let about = vec![("benchmarks".to_owned(), report.benchmarks.len().to_string())];
    Ok(Imported { source: Source::Guidellm, about, figures, biases })
}

fn of_benchmark(requests: &[Request]) -> Result<Vec<ImportedFigure>, ImportError> {
    let same = |of: fn(&Request) -> Option<u64>| {
        let first = of(requests.first()?)?;
        requests.iter().all(|request| of(request) == Some(first)).then_some(first)
    };
    let (n_prompt, n_decode) = (same(|request| request.prompt_tokens), same(|request| request.output_tokens));
    let figure = |name, samples: Vec<f64>, as_reported, correction| {
        if samples.is_empty() {
            return Ok(None);
        }
        let figure = ImportedFigure::of(name, "ms", samples)
            .ok_or_else(|| ImportError::broken(BROKEN, format!("{name}: a time that is not positive")))?;
        Ok(Some(ImportedFigure { n_prompt, n_decode, as_reported, correction, ..figure }))
    };
    // One token has no gap; versions write 0 or nothing then.
    let several = || requests.iter().filter(|request| request.output_tokens.is_some_and(|n| n > 1));
    let gaps = several().filter_map(|request| request.inter_token_latency_ms).collect();
    let reported: Vec<f64> = several().filter_map(|request| request.time_per_output_token_ms).collect();
    let correction = (!reported.is_empty()).then(|| {
        "its inter-token latency, (last − first)/(n − 1); its time per output token divides otherwise and holds the \
         prefill"
            .to_owned()
    });
    let first = requests.iter().filter_map(|request| request.time_to_first_token_ms).collect();
    let found = [
        figure("ttft_http", first, None, None)?,
        figure("tpot", gaps, crate::stats::median(&reported), correction)?,
    ];
    Ok(found.into_iter().flatten().collect())
}
