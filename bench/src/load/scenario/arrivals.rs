//! Requests that arrive as they do in life: at random, whether the ones before have been answered or not.
//!
//! Each waits for its own instant, whatever the others do, and its times count from that instant: a server that stalls
//! delays nobody's arrival and hides nothing (no coordinated omission).

use std::time::Duration;

use futures_util::future::try_join_all;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::Outcome;
use crate::clock::nanos;
use crate::http::Answer;
use crate::load::answers::Answers;
use crate::load::error::LoadError;
use crate::load::figure::{Figure, quantile};
use crate::load::prompts::VisitPrompts;

/// Fewer requests than this have no 99th percentile.
const LEAST_FOR_P99: usize = 100;

/// How requests arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Arrivals {
    /// How many.
    pub(crate) n: usize,
    /// Arrivals per second, on average.
    pub(crate) per_second: f64,
    /// Decides when each arrives.
    pub(crate) seed: u64,
    /// Tokens of each prompt.
    pub(crate) n_prompt: usize,
    /// Tokens of each answer.
    pub(crate) n_output: u32,
}

impl Arrivals {
    /// When each arrives, from the first one's arrival at 0: exponential gaps (a Poisson process).
    pub(crate) fn due(&self) -> Vec<Duration> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut at = 0.0;
        let gap = |random: &mut ChaCha8Rng| {
            let uniform = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            -(1.0 - uniform).ln() / self.per_second
        };
        (0..self.n)
            .map(|index| {
                if index > 0 {
                    at += gap(&mut random);
                }
                Duration::from_secs_f64(at)
            })
            .collect()
    }
}

pub(crate) async fn run(
    arm: &dyn Answers,
    name: &str,
    arrivals: &Arrivals,
    prompts: &mut VisitPrompts<'_>,
) -> Result<Outcome, LoadError> {
    let made: Vec<_> =
        (0..arrivals.n).map(|_| prompts.prompt(arrivals.n_prompt)).collect::<Result<_, _>>()?;
    let (began, timer) = (arm.now(), tokio::time::Instant::now());
    let asked = arrivals.due().into_iter().zip(made).map(|(due, prompt)| async move {
        tokio::time::sleep_until(timer + due).await;
        let answer = arm.answer(name, prompt, arrivals.n_output).await?;
        // From the instant it was due, not from when this client got round to it.
        Ok::<_, LoadError>(Answer { sent_ns: nanos(began + due), ..answer })
    });
    let answers = try_join_all(asked).await?;
    let mut outcome = Outcome { figures: figures(name, &answers), ..Outcome::default() };
    for answer in answers {
        outcome.keep("arrival", answer, arrivals.n_output, 0);
    }
    Ok(outcome)
}

/// Percentiles of the times to the first token and per token after it.
fn figures(name: &str, answers: &[Answer]) -> Vec<Figure> {
    let first = super::first_tokens(answers);
    let per_token: Vec<Duration> = answers.iter().filter_map(Answer::time_per_token).collect();
    let mut figures = Vec::new();
    for (percent, least) in [(50, 1), (90, 1), (99, LEAST_FOR_P99)] {
        let p = f64::from(percent) / 100.0;
        if let Some(time) = quantile(&first, p).filter(|_| first.len() >= least) {
            figures.push(Figure::seconds(format!("{name}: TTFT p{percent}"), time));
        }
        if let Some(time) = quantile(&per_token, p).filter(|_| per_token.len() >= least) {
            figures.push(Figure::milliseconds(format!("{name}: TPOT p{percent}"), time));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use duet_core::testing::ByteTokenizer;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::http::{Piece, Usage};
    use crate::load::Prompts;

    const ARRIVALS: Arrivals = Arrivals { n: 400, per_second: 50.0, seed: 3, n_prompt: 4, n_output: 2 };

    #[test]
    fn gaps_are_those_of_a_poisson_process() {
        let due = ARRIVALS.due();
        assert_eq!((due[0], due.len()), (Duration::ZERO, 400));
        assert_eq!(due, ARRIVALS.due(), "one seed, one schedule");
        assert_ne!(due, Arrivals { seed: 4, ..ARRIVALS }.due());
        let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = crate::stats::mean(&gaps).unwrap();
        let sd = crate::stats::standard_deviation(&gaps).unwrap();
        // Both are 20 ms for exponential gaps; 400 of them tell within an eighth.
        assert!((mean - 0.02).abs() < 0.0025 && (sd - 0.02).abs() < 0.004, "{mean} {sd}");
    }

    /// Answers one request at a time, as a server that stalls does.
    struct OneAtATime {
        clock: SystemClock,
        busy: tokio::sync::Mutex<()>,
        began: Mutex<Vec<Duration>>,
    }

    #[async_trait]
    impl Answers for OneAtATime {
        fn now(&self) -> Duration {
            self.clock.now()
        }

        async fn answer(&self, _: &str, prompt: Vec<u32>, n: u32) -> Result<Answer, LoadError> {
            let _turn = self.busy.lock().await;
            let sent = self.clock.now();
            self.began.lock().unwrap().push(sent);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let at_ns = nanos(self.clock.now());
            let pieces = vec![Piece { at_ns, n_bytes: 1 }; n as usize];
            let usage = Usage {
                prompt_tokens: prompt.len() as u64,
                completion_tokens: n.into(),
                cached_tokens: Some(0),
            };
            Ok(Answer { sent_ns: nanos(sent), pieces, usage: Some(usage), ..Answer::default() })
        }
    }

    #[tokio::test]
    async fn waiting_in_line_is_in_the_latency() {
        let arm = OneAtATime {
            clock: SystemClock::default(),
            busy: tokio::sync::Mutex::default(),
            began: Mutex::default(),
        };
        let prompts = Prompts::new(&ByteTokenizer::default(), "one two three four five", 1).unwrap();
        // Ten requests within a few milliseconds, each of which takes twenty.
        let arrivals = Arrivals { n: 10, per_second: 5000.0, ..ARRIVALS };
        let outcome = run(&arm, "arrivals", &arrivals, &mut prompts.of_visit(0, 10)).await.unwrap();
        let longest =
            outcome.requests.iter().filter_map(|request| request.answer.time_to_first_token()).max();
        assert!(
            longest.unwrap() >= Duration::from_millis(195),
            "the last one waited for nine others: {longest:?}"
        );
        let due: Vec<u64> = outcome.requests.iter().map(|request| request.answer.sent_ns).collect();
        assert!(due.is_sorted(), "in the order of arrival");
        let names: Vec<&str> = outcome.figures.iter().map(|figure| figure.name.as_str()).collect();
        let wanted = ["TTFT p50", "TPOT p50", "TTFT p90", "TPOT p90"].map(|what| format!("arrivals: {what}"));
        assert_eq!(names, wanted, "ten requests have no 99th percentile");
    }
}
