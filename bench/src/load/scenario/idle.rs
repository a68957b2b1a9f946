//! The first request after nothing happened for a while, and the one just after it.

use std::time::Duration;

use super::Outcome;
use crate::http::Answer;
use crate::load::answers::Answers;
use crate::load::error::LoadError;
use crate::load::figure::Figure;
use crate::load::prompts::VisitPrompts;

const OUTPUT: u32 = 4;

/// Sleeps for `pause` with nothing running, then asks twice for the same kind of thing.
pub(crate) async fn run(
    arm: &dyn Answers,
    name: &str,
    pause: Duration,
    n_prompt: usize,
    prompts: &mut VisitPrompts<'_>,
) -> Result<Outcome, LoadError> {
    let (cold, warm) = (prompts.prompt(n_prompt)?, prompts.prompt(n_prompt)?);
    tokio::time::sleep(pause).await;
    let cold = arm.answer("the first request after idle", cold, OUTPUT).await?;
    let warm = arm.answer("the request after it", warm, OUTPUT).await?;
    let first = |answer: &Answer| answer.time_to_first_token().unwrap_or_default();
    let figures = vec![
        Figure::seconds(format!("{name}: TTFT"), first(&cold)),
        Figure::seconds(format!("{name}: TTFT just after"), first(&warm)),
        Figure::times(format!("{name}: TTFT ÷ just after"), first(&cold), first(&warm)),
    ];
    let mut outcome = Outcome { figures, ..Outcome::default() };
    outcome.keep("after idle", cold, OUTPUT, 0);
    outcome.keep("just after", warm, OUTPUT, 0);
    Ok(outcome)
}
