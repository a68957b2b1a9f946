//! DRY ("don't repeat yourself"): a penalty on every token that would lengthen a repeat of the text's end.

use super::SamplingParams;
use crate::text::{TokenId, Tokenizer};

/// The tokens that contain one of `texts`, by rising id: what [`SamplingParams::dry_sequence_breakers`] takes.
///
/// A text that only several tokens together spell is not found in any. Looks through the whole vocabulary (some
/// milliseconds); empty texts match nothing.
#[must_use]
pub fn sequence_breakers(tokenizer: &dyn Tokenizer, texts: &[String]) -> Vec<TokenId> {
    let contains = |bytes: &[u8], text: &str| {
        !text.is_empty() && bytes.windows(text.len()).any(|at| at == text.as_bytes())
    };
    let breaks = |id: &TokenId| {
        tokenizer.token_bytes(*id).is_some_and(|bytes| texts.iter().any(|text| contains(bytes, text)))
    };
    (0..tokenizer.vocab_size()).filter(breaks).collect()
}

/// Finds the repeats in a history and the penalties they cost.
#[derive(Debug, Clone)]
pub(super) struct Dry {
    multiplier: f32,
    base: f32,
    allowed_length: usize,
    /// Window length in tokens; `None` is all of them.
    window: Option<usize>,
    /// By rising id.
    breakers: Vec<TokenId>,
    /// The window, latest token first.
    reversed: Vec<TokenId>,
    /// How many tokens from each position on equal the start of `reversed`.
    matches: Vec<usize>,
    penalties: Vec<(TokenId, f32)>,
}

impl Dry {
    /// `None` where DRY is off.
    pub(super) fn new(params: &SamplingParams) -> Option<Self> {
        let mut breakers = params.dry_sequence_breakers.clone();
        breakers.sort_unstable();
        params.has_dry().then(|| Self {
            multiplier: params.dry_multiplier,
            base: params.dry_base,
            allowed_length: params.dry_allowed_length as usize,
            window: usize::try_from(params.dry_penalty_last_n).ok(),
            breakers,
            reversed: Vec::new(),
            matches: Vec::new(),
            penalties: Vec::new(),
        })
    }

    /// What to subtract from which logits after `history`, by rising id.
    ///
    /// A token that followed an earlier occurrence of the last n tokens costs multiplier * base^(n - allowed), n being
    /// the longest such match, if n reaches the allowed length. No match reaches across a breaker.
    pub(super) fn penalties(&mut self, history: &[TokenId]) -> &[(TokenId, f32)] {
        self.penalties.clear();
        let window = self.window.unwrap_or(history.len()).min(history.len());
        self.reversed.clear();
        self.reversed.extend(history[history.len() - window..].iter().rev());
        let is_breaker = |id: &TokenId| self.breakers.binary_search(id).is_ok();
        let longest = self.reversed.iter().position(is_breaker).unwrap_or(window);
        if longest < self.allowed_length {
            return &self.penalties;
        }
        z_function(&self.reversed, &mut self.matches);
        for at in 1..self.reversed.len() {
            let length = self.matches[at].min(longest);
            if length >= self.allowed_length {
                self.penalties.push((self.reversed[at - 1], self.penalty(length)));
            }
        }
        // The greatest penalty of each token first, then only that one.
        self.penalties.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
        self.penalties.dedup_by_key(|penalty| penalty.0);
        &self.penalties
    }

    /// Finite for every length, so that a logit stays comparable after it.
    fn penalty(&self, length: usize) -> f32 {
        let exponent = i32::try_from(length - self.allowed_length).unwrap_or(i32::MAX);
        (f64::from(self.multiplier) * f64::from(self.base).powi(exponent)).min(1e30) as f32
    }
}

/// For each position the length of the longest match between the text from there and its start; 0 for position 0.
///
/// Linear time (Gusfield's Z algorithm), for matches may be as long as the text.
fn z_function(text: &[TokenId], matches: &mut Vec<usize>) {
    matches.clear();
    matches.resize(text.len(), 0);
    let (mut left, mut right) = (0, 0);
    for at in 1..text.len() {
        let mut n = if at < right { matches[at - left].min(right - at) } else { 0 };
        while at + n < text.len() && text[n] == text[at + n] {
            n += 1;
        }
        if at + n > right {
            (left, right) = (at, at + n);
        }
        matches[at] = n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::PieceTokenizer;

    fn dry(allowed_length: u32, window: i32, breakers: &[TokenId]) -> Dry {
        let params = SamplingParams {
            dry_multiplier: 0.5,
            dry_base: 2.0,
            dry_allowed_length: allowed_length,
            dry_penalty_last_n: window,
            dry_sequence_breakers: breakers.to_vec(),
            ..SamplingParams::default()
        };
        Dry::new(&params).expect("DRY is on")
    }

    #[track_caller]
    fn check(dry: &mut Dry, history: &[TokenId], expected: &[(TokenId, f32)]) {
        assert_eq!(dry.penalties(history), expected, "after {history:?}");
    }

    #[test]
    fn the_longest_match_of_each_token_counts() {
        let mut two = dry(2, -1, &[]);
        check(&mut two, &[], &[]);
        check(&mut two, &[1], &[]);
        check(&mut two, &[1, 2, 3, 9, 2], &[]);
        check(&mut two, &[1, 2, 3, 9, 1, 2], &[(3, 0.5)]);
        check(&mut two, &[5, 1, 2, 3, 9, 5, 1, 2], &[(3, 1.0)]);
        check(&mut two, &[1, 2, 7, 5, 1, 2, 3, 9, 5, 1, 2], &[(3, 1.0), (7, 0.5)]);
        // Overlapping repeats: the end 4 4 4 occurs one place earlier.
        check(&mut two, &[4, 4, 4, 4], &[(4, 1.0)]);
    }

    #[test]
    fn no_match_reaches_across_a_breaker_or_out_of_the_window() {
        check(&mut dry(2, -1, &[5]), &[5, 1, 2, 3, 9, 5, 1, 2], &[(3, 0.5)]);
        check(&mut dry(2, -1, &[2]), &[5, 1, 2, 3, 9, 5, 1, 2], &[]);
        check(&mut dry(2, 6, &[]), &[1, 2, 3, 9, 1, 2], &[(3, 0.5)]);
        check(&mut dry(2, 5, &[]), &[1, 2, 3, 9, 1, 2], &[]);
    }

    #[test]
    fn breakers_are_found_inside_of_tokens() {
        let tokenizer = PieceTokenizer::new(&[b"a", b"\n", b"x:\n", b"", b":", b"\xc3", "\u{fc}".as_bytes()]);
        let find = |texts: &[&str]| {
            sequence_breakers(&tokenizer, &texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(find(&["\n"]), [1, 2]);
        assert_eq!(find(&[":", "\n"]), [1, 2, 4]);
        assert_eq!(find(&["\u{fc}"]), [6]);
        assert_eq!(find(&[":\n"]), [2]);
        assert!(find(&["", "none"]).is_empty());
    }

    #[test]
    fn a_very_long_repeat_stays_finite_and_quick() {
        let history = vec![7; 100_000];
        let mut one = dry(1, -1, &[]);
        let penalties = one.penalties(&history);
        assert_eq!(penalties, [(7, 1e30)]);
    }
}
