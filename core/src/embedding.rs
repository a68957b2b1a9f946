//! One vector for a text: how the states of its tokens become one.

use crate::error::BackendError;
use crate::runner::Capabilities;
use crate::text::TokenId;

/// How the last layer's states, one per token, become the vector of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the last token.
    Last,
    /// That of the first token, which encoders are trained for ("cls").
    First,
}

impl Pooling {
    /// Their names in settings.
    pub const NAMES: [(&'static str, Self); 3] =
        [("mean", Self::Mean), ("last", Self::Last), ("cls", Self::First)];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|entry| entry.1 == self).map_or("", |entry| entry.0)
    }
}

/// Tokens of a part of a text where each sees only those before it: small enough that running streams hardly notice.
pub const PART: u32 = 128;

/// The next tokens of a text whose vector is wanted.
#[derive(Debug, Clone, Copy)]
pub struct TextPart<'a> {
    /// 1 to [`crate::Capabilities::embedding_part`] ids of the vocabulary.
    pub tokens: &'a [TokenId],
    /// That of the first of them in the text; 0 begins a text.
    pub position: u32,
    /// Tokens of the whole text; at most [`crate::Capabilities::context_length`].
    pub n_text: u32,
}

impl TextPart<'_> {
    /// Whether an engine with these capabilities and so many tokens in its vocabulary may be given it.
    ///
    /// # Errors
    /// [`BackendError::InvalidRequest`].
    pub fn check(&self, capabilities: &Capabilities, n_vocab: usize) -> Result<(), BackendError> {
        let invalid = |message: String| Err(BackendError::invalid("input", message));
        let (n, most) = (self.tokens.len(), capabilities.embedding_part as usize);
        if n == 0 || n > most {
            return invalid(format!("a part of {n} tokens; it may have 1 to {most}"));
        }
        let (n_text, context_length) = (self.n_text as usize, capabilities.context_length as usize);
        if self.position as usize + n > n_text || n_text > context_length {
            return invalid(format!("a text of {n_text} tokens in a context of {context_length}"));
        }
        match self.tokens.iter().find(|id| **id as usize >= n_vocab) {
            Some(id) => invalid(format!("token {id} of a vocabulary of {n_vocab}")),
            None => Ok(()),
        }
    }
}

/// Pools states that come in chunks, the same on every engine.
#[derive(Debug)]
pub struct Pooler {
    pooling: Pooling,
    width: usize,
    n_tokens: usize,
    sums: Vec<f64>,
}

impl Pooler {
    /// Before the first token of a text whose states have this width.
    pub fn new(pooling: Pooling, width: usize) -> Self {
        Self { pooling, width, n_tokens: 0, sums: vec![0.0; width] }
    }

    /// Numbers in a state.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Takes the states `[n, width]` of the next tokens.
    pub fn push(&mut self, states: &[f32]) {
        for state in states.chunks_exact(self.width.max(1)) {
            let counts = match self.pooling {
                Pooling::Mean => true,
                Pooling::First => self.n_tokens == 0,
                Pooling::Last => {
                    self.sums.fill(0.0);
                    true
                }
            };
            self.n_tokens += 1;
            if counts {
                self.sums.iter_mut().zip(state).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
    }

    /// The vector, `[width]`, not normalised; zeroes for a text without tokens. `None` if a number of it is not finite: no
    /// JSON could say it.
    pub fn finish(self) -> Option<Vec<f32>> {
        let n = match self.pooling {
            Pooling::Mean => self.n_tokens.max(1) as f64,
            Pooling::Last | Pooling::First => 1.0,
        };
        self.sums.into_iter().map(|sum| Some((sum / n) as f32).filter(|number| number.is_finite())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pooling: Pooling, expected: [f32; 2]) {
        for chunk in [1, 2, 3, 7] {
            let mut pooler = Pooler::new(pooling, 2);
            [1.0, 10.0, 2.0, 20.0, 6.0, 60.0].chunks(2 * chunk).for_each(|states| pooler.push(states));
            assert_eq!(pooler.finish().as_deref(), Some(&expected[..]), "{pooling:?} in chunks of {chunk}");
        }
    }

    #[test]
    fn chunks_make_no_difference() {
        check(Pooling::Mean, [3.0, 30.0]);
        check(Pooling::Last, [6.0, 60.0]);
        check(Pooling::First, [1.0, 10.0]);
    }

    #[test]
    fn nothing_is_zero_and_names_are_told_apart() {
        for (name, pooling) in Pooling::NAMES {
            assert_eq!(Pooler::new(pooling, 3).finish(), Some(vec![0.0; 3]));
            assert_eq!(pooling.name(), name);
        }
    }

    #[test]
    fn what_no_json_can_say_is_none() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut pooler = Pooler::new(Pooling::Mean, 2);
            pooler.push(&[1.0, bad, 3.0, 4.0]);
            assert_eq!(pooler.finish(), None);
        }
    }
}
