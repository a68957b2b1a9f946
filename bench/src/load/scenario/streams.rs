//! So many different prompts at once.

use futures_util::future::try_join_all;

use super::{Outcome, first_tokens, wall};
use crate::http::Answer;
use crate::load::answers::Answers;
use crate::load::error::LoadError;
use crate::load::figure::{Figure, quantile};
use crate::load::prompts::VisitPrompts;
use crate::load::sizes::Sizes;

/// Below so many tokens the common stretch says nothing about decoding.
const LEAST_DECODED: f64 = 8.0;

pub(crate) async fn run(
    arm: &dyn Answers,
    name: &str,
    n: usize,
    sizes: &Sizes,
    prompts: &mut VisitPrompts<'_>,
) -> Result<Outcome, LoadError> {
    let made: Vec<_> = (0..n).map(|_| prompts.prompt(sizes.prompt)).collect::<Result<_, _>>()?;
    let answers = made.into_iter().map(|prompt| arm.answer(name, prompt, sizes.output));
    let answers = try_join_all(answers).await?;
    let n_tokens = answers.iter().map(Answer::n_tokens).sum();
    let mut outcome = Outcome::default();
    outcome.figures.push(Figure::rate(format!("{name}: total"), n_tokens, wall(&answers)));
    if let Some(rate) = decode_rate(&answers) {
        let figure = Figure::rate(format!("{name}: all decoding"), 0, std::time::Duration::from_secs(1));
        outcome.figures.push(Figure { value: rate, ..figure });
    }
    if let Some(rate) = stream_rate(&answers) {
        let figure = Figure::rate(format!("{name}: each stream"), 0, std::time::Duration::from_secs(1));
        outcome.figures.push(Figure { value: rate, ..figure });
    }
    if let Some(first) = quantile(&first_tokens(&answers), 0.5) {
        outcome.figures.push(Figure::seconds(format!("{name}: median TTFT"), first));
    }
    for answer in answers {
        outcome.keep("stream", answer, sizes.output, 0);
    }
    Ok(outcome)
}

/// The median stream's tokens per second after its first token.
fn stream_rate(answers: &[Answer]) -> Option<f64> {
    let rates: Option<Vec<f64>> =
        answers.iter().map(|answer| Some(1.0 / answer.time_per_token()?.as_secs_f64())).collect();
    crate::stats::median(&rates?).filter(|rate| rate.is_finite())
}

/// Tokens per second of all streams together while all of them were decoding: from the last one's first token to the
/// first one's last. `None` where that stretch is too short to say anything.
fn decode_rate(answers: &[Answer]) -> Option<f64> {
    let ends = |answer: &Answer| Some((answer.pieces.first()?.at_ns, answer.pieces.last()?.at_ns));
    let ends: Vec<(u64, u64)> = answers.iter().map(ends).collect::<Option<_>>()?;
    let from = ends.iter().map(|(first, _)| *first).max()?;
    let to = ends.iter().map(|(_, last)| *last).min()?;
    let in_stretch = |answer: &Answer| {
        let n = answer.pieces.iter().filter(|piece| piece.at_ns > from && piece.at_ns <= to).count();
        // Tokens without text of their own came evenly among the others.
        n as f64 * answer.n_tokens() as f64 / answer.pieces.len() as f64
    };
    let n: f64 = answers.iter().map(in_stretch).sum();
    (to > from && n >= LEAST_DECODED).then(|| n * 1e9 / (to - from) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Piece, Usage};

    fn answer(at_ms: impl IntoIterator<Item = u64>, n_tokens: u64) -> Answer {
        let pieces = at_ms.into_iter().map(|ms| Piece { at_ns: ms * 1_000_000, n_bytes: 1 }).collect();
        let usage = Usage { prompt_tokens: 1, completion_tokens: n_tokens, cached_tokens: None };
        Answer { pieces, usage: Some(usage), ..Answer::default() }
    }

    #[test]
    fn the_stretch_in_which_all_decode_is_counted() {
        let a = answer((0..21).map(|i| i * 10), 21);
        let b = answer((5..30).map(|i| i * 10), 25);
        // 50 to 200 ms: 15 tokens each.
        assert!((decode_rate(&[a.clone(), b]).unwrap() - 200.0).abs() < 1e-9);
        assert!((decode_rate(&[a]).unwrap() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn tokens_without_text_count() {
        let half = answer((0..21).map(|i| i * 10), 42);
        assert!((decode_rate(&[half]).unwrap() - 200.0).abs() < 1e-9);
    }

    #[test]
    fn streams_one_after_another_have_no_common_stretch() {
        let (a, b) = (answer(0..20, 20), answer(20..40, 20));
        for answers in [&[a.clone(), b][..], &[a.clone(), answer([], 0)], &[answer(0..3, 3)], &[]] {
            assert_eq!(decode_rate(answers), None);
        }
    }
}
