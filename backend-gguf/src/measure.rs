//! The runner beside a plain `llama_decode` loop over the same weights, so that a bench can give the ratio of the two.

use std::path::Path;
use std::sync::Arc;

use duet_core::model::inspect;
use duet_core::{BackendError, LoadSpec};

pub use crate::raw::{RawLoop, argmax};

use crate::load::load_runner;
use crate::runner::GgufRunner;
use crate::settings::GgufSettings;
use crate::tokenizer::load_tokenizer;

/// A runner on the calling thread, which it is bound to.
///
/// # Errors
/// As loading.
pub fn runner(spec: &LoadSpec, settings: &GgufSettings) -> Result<GgufRunner, BackendError> {
    Ok(load_runner(spec, settings, &mut |_| true)?.runner)
}

/// A spec of `path` for one sequence of `context_length` tokens on `threads` threads.
///
/// # Errors
/// What is wrong with the file.
pub fn spec(path: &Path, context_length: u32, threads: u32) -> Result<LoadSpec, BackendError> {
    let mut spec = LoadSpec::new(Arc::new(inspect(path)?), load_tokenizer(path)?);
    spec.context_length = context_length;
    spec.kv_tokens = context_length;
    spec.threads = Some(threads);
    Ok(spec)
}

/// A runner with one sequence of `context_length` tokens on `threads` threads, and a loop over the same weights.
///
/// # Errors
/// As loading; [`BackendError::LoadFailed`] if llama.cpp has no room for the second context.
pub fn runner_and_raw_loop(
    path: &Path,
    settings: &GgufSettings,
    context_length: u32,
    threads: u32,
) -> Result<(GgufRunner, RawLoop), BackendError> {
    let runner = runner(&spec(path, context_length, threads)?, settings)?;
    let raw = runner
        .raw_loop(context_length, threads)
        .ok_or_else(|| BackendError::load_failed(path, "no second context"))?;
    Ok((runner, raw))
}

/// A loop over weights of its own, loaded with these settings.
///
/// # Errors
/// As [`runner_and_raw_loop`].
pub fn raw_loop(
    path: &Path,
    settings: &GgufSettings,
    context_length: u32,
    threads: u32,
) -> Result<RawLoop, BackendError> {
    Ok(runner_and_raw_loop(path, settings, context_length, threads)?.1)
}
