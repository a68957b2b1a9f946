//! Raw settings → checked ones. Each refusal names the key; the loader adds where it was written.

use std::collections::HashMap;
use std::time::Duration;

use duet_core::Pooling;
use duet_core::backend::{DiskTierSpec, WeightsMode};
use duet_core::model::memory::KvType;
use duet_core::registry::EngineChoice;
use duet_core::sampling::SamplingParams;

use super::{
    CacheConfig, ConfigError, HttpConfig, ModelConfig, RawCache, RawConfig, RawModel, RawServer,
    SamplingDefaults, SecurityConfig, ServerConfig, Size,
};
use crate::near::nearest;
use crate::reasoning::Tags;
use crate::replay::ReplayScript;
use crate::tools::Family;

const DEFAULT_MAX_QUEUE: u64 = 64;
const DEFAULT_MAX_REQUESTS: u64 = 1024;
const DEFAULT_DISK_BYTES: Size = Size(8 << 30);
/// Less holds hardly a prefix of the smallest model.
const LEAST_DISK_BYTES: Size = Size(1 << 20);
/// As [`duet_core::LoadSpec::new`] has it.
const DEFAULT_STREAM_SLOWDOWN: f32 = 1.8;
const MOST_STREAM_SLOWDOWN: f32 = 1000.0;
const MOST_SECONDS: f64 = 86_400.0 * 365.0;
const KV_TYPES: [(&str, KvType); 8] = [
    ("f16", KvType::F16),
    ("bf16", KvType::Bf16),
    ("f32", KvType::F32),
    ("q8_0", KvType::Q8_0),
    ("q5_1", KvType::Q5_1),
    ("q5_0", KvType::Q5_0),
    ("q4_1", KvType::Q4_1),
    ("q4_0", KvType::Q4_0),
];
const WEIGHTS: [(&str, WeightsMode); 3] =
    [("auto", WeightsMode::Auto), ("packed", WeightsMode::Packed), ("dense", WeightsMode::Dense)];
const UNKNOWN_FIELDS: [(&str, bool); 2] = [("accept", false), ("deny", true)];

impl ServerConfig {
    pub(super) fn validate(raw: &RawConfig) -> Result<Self, ConfigError> {
        let max_queue = at_least("server.max_queue", raw.server.max_queue, 1, DEFAULT_MAX_QUEUE)?;
        let models: Vec<ModelConfig> = raw
            .models
            .iter()
            .map(|(name, model)| check_model(name, model, max_queue))
            .collect::<Result<_, _>>()?;
        distinct_names(&models)?;
        let replay = check_replay(&raw.server)?;
        Ok(Self { http: check_http(&raw.server)?, cache: check_cache(&raw.cache)?, models, replay })
    }
}

fn check_replay(raw: &RawServer) -> Result<Option<ReplayScript>, ConfigError> {
    let Some(file) = &raw.replay else { return Ok(None) };
    let path = file.relative();
    let wrong = |message: String| ConfigError::new("server.replay", format!("{}: {message}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    ReplayScript::parse(&text).map(Some).map_err(wrong)
}

fn check_http(raw: &RawServer) -> Result<HttpConfig, ConfigError> {
    let host = raw.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
    if host.trim().is_empty() {
        return Err(ConfigError::new("server.host", "must not be empty"));
    }
    let max_body_bytes = at_least("server.max_body_bytes", raw.max_body_bytes, 1024, 32 << 20)?;
    let max_requests = at_least("server.max_requests", raw.max_requests, 1, DEFAULT_MAX_REQUESTS)?;
    let unknown = raw.unknown_fields.as_deref().unwrap_or("accept");
    Ok(HttpConfig {
        host,
        port: raw.port.unwrap_or(8080),
        max_body_bytes: usize::try_from(max_body_bytes).unwrap_or(usize::MAX),
        max_requests: usize::try_from(max_requests).unwrap_or(usize::MAX),
        request_timeout: seconds("server.request_timeout_s", raw.request_timeout_s)?,
        body_timeout: seconds("server.body_timeout_s", raw.body_timeout_s)?
            .unwrap_or(Duration::from_secs(30)),
        shutdown_timeout: seconds("server.shutdown_timeout_s", raw.shutdown_timeout_s)?
            .unwrap_or(Duration::from_secs(30)),
        allowed_hosts: lower(raw.allowed_hosts.as_deref()),
        allowed_origins: lower(raw.allowed_origins.as_deref()),
        deny_unknown_fields: one_of("server.unknown_fields", unknown, &UNKNOWN_FIELDS)?,
        security: SecurityConfig::check(raw)?,
    })
}

fn check_cache(raw: &RawCache) -> Result<CacheConfig, ConfigError> {
    let disk = match (&raw.disk_dir, raw.disk_bytes) {
        (None, None) => None,
        (None, Some(_)) => {
            return Err(ConfigError::new(
                "cache.disk_bytes",
                "has no effect without a folder in cache.disk_dir",
            ));
        }
        (Some(dir), _) if dir.original().as_os_str().is_empty() => {
            return Err(ConfigError::new("cache.disk_dir", "must not be empty"));
        }
        (Some(dir), bytes) => {
            let Size(max_bytes) = bytes.unwrap_or(DEFAULT_DISK_BYTES);
            if max_bytes < LEAST_DISK_BYTES.0 {
                let message = format!("must be at least {} (1MiB), is {max_bytes}", LEAST_DISK_BYTES.0);
                return Err(ConfigError::new("cache.disk_bytes", message));
            }
            Some(DiskTierSpec { dir: dir.relative(), max_bytes })
        }
    };
    Ok(CacheConfig { ram_bytes: raw.ram_bytes.map(|Size(bytes)| bytes), disk })
}

fn lower(list: Option<&[String]>) -> Vec<String> {
    list.unwrap_or_default().iter().map(|text| text.to_lowercase()).collect()
}

fn check_model(name: &str, raw: &RawModel, max_queue: u64) -> Result<ModelConfig, ConfigError> {
    let key = |field: &str| format!("models.{name}.{field}");
    check_name(&format!("models.{name}"), name)?;
    for alias in raw.aliases.iter().flatten() {
        check_name(&key("aliases"), alias)?;
    }
    let path =
        raw.path.as_ref().ok_or_else(|| ConfigError::new(key("path"), "missing: a model needs a path"))?;
    for (field, value) in [
        ("context", raw.context),
        ("parallel", raw.parallel),
        ("kv_tokens", raw.kv_tokens),
        ("threads", raw.threads),
        ("max_tokens", raw.max_tokens),
    ] {
        if value == Some(0) {
            return Err(ConfigError::new(key(field), "must be at least 1"));
        }
    }
    if let (Some(context), Some(kv_tokens)) = (raw.context, raw.kv_tokens)
        && kv_tokens < context
    {
        let message = format!("must be at least context ({context}), is {kv_tokens}");
        return Err(ConfigError::new(key("kv_tokens"), message));
    }
    let stream_slowdown = raw.stream_slowdown.unwrap_or(DEFAULT_STREAM_SLOWDOWN);
    if !(1.0..=MOST_STREAM_SLOWDOWN).contains(&stream_slowdown) {
        let message = format!("must be between 1 and {MOST_STREAM_SLOWDOWN}, is {stream_slowdown}");
        return Err(ConfigError::new(key("stream_slowdown"), message));
    }
    let sampling = check_sampling(&key, raw)?;
    let prefill_chunk = at_least(&key("prefill_chunk"), raw.prefill_chunk.map(u64::from), 1, 512)?;
    let max_queue = at_least(&key("max_queue"), raw.max_queue, 1, max_queue)?;
    Ok(ModelConfig {
        name: name.to_owned(),
        aliases: raw.aliases.clone().unwrap_or_default(),
        path: path.relative(),
        engine: EngineChoice::parse(raw.engine.as_deref().unwrap_or("auto")),
        context: raw.context,
        parallel: raw.parallel,
        kv_tokens: raw.kv_tokens,
        kv_type: raw.kv_type.as_deref().map(|word| one_of(&key("kv_type"), word, &KV_TYPES)).transpose()?,
        threads: raw.threads,
        weights: one_of(&key("weights"), raw.weights.as_deref().unwrap_or("auto"), &WEIGHTS)?,
        kv_unified: raw.kv_unified,
        prefill_chunk: u32::try_from(prefill_chunk).unwrap_or(u32::MAX),
        stream_slowdown,
        prefix_cache: raw.prefix_cache.unwrap_or(true),
        tool_parser: parser(&key("tool_parser"), raw.tool_parser.as_deref(), &Family::NAMES)?,
        reasoning_parser: parser(&key("reasoning_parser"), raw.reasoning_parser.as_deref(), &Tags::NAMES)?,
        pooling: raw
            .pooling
            .as_deref()
            .map(|word| one_of(&key("pooling"), word, &Pooling::NAMES))
            .transpose()?,
        max_queue: usize::try_from(max_queue).unwrap_or(usize::MAX),
        sampling,
    })
}

/// A name of the table, "auto" or "none".
fn parser<T>(
    key: &str,
    word: Option<&str>,
    table: &[(&'static str, T)],
) -> Result<&'static str, ConfigError> {
    let names: Vec<_> = ["auto", "none"].into_iter().chain(table.iter().map(|row| row.0)).collect();
    let known: Vec<_> = names.into_iter().map(|name| (name, name)).collect();
    one_of(key, word.unwrap_or("auto"), &known)
}

fn check_name(key: &str, name: &str) -> Result<(), ConfigError> {
    // It travels in URLs, headers and log lines.
    if name.is_empty() || name.len() > 200 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let message =
            format!("{name:?} is no name for a model: 1 to 200 bytes without spaces or control characters");
        return Err(ConfigError::new(key, message));
    }
    Ok(())
}

fn distinct_names(models: &[ModelConfig]) -> Result<(), ConfigError> {
    let mut owners: HashMap<&str, &str> =
        models.iter().map(|model| (model.name.as_str(), model.name.as_str())).collect();
    for model in models {
        for alias in &model.aliases {
            if let Some(owner) = owners.insert(alias, &model.name) {
                let message = format!("`{alias}` is a name of model `{owner}` already");
                return Err(ConfigError::new(format!("models.{}.aliases", model.name), message));
            }
        }
    }
    Ok(())
}

/// The same ranges that requests have.
fn check_sampling(key: &impl Fn(&str) -> String, raw: &RawModel) -> Result<SamplingDefaults, ConfigError> {
    let off = SamplingParams::default();
    let params = SamplingParams {
        temperature: raw.temperature.unwrap_or(off.temperature),
        top_p: raw.top_p.unwrap_or(off.top_p),
        top_k: raw.top_k.unwrap_or(off.top_k),
        min_p: raw.min_p.unwrap_or(off.min_p),
        typical_p: raw.typical_p.unwrap_or(off.typical_p),
        repetition_penalty: raw.repetition_penalty.unwrap_or(off.repetition_penalty),
        repeat_last_n: raw.repeat_last_n.unwrap_or(off.repeat_last_n),
        presence_penalty: raw.presence_penalty.unwrap_or(off.presence_penalty),
        frequency_penalty: raw.frequency_penalty.unwrap_or(off.frequency_penalty),
        ..off
    };
    params.validate(u32::MAX).map_err(|error| ConfigError::new(key(error.param), error.message))?;
    Ok(SamplingDefaults {
        temperature: raw.temperature,
        top_p: raw.top_p,
        top_k: raw.top_k,
        min_p: raw.min_p,
        typical_p: raw.typical_p,
        repetition_penalty: raw.repetition_penalty,
        repeat_last_n: raw.repeat_last_n,
        presence_penalty: raw.presence_penalty,
        frequency_penalty: raw.frequency_penalty,
        max_tokens: raw.max_tokens,
    })
}

pub(super) fn at_least(key: &str, value: Option<u64>, least: u64, default: u64) -> Result<u64, ConfigError> {
    match value.unwrap_or(default) {
        value if value >= least => Ok(value),
        value => Err(ConfigError::new(key, format!("must be at least {least}, is {value}"))),
    }
}

pub(super) fn seconds(key: &str, value: Option<f64>) -> Result<Option<Duration>, ConfigError> {
    match value {
        None => Ok(None),
        Some(seconds) if seconds > 0.0 && seconds <= MOST_SECONDS => {
            Ok(Some(Duration::from_secs_f64(seconds)))
        }
        Some(seconds) => Err(ConfigError::new(
            key,
            format!("must be a number of seconds above 0 (and under a year), is {seconds}"),
        )),
    }
}

fn one_of<T: Copy>(key: &str, word: &str, known: &[(&'static str, T)]) -> Result<T, ConfigError> {
    match known.iter().find(|(name, _)| *name == word) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let near = nearest(word, names.iter().copied()).map(str::to_owned);
            let message = format!("unknown value `{word}`; known: {}", names.join(", "));
            Err(ConfigError { near, ..ConfigError::new(key, message) })
        }
    }
}
