//! Whatever scenarios can be done to: a server of the load bench, or an arm of `duet bench`, an engine's among them.

use std::time::Duration;

use async_trait::async_trait;

use super::arm::Arm;
use super::error::LoadError;
use crate::http::Answer;

/// Answers completions on token ids.
#[async_trait]
pub(crate) trait Answers: Send + Sync {
    /// Now, on the clock that answers are stamped with.
    fn now(&self) -> Duration;

    /// Asks for exactly `max_tokens` tokens and waits for the end.
    ///
    /// # Errors
    /// As [`LoadError`] says; an answer without a token is one.
    async fn answer(&self, during: &str, prompt: Vec<u32>, max_tokens: u32) -> Result<Answer, LoadError>;
}

#[async_trait]
impl Answers for Arm {
    fn now(&self) -> Duration {
        Arm::now(self)
    }

    async fn answer(&self, during: &str, prompt: Vec<u32>, max_tokens: u32) -> Result<Answer, LoadError> {
        Arm::answer(self, during, prompt, max_tokens).await
    }
}
