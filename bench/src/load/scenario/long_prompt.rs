//! A long prompt arrives while a stream runs: who waits for whom?

use std::time::Duration;

use super::Outcome;
use crate::http::{Answer, AnswerStream};
use crate::load::arm::Arm;
use crate::load::error::LoadError;
use crate::load::figure::{Figure, gaps, quantile};
use crate::load::prompts::VisitPrompts;
use crate::load::sizes::Sizes;

const NAME: &str = "long prompt";
/// Arrivals at the stream's beginning that are not counted: its own prefill is among them.
const SKIPPED: usize = 8;
/// Tokens of the newcomer's answer; enough that the running stream comes to its next token meanwhile.
const NEWCOMER_OUTPUT: u32 = 8;

pub(super) async fn run(
    arm: &Arm,
    sizes: &Sizes,
    prompts: &mut VisitPrompts<'_>,
) -> Result<Outcome, LoadError> {
    let alone =
        arm.answer("the long prompt alone", prompts.prompt(sizes.long_prompt)?, NEWCOMER_OUTPUT).await?;
    let mut running =
        arm.send("the running stream", prompts.prompt(sizes.prompt)?, sizes.running_output).await?;
    while running.so_far().arrivals().len() < sizes.before {
        read(arm, &mut running).await?;
    }
    let newcomer = arm.answer("the long prompt", prompts.prompt(sizes.long_prompt)?, NEWCOMER_OUTPUT);
    tokio::pin!(newcomer);
    let newcomer = loop {
        tokio::select! {
            answer = &mut newcomer => break answer?,
            outcome = read(arm, &mut running) => outcome?,
        }
    };
    let running = running.leave();
    let mut outcome = Outcome { figures: figures(arm, &alone, &running, &newcomer)?, ..Outcome::default() };
    outcome.keep("newcomer, alone", alone, NEWCOMER_OUTPUT, 0);
    outcome.keep("running", running, sizes.running_output, 0);
    outcome.keep("newcomer", newcomer, NEWCOMER_OUTPUT, 0);
    Ok(outcome)
}

async fn read(arm: &Arm, running: &mut AnswerStream) -> Result<(), LoadError> {
    match running.next().await {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(arm.failed("the running stream", error)),
        None => Err(arm.problem(
            "the running stream ended before the long prompt was answered; give it more tokens".into(),
        )),
    }
}

fn figures(arm: &Arm, alone: &Answer, running: &Answer, newcomer: &Answer) -> Result<Vec<Figure>, LoadError> {
    let gaps = Gaps::new(&running.arrivals(), newcomer);
    let (Some(before), Some(during)) = (quantile(&gaps.before, 0.5), quantile(&gaps.during, 0.99)) else {
        return Err(arm.problem("the running stream has no gap before or beside the long prompt".into()));
    };
    let longest = gaps.during.iter().max().copied().unwrap_or_default();
    let first = |answer: &Answer| answer.time_to_first_token().unwrap_or_default();
    let (idle, busy) = (first(alone), first(newcomer));
    Ok(vec![
        Figure::milliseconds(format!("{NAME}: gap before, p50"), before),
        Figure::milliseconds(format!("{NAME}: gap during, p99"), during),
        Figure::milliseconds(format!("{NAME}: gap during, longest"), longest),
        Figure::times(format!("{NAME}: gap p99 during ÷ p50 before"), during, before),
        Figure::seconds(format!("{NAME}: TTFT idle"), idle),
        Figure::seconds(format!("{NAME}: TTFT beside a stream"), busy),
        Figure::times(format!("{NAME}: TTFT beside ÷ idle"), busy, idle),
    ])
}

/// Times between arrivals of the running stream.
struct Gaps {
    /// Those that were over when the newcomer was sent.
    before: Vec<Duration>,
    /// Those that share an instant with the newcomer's wait for its first token.
    during: Vec<Duration>,
}

impl Gaps {
    fn new(arrivals: &[Duration], newcomer: &Answer) -> Self {
        let sent = Duration::from_nanos(newcomer.sent_ns);
        let answered = sent + newcomer.time_to_first_token().unwrap_or_default();
        let n_before = arrivals.iter().filter(|at| **at <= sent).count();
        let last_before = n_before.saturating_sub(1);
        // The first arrival after the answer ends the last gap that overlaps the wait.
        let end = (arrivals.iter().filter(|at| **at < answered).count() + 1).min(arrivals.len());
        Self {
            before: gaps(arrivals.get(SKIPPED..n_before).unwrap_or_default()),
            during: gaps(arrivals.get(last_before..end).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Piece;

    fn newcomer(sent_ms: u64, first_ms: u64) -> Answer {
        let pieces = vec![Piece { at_ns: first_ms * 1_000_000, n_bytes: 1 }];
        Answer { sent_ns: sent_ms * 1_000_000, pieces, ..Answer::default() }
    }

    #[track_caller]
    fn check(arrivals_ms: &[u64], newcomer: &Answer, before: &[u64], during: &[u64]) {
        let ms = |all: &[u64]| all.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        let found = Gaps::new(&ms(arrivals_ms), newcomer);
        assert_eq!((found.before, found.during), (ms(before), ms(during)));
    }

    #[test]
    fn gaps_are_before_or_during() {
        let mut arrivals: Vec<u64> = (0..11).map(|i| i * 10).collect(); // to 100
        arrivals.extend([150, 210, 220, 230]);
        // Sent at 101, answered at 205: the gap that it arrived in, the one after, and the one it was answered in.
        check(&arrivals, &newcomer(101, 205), &[10, 10], &[50, 60]);
        // Answered together with a token of the stream.
        check(&arrivals, &newcomer(101, 210), &[10, 10], &[50, 60]);
        check(&arrivals, &newcomer(101, 211), &[10, 10], &[50, 60, 10]);
    }

    #[test]
    fn a_frozen_stream_has_one_long_gap() {
        let mut arrivals: Vec<u64> = (0..11).map(|i| i * 10).collect();
        arrivals.push(9000);
        check(&arrivals, &newcomer(101, 8990), &[10, 10], &[8900]);
    }

    #[test]
    fn a_stream_that_stops_or_never_began_has_none() {
        let arrivals: Vec<u64> = (0..11).map(|i| i * 10).collect();
        check(&arrivals, &newcomer(101, 205), &[10, 10], &[]);
        check(&[], &newcomer(1, 2), &[], &[]);
        check(&[5], &newcomer(1, 2), &[], &[]);
    }
}
