//! `llama-bench -o json` and `-o jsonl`: one object per configuration, with every repetition's time.

use serde::Deserialize;

use super::{ImportError, Imported, ImportedFigure, Source};

/// What is read of a configuration; fields come and go between versions.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(default)]
    build_commit: Option<String>,
    #[serde(default)]
    build_number: Option<u64>,
    #[serde(default)]
    cpu_info: Option<String>,
    #[serde(default)]
    gpu_info: Option<String>,
    #[serde(default)]
    backends: Option<String>,
    #[serde(default)]
    model_filename: Option<String>,
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    type_k: Option<String>,
    #[serde(default)]
    type_v: Option<String>,
    /// A boolean, a number or a word, by version.
    #[serde(default)]
    flash_attn: Option<serde_json::Value>,
    n_prompt: u64,
    n_gen: u64,
    #[serde(default)]
    n_depth: u64,
    #[serde(default)]
    avg_ts: Option<f64>,
    samples_ns: Vec<u64>,
}

const BROKEN: Source = Source::LlamaBench;

pub(super) fn from_array(text: &str) -> Result<Imported, ImportError> {
    let entries: Vec<Entry> =
        serde_json::from_str(text).map_err(|error| ImportError::broken(BROKEN, error))?;
    imported(&entries)
}

pub(super) fn from_lines(text: &str) -> Result<Imported, ImportError> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let entries: Result<Vec<Entry>, _> = lines.map(serde_json::from_str).collect();
    imported(&entries.map_err(|error| ImportError::broken(BROKEN, error))?)
}

fn imported(entries: &[Entry]) -> Result<Imported, ImportError> {
    let figures: Result<Vec<_>, _> = entries.iter().map(figure).collect();
    let mut biases = vec![
        "ids are random, which experts of a mixture do not route like text".to_owned(),
        "no sampling; one synchronisation per token; the warm-up is one token".to_owned(),
    ];
    if entries.iter().any(|entry| entry.n_depth > 0) {
        biases.push("a depth beyond 0 is restored from a snapshot, not reached by decoding".to_owned());
    }
    Ok(Imported { source: Source::LlamaBench, about: about(entries), figures: figures?, biases })
}

fn figure(entry: &Entry) -> Result<ImportedFigure, ImportError> {
    let Entry { n_prompt, n_gen, n_depth, .. } = *entry;
    // Both at once: a prompt and then a generation in one time.
    let (name, n_tokens) = match (n_prompt, n_gen) {
        (0, 0) => return Err(ImportError::broken(BROKEN, "a test of 0 tokens")),
        (n, 0) => ("prefill_rate", n),
        (0, n) => ("decode_rate", n),
        (_, n) => ("effective_rate", n),
    };
    let samples = entry.samples_ns.iter().map(|ns| n_tokens as f64 * 1e9 / *ns as f64).collect();
    let figure = ImportedFigure::of(name, "tok/s", samples)
        .ok_or_else(|| ImportError::broken(BROKEN, format!("{name}: samples_ns is empty or holds a 0")))?;
    let end = n_depth.saturating_add(n_prompt).saturating_add(n_gen).saturating_sub(1);
    let correction = match name {
        "effective_rate" => Some(format!(
            "decoded tokens per second of the whole request, where llama-bench counts the {n_prompt} prompt tokens too"
        )),
        _ => None,
    };
    Ok(ImportedFigure {
        n_prompt: Some(n_prompt),
        n_decode: Some(n_gen),
        depth: format!("{n_depth} to {end}"),
        as_reported: entry.avg_ts,
        correction,
        ..figure
    })
}

fn about(entries: &[Entry]) -> Vec<(String, String)> {
    let all = |of: &dyn Fn(&Entry) -> Option<String>| {
        let mut values: Vec<String> =
            entries.iter().filter_map(of).filter(|value| !value.is_empty()).collect();
        values.dedup();
        values.join(", ")
    };
    let flash = |entry: &Entry| {
        let value = entry.flash_attn.as_ref()?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let build = |entry: &Entry| Some(format!("{} ({})", entry.build_number?, entry.build_commit.as_ref()?));
    let kv = |entry: &Entry| Some(format!("{}/{}", entry.type_k.as_ref()?, entry.type_v.as_ref()?));
    let values = [
        ("model", all(&|entry| entry.model_type.clone())),
        ("file", all(&|entry| entry.model_filename.clone())),
        ("llama.cpp", all(&build)),
        ("backends", all(&|entry| entry.backends.clone())),
        ("CPU", all(&|entry| entry.cpu_info.clone())),
        ("GPU", all(&|entry| entry.gpu_info.clone())),
        ("KV", all(&kv)),
        ("flash attention (off by default in older versions, then auto)", all(&flash)),
    ];
    let known = values.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| (name.to_owned(), value)).collect()
}
