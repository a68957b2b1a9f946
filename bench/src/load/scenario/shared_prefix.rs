//! Prompts at once that begin alike, on a cold cache: agents over the same instructions.

use futures_util::future::try_join_all;

use super::{Outcome, first_tokens, wall};
use crate::http::Answer;
use crate::load::answers::Answers;
use crate::load::error::LoadError;
use crate::load::figure::{Figure, quantile};
use crate::load::prompts::VisitPrompts;
use crate::load::sizes::Sizes;

const NAME: &str = "shared prefix";

pub(crate) async fn run(
    arm: &dyn Answers,
    sizes: &Sizes,
    prompts: &mut VisitPrompts<'_>,
) -> Result<Outcome, LoadError> {
    let prefix = prompts.prompt(sizes.shared)?;
    let made: Vec<_> =
        (0..sizes.sharers).map(|_| prompts.after(&prefix, sizes.shared_prompt)).collect::<Result<_, _>>()?;
    let answers = made.into_iter().map(|prompt| arm.answer(NAME, prompt, sizes.shared_output));
    let answers = try_join_all(answers).await?;
    let mut outcome = Outcome::default();
    outcome.figures.push(Figure::seconds(format!("{NAME}: wall time"), wall(&answers)));
    if let Some(n) = answers.iter().map(Answer::n_evaluated).sum::<Option<u64>>() {
        outcome.figures.push(Figure::tokens(format!("{NAME}: prompt tokens evaluated"), n));
    }
    if let Some(first) = quantile(&first_tokens(&answers), 0.5) {
        outcome.figures.push(Figure::seconds(format!("{NAME}: median TTFT"), first));
    }
    for answer in answers {
        outcome.keep("sharer", answer, sizes.shared_output, sizes.shared);
    }
    Ok(outcome)
}
