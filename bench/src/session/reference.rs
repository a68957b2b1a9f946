//! Loading the reference beside both arms, and holding each of them against it.

use std::path::PathBuf;
use std::sync::Arc;

use duet_core::model::inspect;
use duet_core::registry::{EngineChoice, Registry};
use duet_core::text::Tokenizer;
use duet_core::{LoadSpec, LoadedModel, chain};

use crate::agreement::{self, AgreementWork, Reference};
use crate::options::BenchOptions;
use crate::parity::first_difference;
use crate::reporter::Reporter;
use crate::work::Work;

/// What the arms are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceModel {
    /// The engine; `None`: the format's own.
    pub engine: Option<String>,
    /// The model.
    pub path: PathBuf,
}

/// Both arms, loaded, with the tokenizer that their ids are of.
pub(super) struct Arms<'a> {
    pub(super) models: [&'a Arc<dyn LoadedModel>; 2],
    pub(super) tokenizer: &'a dyn Tokenizer,
}

/// Each arm against the reference, which is loaded and freed again.
///
/// # Errors
/// Why not, in a sentence.
pub(super) async fn compare(
    registry: &Registry,
    reference: &ReferenceModel,
    arms: Arms<'_>,
    work: &Work,
    options: &BenchOptions,
    reporter: &dyn Reporter,
) -> Result<Reference, String> {
    let path = reference.path.clone();
    let model = tokio::task::spawn_blocking(move || inspect(&path)).await.map_err(|error| chain(&error))?;
    let model = Arc::new(model.map_err(|error| chain(&error))?);
    let tokenizer = registry.text_assets(&model).map_err(|error| chain(&error))?.tokenizer;
    let difference =
        first_difference(arms.tokenizer, tokenizer.as_ref(), "").map_err(|error| chain(&error))?;
    if let Some(difference) = difference {
        return Err(format!("its tokenizer is another one: {difference}"));
    }
    let choice = reference.engine.as_deref().map_or(EngineChoice::Auto, EngineChoice::parse);
    let selection = registry.select(&model, &choice).map_err(|error| chain(&error))?;
    let mut spec = LoadSpec::new(model.clone(), tokenizer);
    let window = u32::try_from(work.sizes.window).unwrap_or(u32::MAX);
    (spec.context_length, spec.kv_tokens, spec.parallel) = (window, window, 1);
    (spec.threads, spec.prefill_chunk) = (options.threads, options.prefill_chunk);
    spec.prefix_cache.enabled = false;
    let loaded = selection.backend.load(spec, Arc::new(|_| true)).await.map_err(|error| chain(&error))?;
    let sizes = AgreementWork { n_windows: work.sizes.n_windows, window: work.sizes.window };
    let mut agreements = Vec::with_capacity(2);
    for arm in arms.models {
        match agreement::run([&loaded, arm], work, sizes, reporter).await {
            Ok(agreement) => agreements.push(agreement),
            Err(error) => {
                loaded.unload().await;
                return Err(chain(&error));
            }
        }
    }
    loaded.unload().await;
    Ok(Reference {
        path: reference.path.display().to_string(),
        engine: selection.backend.info().id.to_owned(),
        quantization: model.quantization.clone(),
        agreements,
    })
}
