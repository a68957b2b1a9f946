//! Texts that are evaluated for their vectors: one after another, a part at a time, between the steps of running streams.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Shared;
use crate::embedding::{Pooler, Pooling, TextPart};
use crate::error::BackendError;
use crate::runner::ModelRunner;
use crate::text::TokenId;

/// The vectors of a job's texts, `[n_texts][width]`.
pub(crate) type Vectors = Vec<Vec<f32>>;

/// Several texts of one request.
pub(crate) struct EmbeddingJob {
    texts: Vec<Vec<TokenId>>,
    pooling: Pooling,
    vectors: Vectors,
    /// Tokens of the text at hand that were evaluated, and their states.
    begun: Option<(usize, Pooler)>,
    /// `None` once it is sent.
    answer: Option<oneshot::Sender<Result<Vectors, BackendError>>>,
}

impl EmbeddingJob {
    pub(crate) fn new(
        texts: Vec<Vec<TokenId>>,
        pooling: Pooling,
        answer: oneshot::Sender<Result<Vectors, BackendError>>,
    ) -> Self {
        let vectors = Vec::with_capacity(texts.len());
        Self { texts, pooling, vectors, begun: None, answer: Some(answer) }
    }

    /// Evaluates the next part; gives the number of its tokens. Nothing is done for those who have left.
    fn step(&mut self, runner: &mut dyn ModelRunner) -> usize {
        if self.answer.as_ref().is_none_or(oneshot::Sender::is_closed) {
            self.answer = None;
            return 0;
        }
        let n_tokens = match self.part(runner) {
            Ok(n_tokens) => n_tokens,
            Err(error) => {
                self.send(Err(error));
                return 0;
            }
        };
        if self.vectors.len() == self.texts.len() {
            let vectors = std::mem::take(&mut self.vectors);
            self.send(Ok(vectors));
        }
        n_tokens
    }

    fn part(&mut self, runner: &mut dyn ModelRunner) -> Result<usize, BackendError> {
        let Some(text) = self.texts.get(self.vectors.len()) else { return Ok(0) };
        let capabilities = runner.capabilities();
        // A score is a single number.
        let (width, most) = (capabilities.embedding_width.unwrap_or(1), capabilities.embedding_part);
        let (n_done, mut pooler) =
            self.begun.take().unwrap_or_else(|| (0, Pooler::new(self.pooling, width as usize)));
        let end = text.len().min(n_done + most as usize);
        let part =
            TextPart { tokens: &text[n_done..end], position: n_done as u32, n_text: text.len() as u32 };
        runner.embed(part, &mut pooler)?;
        if end == text.len() {
            let not_finite =
                || BackendError::engine("embedding", "the model gives numbers that are not finite");
            self.vectors.push(pooler.finish().ok_or_else(not_finite)?);
        } else {
            self.begun = Some((end, pooler));
        }
        Ok(end - n_done)
    }

    fn send(&mut self, result: Result<Vectors, BackendError>) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(result); // an error means that nobody waits any more
        }
    }

    fn is_over(&self) -> bool {
        self.answer.is_none()
    }
}

/// One of the requests for vectors that a model has at a time.
pub(super) struct Place(Arc<Shared>);

impl Place {
    /// One of `most`.
    ///
    /// # Errors
    /// [`BackendError::Overloaded`].
    pub(super) fn take(shared: &Arc<Shared>, most: usize) -> Result<Self, BackendError> {
        shared.take_place(&shared.n_embedding, most)?;
        Ok(Self(shared.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.n_embedding.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The jobs of a model, and how much of its time they may have beside running streams.
pub(crate) struct Embeddings {
    jobs: VecDeque<EmbeddingJob>,
    slowdown: f64,
    /// Below zero: seconds that streams have to run until the next part.
    credit_s: f64,
}

impl Embeddings {
    /// Running streams keep at least 1/`slowdown` of their pace.
    pub(crate) fn new(slowdown: f32) -> Self {
        Self { jobs: VecDeque::new(), slowdown: f64::from(slowdown).max(1.1), credit_s: 0.0 }
    }

    pub(crate) fn push(&mut self, job: EmbeddingJob) {
        self.jobs.push_back(job);
    }

    pub(crate) fn clear(&mut self) {
        self.jobs.clear();
    }

    /// Evaluates a part of a text if that is due; `alone`: no step is in flight. Gives its tokens and how long it took.
    pub(crate) fn step(&mut self, runner: &mut dyn ModelRunner, alone: bool) -> Option<(usize, Duration)> {
        if self.credit_s < 0.0 && !alone {
            return None;
        }
        let mut job = self.jobs.pop_front()?;
        let started = Instant::now();
        let n_tokens = job.step(runner);
        let took = started.elapsed();
        self.credit_s = if alone { 0.0 } else { self.credit_s - took.as_secs_f64() };
        match (job.is_over(), job.begun.is_some()) {
            (true, _) => {}
            // An engine has one text at a time.
            (false, true) => self.jobs.push_front(job),
            // In turns, so that a short request does not wait for a long one.
            (false, false) => self.jobs.push_back(job),
        }
        Some((n_tokens, took))
    }

    /// Streams ran for so long.
    pub(crate) fn streams_ran(&mut self, time: Duration) {
        self.credit_s = (self.credit_s + (self.slowdown - 1.0) * time.as_secs_f64()).min(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeConfig, FakeRunner, fake_spec};

    fn runner() -> FakeRunner {
        FakeRunner::new(FakeConfig::default(), &fake_spec(2))
    }

    type Answer = oneshot::Receiver<Result<Vectors, BackendError>>;

    fn job(texts: &[&[TokenId]]) -> (EmbeddingJob, Answer) {
        let (answer, vectors) = oneshot::channel();
        let texts = texts.iter().map(|text| text.to_vec()).collect();
        (EmbeddingJob::new(texts, Pooling::Last, answer), vectors)
    }

    #[test]
    fn streams_get_their_share_before_the_next_part() {
        let (mut runner, mut jobs) = (runner(), Embeddings::new(2.0));
        let (first, _waits) = job(&[&[1; 23]]);
        jobs.push(first);
        assert!(jobs.step(&mut runner, false).is_some());
        jobs.credit_s = -0.5;
        assert!(jobs.step(&mut runner, false).is_none(), "streams have not run yet");
        jobs.streams_ran(Duration::from_millis(400));
        assert!(jobs.step(&mut runner, false).is_none(), "not for long enough");
        jobs.streams_ran(Duration::from_millis(200));
        assert!(jobs.step(&mut runner, false).is_some(), "half of the time is theirs");
        jobs.credit_s = -0.5;
        assert!(jobs.step(&mut runner, true).is_some(), "nobody is there to wait for");
    }

    #[test]
    fn requests_take_turns_text_by_text() {
        let (mut runner, mut jobs) = (runner(), Embeddings::new(2.0));
        let (long, mut long_answer) = job(&[&[1; 7], &[2; 7], &[3; 7]]);
        let (short, mut short_answer) = job(&[&[4]]);
        jobs.push(long);
        jobs.push(short);
        let mut n_parts = 0;
        while short_answer.try_recv().is_err() {
            assert!(jobs.step(&mut runner, true).is_some());
            n_parts += 1;
        }
        assert_eq!(n_parts, 3, "two parts of the first text, one of the other request");
        assert!(long_answer.try_recv().is_err());
        while jobs.step(&mut runner, true).is_some() {}
        let vectors = long_answer.try_recv().expect("answered").expect("known tokens");
        assert_eq!(vectors.len(), 3);
    }

    #[test]
    fn nothing_is_done_for_those_who_left() {
        let (mut runner, mut jobs) = (runner(), Embeddings::new(2.0));
        let (begun, waits) = job(&[&[1; 12], &[2]]);
        let (gone, gone_answer) = job(&[&[3]]);
        let (stays, mut answer) = job(&[&[5; 6]]);
        for job in [begun, gone, stays] {
            jobs.push(job);
        }
        drop(gone_answer);
        assert_eq!(jobs.step(&mut runner, true).map(|step| step.0), Some(5));
        drop(waits); // in the middle of a text
        let parts: Vec<usize> =
            std::iter::from_fn(|| jobs.step(&mut runner, true)).map(|step| step.0).collect();
        assert_eq!(parts, [0, 0, 5, 1]);
        let vectors = answer.try_recv().expect("answered").expect("known tokens");
        let (alone, mut alone_answer) = job(&[&[5; 6]]);
        jobs.push(alone);
        while jobs.step(&mut runner, true).is_some() {}
        assert_eq!(alone_answer.try_recv().expect("answered").expect("known tokens"), vectors);
    }
}
