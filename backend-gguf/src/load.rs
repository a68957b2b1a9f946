//! From a GGUF file to a runner that is ready: weights, context, warm-up.

use std::path::Path;
use std::sync::Arc;

use duet_core::model::{ModelFormat, ModelInfo, inspect};
use duet_core::{BackendError, LoadSpec};

use crate::ID;
use crate::raw::{
    Context, ContextSettings, FlashAttention, Model, ModelError, ModelFacts, ModelSettings, Purpose, library,
};
use crate::runner::{EncoderRunner, GgufRunner};
use crate::settings::GgufSettings;
use crate::snapshot::SnapshotKey;

/// A runner, and what is worth saying of it.
#[derive(Debug)]
pub(crate) struct Loaded<R> {
    pub(crate) runner: R,
    pub(crate) context: ContextSettings,
}

/// Loads weights on the calling thread, which the runner is bound to from then on.
pub(crate) fn load_runner(
    spec: &LoadSpec,
    settings: &GgufSettings,
    progress: &mut dyn FnMut(f32) -> bool,
) -> Result<Loaded<GgufRunner>, BackendError> {
    let (model, now) = load_model(spec, settings, progress)?;
    let facts = model.facts();
    let path = &spec.model.path;
    let wanted = context_settings(spec, settings, is_plain(&facts, &spec.model.architecture));
    let context = Context::new(Arc::new(model), wanted).map_err(|error| load_error(path, error))?;
    let context_settings = *context.settings();
    let warm_up_token = spec.model.bos_token_id.filter(|&id| (id as usize) < facts.n_vocab).unwrap_or(0);
    let mut runner =
        GgufRunner::new(context, &facts, spec.context_length, snapshot_key(&now, &context_settings))
            .with_file(path, settings.repack);
    runner.warm_up(warm_up_token, &mut || !progress(0.97))?;
    progress(1.0);
    Ok(Loaded { runner, context: context_settings })
}

/// Encoders of up to so many tokens attend in f32. The fused kernel rounds keys and values to f16 first; without it the
/// scores of all pairs of tokens lie in memory, 50 MiB for 12 heads here and growing with the square.
const EXACT_ATTENTION: u32 = 1024;

/// As [`load_runner`], for models that generate nothing.
pub(crate) fn load_encoder(
    spec: &LoadSpec,
    settings: &GgufSettings,
    progress: &mut dyn FnMut(f32) -> bool,
) -> Result<Loaded<EncoderRunner>, BackendError> {
    let (model, now) = load_model(spec, settings, progress)?;
    let path = &spec.model.path;
    // All of the context in one pass.
    let rows = spec.context_length.min(now.context_length).max(1);
    let common = context_settings(spec, settings, true);
    let flash_attention = match common.flash_attention {
        FlashAttention::Auto if rows <= EXACT_ATTENTION => FlashAttention::Off,
        other => other,
    };
    let wanted = ContextSettings {
        n_cells: rows,
        n_batch: rows,
        n_ubatch: rows,
        n_sequences: 1,
        n_holders: 0,
        n_outputs: rows,
        kv_unified: true,
        purpose: if now.ranks { Purpose::Rank } else { Purpose::Encode },
        flash_attention,
        ..common
    };
    let context = Context::new(Arc::new(model), wanted).map_err(|error| load_error(path, error))?;
    if now.ranks && context.score_width() != 1 {
        return Err(unsupported(spec, &format!("it sorts texts into {} classes", context.score_width())));
    }
    let context_settings = *context.settings();
    progress(1.0);
    Ok(Loaded { runner: EncoderRunner::new(context, rows), context: context_settings })
}

/// Weights, and what the file's header says now.
fn load_model(
    spec: &LoadSpec,
    settings: &GgufSettings,
    progress: &mut dyn FnMut(f32) -> bool,
) -> Result<(Model, ModelInfo), BackendError> {
    let path = &spec.model.path;
    // Again, since the file may have changed after it was probed: a truncated one would be mapped and fault later.
    let now = inspect(path)?;
    if now.format != ModelFormat::Gguf {
        return Err(BackendError::load_failed(path, "not a GGUF file"));
    }
    if now.encoder != spec.model.encoder {
        return Err(BackendError::load_failed(path, "the file is another one by now"));
    }
    let weights = ModelSettings { vocab_only: false, mmap: settings.mmap, repack: settings.repack };
    // The last part of the bar is for the context and the warm-up.
    let model = Model::load(path, weights, &mut |fraction| progress(0.95 * fraction))
        .map_err(|error| load_error(path, error))?;
    match model.facts().stands_alone {
        true => Ok((model, now)),
        false => {
            Err(unsupported(spec, "it neither generates text token by token nor encodes it in one pass"))
        }
    }
}

fn unsupported(spec: &LoadSpec, detail: &str) -> BackendError {
    BackendError::UnsupportedArchitecture {
        architecture: spec.model.architecture.clone(),
        backend: ID,
        detail: detail.into(),
    }
}

fn load_error(path: &Path, error: ModelError) -> BackendError {
    match error {
        ModelError::Cancelled => BackendError::LoadCancelled,
        error @ ModelError::Library(_) => BackendError::load_failed(path, error),
    }
}

/// Whether all sequences share one KV buffer where the cells do not suffice for a buffer of each: always, since a sequence
/// could not have its whole context otherwise.
pub(crate) const KV_UNIFIED: bool = true;

/// Whether all sequences share one KV buffer, unless the load says.
///
/// In one buffer every row walks over the cells of all sequences up to the highest used one, masked or not. Split, each
/// reads its own only, but has an equal share of the cells and nothing above the running ones to hold prefixes. So: split
/// where each share is as long as the longest request, so that nothing becomes impossible, and rounding the shares up to
/// llama.cpp's steps adds no more than a hundredth to what was planned. Windowed, sparse and recurrent caches (`is_plain` is
/// false) stay together, whose layers multiply otherwise.
fn unified_by_rule(spec: &LoadSpec, is_plain: bool) -> bool {
    let share = spec.kv_tokens / spec.parallel.max(1);
    let padded = |cells: u32| u64::from(cells).next_multiple_of(ContextSettings::CELLS_STEP.into());
    let split = padded(spec.kv_tokens.div_ceil(spec.parallel.max(1))) * u64::from(spec.parallel);
    let is_exact = split * 100 <= padded(spec.kv_tokens) * 101;
    !is_plain || spec.parallel < 2 || share < spec.context_length || !is_exact
}

/// Prefixes that can be held beside the sequences that run: 64 where they cost nothing but their cells.
///
/// llama.cpp's memory takes ids up to 255 whatever its number of sequences, as long as all share one buffer. None for
/// * recurrent layers, which have one state per running sequence and nothing above,
/// * windowed layers: their cells are few and reused once out of the window, but never while a second sequence has them, so
///   that held prefixes would use them up,
/// * the caches of sparse attention, whose indexes walk the running sequences only.
const HOLDERS: u32 = 64;

/// Every layer keeps the keys and values of all tokens, in cells that know nothing of sequences.
fn is_plain(facts: &ModelFacts, architecture: &str) -> bool {
    const SPARSE: [&str; 4] = ["deepseek32", "glm-dsa", "hy_v4", "minimax-m3"];
    !facts.recurrent && facts.window == 0 && !SPARSE.contains(&architecture)
}

fn context_settings(spec: &LoadSpec, settings: &GgufSettings, is_plain: bool) -> ContextSettings {
    let n_sequences = spec.parallel.max(1);
    let kv_unified = spec.kv_unified.unwrap_or_else(|| unified_by_rule(spec, is_plain));
    let shares = if kv_unified { 1 } else { n_sequences };
    ContextSettings {
        n_cells: spec.kv_tokens.max(spec.context_length.saturating_mul(shares)),
        // One row for each, and one for the id through which holders are saved.
        n_batch: settings.batch.max(n_sequences.saturating_add(1)),
        n_ubatch: settings.micro_batch,
        n_sequences,
        n_holders: if is_plain { HOLDERS } else { 0 },
        n_outputs: settings.outputs,
        n_threads: spec.threads.unwrap_or_else(physical_cores).max(1),
        flash_attention: match settings.flash_attention {
            None => FlashAttention::Auto,
            Some(true) => FlashAttention::On,
            Some(false) => FlashAttention::Off,
        },
        kv_type: spec.kv_type.unwrap_or_default(),
        kv_unified,
        purpose: Purpose::Generate,
    }
}

/// Physical cores that this process may use: a second thread on a core competes for the same vector units.
fn physical_cores() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    u32::try_from(num_cpus::get_physical().min(allowed)).unwrap_or(u32::MAX)
}

/// A sequence's state is good for the same file, library and cache layout only.
fn snapshot_key(model: &ModelInfo, context: &ContextSettings) -> SnapshotKey {
    let name =
        |path: &std::path::PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let files: Vec<String> = model.files.iter().map(name).collect();
    SnapshotKey::new([
        crate::VERSIONS,
        &library().version,
        &files.join("\n"),
        &format!("{} {} {}", model.architecture, model.n_params, model.file_bytes),
        &format!("{:?} {:?} {}", context.kv_type, context.flash_attention, context.kv_unified),
    ])
}
