//! Texts that are evaluated for their vectors: one after another, between the steps of running streams.

use tokio::sync::oneshot;

use crate::embedding::Pooling;
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
    answer: Option<oneshot::Sender<Result<Vectors, BackendError>>>,
}

impl EmbeddingJob {
    pub(crate) fn new(
        texts: Vec<Vec<TokenId>>,
        pooling: Pooling,
        answer: oneshot::Sender<Result<Vectors, BackendError>>,
    ) -> Self {
        let vectors = Vec::with_capacity(texts.len());
        Self { texts, pooling, vectors, answer: Some(answer) }
    }

    /// Evaluates the next text; gives the number of its tokens. Nothing is done for those who have left.
    pub(crate) fn step(&mut self, runner: &mut dyn ModelRunner) -> usize {
        let Some(answer) = self.answer.take_if(|answer| !answer.is_closed()) else {
            self.answer = None;
            return 0;
        };
        let mut n_tokens = 0;
        if let Some(text) = self.texts.get(self.vectors.len()) {
            match runner.embed(text, self.pooling) {
                Ok(vector) => self.vectors.push(vector),
                Err(error) => {
                    let _ = answer.send(Err(error)); // an error means that nobody waits any more
                    return 0;
                }
            }
            n_tokens = text.len();
        }
        if self.vectors.len() == self.texts.len() {
            let _ = answer.send(Ok(std::mem::take(&mut self.vectors))); // as above
        } else {
            self.answer = Some(answer);
        }
        n_tokens
    }

    /// Whether there is nothing left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.answer.is_none()
    }
}
