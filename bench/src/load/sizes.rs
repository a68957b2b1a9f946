//! How long prompts and answers are.

use serde::Serialize;

use super::error::LoadError;

/// Tokens of everything that scenarios send. The defaults are those of docs/load.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// `streams`: tokens of each prompt.
    pub prompt: usize,
    /// `streams`: tokens of each answer.
    pub output: u32,
    /// `shared-prefix`: prompts at once.
    pub sharers: usize,
    /// `shared-prefix`: tokens that all prompts begin with.
    pub shared: usize,
    /// `shared-prefix`: tokens of each whole prompt.
    pub shared_prompt: usize,
    /// `shared-prefix`: tokens of each answer.
    pub shared_output: u32,
    /// `long-prompt`: tokens of the prompt that arrives.
    pub long_prompt: usize,
    /// `long-prompt`: arrivals of the running stream before it does, the first eight not counted.
    pub before: usize,
    /// `long-prompt`: most tokens of the running stream, which is left when the newcomer has its answer.
    pub running_output: u32,
    /// `follow-up`: tokens of the conversation.
    pub conversation: usize,
    /// `follow-up`: tokens that the next turn adds.
    pub turn: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            prompt: 128,
            output: 64,
            sharers: 8,
            shared: 1150,
            shared_prompt: 1200,
            shared_output: 16,
            long_prompt: 4000,
            before: 72,
            running_output: 3500,
            conversation: 7000,
            turn: 48,
        }
    }
}

impl Sizes {
    /// Whether figures can come of them.
    ///
    /// # Errors
    /// `Option` with what is too small.
    pub fn check(&self) -> Result<(), LoadError> {
        let needs = [
            ("prompt", self.prompt, 1),
            ("output", self.output as usize, 2),
            ("sharers", self.sharers, 1),
            ("shared", self.shared, 1),
            ("shared_prompt", self.shared_prompt, self.shared.saturating_add(1)),
            ("shared_output", self.shared_output as usize, 1),
            ("long_prompt", self.long_prompt, 1),
            ("before", self.before, 10),
            ("running_output", self.running_output as usize, self.before.saturating_add(1)),
            ("conversation", self.conversation, 1),
            ("turn", self.turn, 1),
        ];
        match needs.iter().find(|(_, value, least)| value < least) {
            Some((name, value, least)) => {
                Err(LoadError::Option(format!("{name} is {value}; it has to be at least {least}")))
            }
            None => Ok(()),
        }
    }
}
