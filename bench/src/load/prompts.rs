//! Prompts as token ids: prose of any length, each with a first id that no other prompt of the run has.
//!
//! So no server can reuse one prompt's cache for another, except where a scenario wants it, and both arms get the same
//! ids in visits of the same number.

use duet_core::text::{EncodeOptions, TokenId, Tokenizer};

use super::error::LoadError;

/// By how much the text is turned from one prompt to the next; prime to most lengths.
const TURN: usize = 97;

/// Where prompts come from.
#[derive(Debug, Clone)]
pub struct Prompts {
    text: Vec<TokenId>,
    heads: Vec<TokenId>,
}

impl Prompts {
    /// From a text; the seed decides which ids come first, so that runs with different seeds share no prompt.
    ///
    /// # Errors
    /// `Tokenize`; `Option` for an empty text.
    pub fn new(tokenizer: &dyn Tokenizer, text: &str, seed: u64) -> Result<Self, LoadError> {
        Self::of_ids(tokenizer, tokenizer.encode(text, EncodeOptions::default())?, seed)
    }

    /// From a text's ids.
    ///
    /// # Errors
    /// `Option` for none.
    pub fn of_ids(tokenizer: &dyn Tokenizer, text: Vec<TokenId>, seed: u64) -> Result<Self, LoadError> {
        let is_text = |id: &TokenId| !tokenizer.is_control(*id) && tokenizer.token_bytes(*id).is_some();
        let mut heads: Vec<TokenId> = (0..tokenizer.vocab_size()).filter(is_text).collect();
        if text.is_empty() || heads.is_empty() {
            return Err(LoadError::Option("the text has no tokens".into()));
        }
        let turn = (seed % heads.len() as u64) as usize;
        heads.rotate_left(turn);
        Ok(Self { text, heads })
    }

    /// Those of a visit, where every visit has so many; the same numbers give the same prompts.
    pub fn of_visit(&self, number: usize, per_visit: usize) -> VisitPrompts<'_> {
        let next = number.saturating_mul(per_visit);
        VisitPrompts { all: self, next, end: next.saturating_add(per_visit) }
    }
}

/// The prompts of one visit, handed out one by one.
#[derive(Debug)]
pub struct VisitPrompts<'a> {
    all: &'a Prompts,
    next: usize,
    end: usize,
}

impl VisitPrompts<'_> {
    /// A prompt of exactly `n` ids, at least 1.
    ///
    /// # Errors
    /// `Option` where the vocabulary has no more first ids, or the visit takes too many prompts.
    pub fn prompt(&mut self, n: usize) -> Result<Vec<TokenId>, LoadError> {
        self.after(&[], n)
    }

    /// A prompt of exactly `n` ids that begins with `prefix` and shares not one more with any other prompt.
    ///
    /// # Errors
    /// As [`VisitPrompts::prompt`]; `Option` where `n` leaves nothing beside the prefix.
    pub fn after(&mut self, prefix: &[TokenId], n: usize) -> Result<Vec<TokenId>, LoadError> {
        if n <= prefix.len() {
            return Err(LoadError::Option(format!(
                "a prompt of {n} tokens cannot begin with {} and go on",
                prefix.len()
            )));
        }
        let head = self.all.heads.get(self.next).filter(|_| self.next < self.end).ok_or_else(|| {
            LoadError::Option("there are not enough different prompts for so many visits or streams".into())
        })?;
        let from = (self.next * TURN) % self.all.text.len();
        self.next += 1;
        let text = self.all.text.iter().cycle().skip(from);
        Ok(prefix.iter().chain([head]).chain(text).take(n).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use duet_core::testing::ByteTokenizer;

    use super::*;

    fn prompts(seed: u64) -> Prompts {
        Prompts::new(&ByteTokenizer::default(), "It was a dark and stormy night.", seed).unwrap()
    }

    #[test]
    fn prompts_have_their_length_and_a_first_id_of_their_own() {
        let prompts = prompts(3);
        let mut first = HashSet::new();
        for visit in 0..3 {
            let mut of_visit = prompts.of_visit(visit, 9);
            for _ in 0..9 {
                let prompt = of_visit.prompt(100).unwrap();
                assert_eq!(prompt.len(), 100, "longer than the text");
                assert!(first.insert(prompt[0]));
            }
            assert!(matches!(of_visit.prompt(100), Err(LoadError::Option(_))), "that is another visit's");
        }
    }

    #[test]
    fn the_same_visit_has_the_same_prompts_and_another_seed_others() {
        let of = |seed, visit| prompts(seed).of_visit(visit, 2).prompt(8).unwrap();
        assert_eq!(of(3, 1), of(3, 1));
        assert_ne!(of(3, 1), of(3, 2));
        assert_ne!(of(3, 1), of(4, 1));
    }

    #[test]
    fn a_shared_prefix_is_shared_exactly() {
        let prompts = prompts(0);
        let mut of_visit = prompts.of_visit(0, 3);
        let prefix = of_visit.prompt(10).unwrap();
        let (a, b) = (of_visit.after(&prefix, 12).unwrap(), of_visit.after(&prefix, 12).unwrap());
        assert_eq!((&a[..10], &b[..10], a.len()), (&prefix[..], &prefix[..], 12));
        assert_ne!(a[10], b[10]);
        for n in [0, 9, 10] {
            assert!(matches!(of_visit.after(&prefix, n), Err(LoadError::Option(_))));
        }
    }

    #[test]
    fn a_vocabulary_runs_out_with_an_error() {
        let prompts = prompts(0);
        for visit in [5, 1 << 60, usize::MAX] {
            assert!(matches!(prompts.of_visit(visit, 64).prompt(3), Err(LoadError::Option(_))), "{visit}");
        }
        let empty = Prompts::new(&ByteTokenizer::default(), "", 0);
        assert!(matches!(empty, Err(LoadError::Option(_))));
    }
}
