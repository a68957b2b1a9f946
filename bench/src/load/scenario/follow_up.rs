//! The next turn of a long conversation, against its first.

use super::Outcome;
use crate::http::Answer;
use crate::load::arm::Arm;
use crate::load::error::LoadError;
use crate::load::figure::Figure;
use crate::load::prompts::VisitPrompts;
use crate::load::sizes::Sizes;

const OUTPUT: u32 = 8;

pub(super) async fn run(
    arm: &mut Arm,
    name: &str,
    restart: bool,
    sizes: &Sizes,
    prompts: &mut VisitPrompts<'_>,
) -> Result<Outcome, LoadError> {
    let conversation = prompts.prompt(sizes.conversation)?;
    let next = prompts.after(&conversation, sizes.conversation.saturating_add(sizes.turn))?;
    let cold = arm.answer("the conversation", conversation, OUTPUT).await?;
    if restart {
        arm.restart(prompts).await?;
    }
    let warm = arm.answer("the next turn", next, OUTPUT).await?;
    let first = |answer: &Answer| answer.time_to_first_token().unwrap_or_default();
    let mut figures = vec![
        Figure::seconds(format!("{name}: TTFT cold"), first(&cold)),
        Figure::seconds(format!("{name}: TTFT warm"), first(&warm)),
        Figure::times(format!("{name}: TTFT warm ÷ cold"), first(&warm), first(&cold)),
    ];
    if let Some(n) = warm.n_evaluated() {
        figures.push(Figure::tokens(format!("{name}: prompt tokens evaluated"), n));
    }
    let mut outcome = Outcome { figures, ..Outcome::default() };
    outcome.keep("conversation", cold, OUTPUT, 0);
    outcome.keep("next turn", warm, OUTPUT, sizes.conversation);
    Ok(outcome)
}
