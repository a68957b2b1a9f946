//! What a run does before anything is loaded: its sizes, its plan, and the files' hashes.

use std::path::PathBuf;
use std::sync::Arc;

use duet_core::model::ModelInfo;

use super::schedule::Counts;
use crate::error::BenchError;
use crate::files::{FileHash, hash_file};
use crate::input::ArmInput;
use crate::options::BenchOptions;
use crate::plan::{Plan, PlannedArm};
use crate::reporter::{Phase, Reporter};
use crate::work::{Sizes, Work};

/// How much of everything, and the context it takes.
pub(super) fn sizes(
    options: &BenchOptions,
    inputs: &[ArmInput; 2],
    counts: Counts,
) -> Result<(Sizes, u32), BenchError> {
    // 0: the headers do not say.
    let context_of = |input: &ArmInput| match input.model.context_length {
        0 => u32::MAX,
        n => n,
    };
    let shortest = inputs.iter().min_by_key(|input| context_of(input));
    let context = shortest.map_or(u32::MAX, context_of);
    let n_vocab = inputs.iter().map(|input| input.model.vocab_size.max(input.tokenizer.vocab_size())).max();
    let mut sizes = Sizes::new(options, context, n_vocab.unwrap_or(1), counts.n_requests());
    if has_server(options, inputs.iter().map(|input| input.backend.info().id)) {
        sizes.n_windows = 0; // no logits come over HTTP
    }
    if options.swap {
        sizes.n_windows = 0; // a window's logits are compared while both are loaded
    }
    let n_needed = sizes.longest();
    match u32::try_from(n_needed) {
        Ok(longest) if longest <= context => Ok((sizes, longest.next_multiple_of(256).min(context))),
        _ => Err(BenchError::ContextTooShort {
            path: shortest.map_or_else(PathBuf::new, |input| input.model.path.clone()),
            context_length: context,
            n_needed,
        }),
    }
}

pub(super) fn has_server<'a>(options: &BenchOptions, mut engines: impl Iterator<Item = &'a str>) -> bool {
    engines.any(|engine| options.server(engine).is_some())
}

pub(super) fn plan(options: &BenchOptions, inputs: &[ArmInput; 2], work: &Work, context_length: u32) -> Plan {
    let sizes = work.sizes;
    let arms = inputs.iter().map(|input| PlannedArm {
        label: input.label.clone(),
        engine: input.backend.info().id.to_owned(),
        reason: input.reason.clone(),
        path: input.model.path.clone(),
        weights: input.probe.weights.clone(),
    });
    Plan {
        arms: arms.collect(),
        n_prompt: sizes.n_prompt,
        n_reads: sizes.n_reads,
        n_decode: sizes.n_decode,
        n_aa_blocks: 0,
        n_pilot_blocks: 0,
        orders: Vec::new(),
        seed: options.seed,
        margin: options.margin,
        prefill_chunk: options.prefill_chunk,
        wash_out: options.wash_out,
        n_windows: sizes.n_windows,
        window: sizes.window,
        context_length,
        text: work.text_name.clone(),
        n_text_tokens: work.n_tokens(),
        ids_sha256: work.ids_sha256.clone(),
    }
}

/// Hashes all files of all models, each once; they are in the file cache afterwards, for both arms alike.
pub(super) async fn hash_all(
    models: &[Arc<ModelInfo>],
    reporter: &Arc<dyn Reporter>,
) -> Result<Vec<FileHash>, BenchError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in models.iter().flat_map(|model| &model.files) {
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
    let total: u64 = paths.iter().filter_map(|path| Some(std::fs::metadata(path).ok()?.len())).sum();
    let reporter = reporter.clone();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut done = 0;
        let mut hash = |path: PathBuf| {
            hash_file(&path, |n| {
                done += n;
                reporter.progress(&Phase::Hashing, done, total);
            })
            .map_err(|source| BenchError::File { path, source })
        };
        paths.into_iter().map(&mut hash).collect()
    });
    hashed.await?
}
