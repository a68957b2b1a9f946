//! The arms' logits beside each other's and the reference's, each once however many processes a run takes.

use duet_core::registry::Registry;

use super::arm::Arm;
use super::journal::{Came, Journal, Past};
use super::reference;
use crate::agreement::{self, Agreement, AgreementError, AgreementWork, Reference};
use crate::error::BenchError;
use crate::options::BenchOptions;
use crate::reporter::Reporter;
use crate::work::Work;

/// The stage in which logits are compared.
const AGREEMENT: &str = "agreement";

/// As [`agree`], unless an earlier process has done it, or was lost in it.
pub(super) async fn agree_once(
    journal: &mut Option<Journal>,
    arms: &mut [Arm; 2],
    work: &Work,
    swap: bool,
    reporter: &dyn Reporter,
) -> Result<Result<Agreement, String>, BenchError> {
    if work.sizes.n_windows == 0 {
        return Ok(agree(arms, work, swap, reporter).await);
    }
    match journal.as_ref().map_or(Past::New, |journal| journal.past(AGREEMENT)) {
        Past::Done(Came::Agreement(agreement)) => return Ok(Ok(*agreement)),
        Past::Lost(why) => {
            return Ok(Err(format!("the process that was to compare the logits was lost: {why}")));
        }
        Past::New | Past::Done(_) => {}
    }
    if let Some(journal) = journal {
        journal.begin_stage(AGREEMENT)?;
    }
    let found = agree(arms, work, swap, reporter).await;
    if let Some(journal) = journal {
        let came = found.as_ref().map_or(Came::Nothing, |found| Came::Agreement(Box::new(found.clone())));
        journal.stage_done(AGREEMENT, came)?;
    }
    Ok(found)
}

/// The stage in which both arms are held against the reference.
const REFERENCE: &str = "reference";

/// Both arms against the reference, unless an earlier process has done it, or was lost in it; why not is said.
pub(super) async fn refer_once(
    journal: &mut Option<Journal>,
    registry: &Registry,
    arms: &[Arm; 2],
    work: &Work,
    options: &BenchOptions,
    reporter: &dyn Reporter,
) -> Result<Option<Result<Reference, String>>, BenchError> {
    let Some(reference) = &options.reference else { return Ok(None) };
    let [Some(a), Some(b)] = arms.each_ref().map(Arm::running) else {
        return Ok(Some(Err("an arm failed".to_owned())));
    };
    if work.sizes.n_windows == 0 {
        return Ok(Some(Err("no logits are compared in this run".to_owned())));
    }
    match journal.as_ref().map_or(Past::New, |journal| journal.past(REFERENCE)) {
        Past::Done(Came::Reference(found)) => return Ok(Some(Ok(*found))),
        Past::Lost(why) => return Ok(Some(Err(why))),
        Past::New | Past::Done(_) => {}
    }
    if let Some(journal) = journal {
        journal.begin_stage(REFERENCE)?;
    }
    let both = reference::Arms { models: [a, b], tokenizer: a.tokenizer().as_ref() };
    let found = reference::compare(registry, reference, both, work, options, reporter).await;
    if let Some(journal) = journal {
        let came = found.as_ref().map_or(Came::Nothing, |found| Came::Reference(Box::new(found.clone())));
        journal.stage_done(REFERENCE, came)?;
    }
    Ok(Some(found))
}

async fn agree(
    arms: &mut [Arm; 2],
    work: &Work,
    swap: bool,
    reporter: &dyn Reporter,
) -> Result<Agreement, String> {
    let sizes = work.sizes;
    if sizes.n_windows == 0 && swap {
        return Err("only one arm is loaded at a time".to_owned());
    }
    if sizes.n_windows == 0 {
        return Err("not asked for".to_owned());
    }
    let [a, b] = &*arms;
    let models = match (a.running(), b.running()) {
        (Some(a), Some(b)) => [a, b],
        (None, _) => return Err(format!("{} failed", a.label())),
        (_, None) => return Err(format!("{} failed", b.label())),
    };
    let sizes = AgreementWork { n_windows: sizes.n_windows, window: sizes.window };
    match agreement::run(models, work, sizes, reporter).await {
        Ok(agreement) => Ok(agreement),
        Err(AgreementError::Arm { side, source }) => {
            arms[side.index()].fail("the agreement".to_owned(), &source, source.code());
            Err(format!("{} failed", arms[side.index()].label()))
        }
        Err(other) => Err(duet_core::chain(&other)),
    }
}
