//! What a request may ask of the sampler, and its limits.

use super::MirostatParams;
use crate::text::TokenId;

/// How the next token is chosen from a row of logits.
///
/// The default is plain sampling from the model's own distribution (temperature 1, no filter, no penalty). The
/// chain's order and each filter's exact meaning: [the module](crate::sampling).
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits before the draw, after every filter; 0 is greedy. 0 to 2.
    pub temperature: f32,
    /// Keeps this many of the most probable tokens; 0 is off.
    pub top_k: u32,
    /// Keeps the smallest set of most probable tokens whose mass reaches this; 1 is off. 0 to 1.
    pub top_p: f32,
    /// Keeps tokens at least this probable relative to the most probable one; 0 is off. 0 to 1.
    pub min_p: f32,
    /// Keeps the tokens closest to the expected surprise until their mass exceeds this; 1 is off. 0 to 1.
    pub typical_p: f32,
    /// Keeps logits within this many standard deviations of the highest; `None` is off. Above 0.
    pub top_n_sigma: Option<f32>,
    /// Divides positive and multiplies negative logits of tokens in the window; 1 is off. Above 0.
    pub repetition_penalty: f32,
    /// How many of the latest tokens, prompt included, the three penalties look at; -1 is all of them, 0 none.
    pub repeat_last_n: i32,
    /// Subtracted from a token's logit once per occurrence in the window; 0 is off. -2 to 2.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of every token in the window; 0 is off. -2 to 2.
    pub presence_penalty: f32,
    /// Added to single tokens' logits before anything else; -100 to 100, or minus infinity to ban a token. Each id
    /// at most once.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Seeds the draws: same seed, same row, same parameters, same token.
    pub seed: u64,
    /// The chance, per token, that the most probable candidates are excluded (XTC); 0 is off. 0 to 1.
    pub xtc_probability: f32,
    /// XTC excludes all candidates at least this probable but the least probable of them; above 0.5 nothing ever
    /// is. 0 to 1.
    pub xtc_threshold: f32,
    /// Scale of the penalty on tokens that would go on repeating a sequence (DRY); 0 is off. At least 0.
    pub dry_multiplier: f32,
    /// How fast the DRY penalty grows with the repeat's length. At least 1.
    pub dry_base: f32,
    /// DRY: the shortest repeat that is penalised, in tokens. At least 1.
    pub dry_allowed_length: u32,
    /// How many of the latest tokens DRY looks at; -1 is all of them, 0 none.
    pub dry_penalty_last_n: i32,
    /// DRY: tokens that no repeat reaches across (line ends, quotes, ...).
    pub dry_sequence_breakers: Vec<TokenId>,
    /// Lets the set of candidates follow a target of surprise, within what the filters leave; `None` is off.
    pub mirostat: Option<MirostatParams>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            top_n_sigma: None,
            repetition_penalty: 1.0,
            repeat_last_n: -1,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: -1,
            dry_sequence_breakers: Vec::new(),
            mirostat: None,
        }
    }
}

/// A parameter outside of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{param} {message}")]
pub struct SamplingError {
    /// The field's name, as in [`SamplingParams`].
    pub param: &'static str,
    /// What it has to be.
    pub message: String,
}

impl SamplingParams {
    /// Checks every field against its range; `vocab_size` is the width of the logits row.
    ///
    /// # Errors
    /// The first field out of range, with its range. Nothing is ever clamped.
    pub fn validate(&self, vocab_size: u32) -> Result<(), SamplingError> {
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("typical_p", self.typical_p, 0.0, 1.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("xtc_probability", self.xtc_probability, 0.0, 1.0)?;
        within("xtc_threshold", self.xtc_threshold, 0.0, 1.0)?;
        within("dry_multiplier", self.dry_multiplier, 0.0, f32::MAX)?;
        within("dry_base", self.dry_base, 1.0, f32::MAX)?;
        if let Some(mirostat) = self.mirostat {
            within("mirostat_tau", mirostat.tau, 0.0, f32::MAX)?;
            within("mirostat_eta", mirostat.eta, 0.0, f32::MAX)?;
        }
        above_zero("repetition_penalty", self.repetition_penalty)?;
        if let Some(top_n_sigma) = self.top_n_sigma {
            above_zero("top_n_sigma", top_n_sigma)?;
        }
        window("repeat_last_n", self.repeat_last_n)?;
        window("dry_penalty_last_n", self.dry_penalty_last_n)?;
        if self.dry_allowed_length == 0 {
            return Err(refused("dry_allowed_length", "must be at least 1, got 0"));
        }
        for &id in &self.dry_sequence_breakers {
            known("dry_sequence_breakers", id, vocab_size)?;
        }
        self.validate_bias(vocab_size)
    }

    fn validate_bias(&self, vocab_size: u32) -> Result<(), SamplingError> {
        let mut ids: Vec<TokenId> = Vec::with_capacity(self.logit_bias.len());
        for &(id, bias) in &self.logit_bias {
            known("logit_bias", id, vocab_size)?;
            if !(-100.0..=100.0).contains(&bias) && bias != f32::NEG_INFINITY {
                let message = format!("of token {id} must be between -100 and 100, got {bias}");
                return Err(refused("logit_bias", message));
            }
            ids.push(id);
        }
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(refused("logit_bias", format!("names token {} twice", pair[0]))),
            None => Ok(()),
        }
    }

    /// Whether the most probable token is always taken, so that no draw decides.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Whether tokens seen so far change the choice, so that they have to be given to the sampler in time.
    #[must_use]
    pub fn needs_history(&self) -> bool {
        self.has_penalties() || self.has_dry()
    }

    /// Whether nothing beyond temperature, top-k, top-p and min-p is asked for: what a device may do by itself.
    #[must_use]
    pub fn only_device_filters(&self) -> bool {
        !self.needs_history()
            && self.logit_bias.is_empty()
            && self.typical_p >= 1.0
            && self.top_n_sigma.is_none()
            && !self.has_xtc()
            && self.mirostat.is_none()
    }

    pub(crate) fn has_penalties(&self) -> bool {
        self.repeat_last_n != 0
            && (self.repetition_penalty != 1.0
                || self.frequency_penalty != 0.0
                || self.presence_penalty != 0.0)
    }

    pub(crate) fn has_dry(&self) -> bool {
        self.dry_multiplier != 0.0 && self.dry_penalty_last_n != 0
    }

    pub(crate) fn has_xtc(&self) -> bool {
        self.xtc_probability > 0.0 && self.xtc_threshold <= 0.5
    }
}

fn refused(param: &'static str, message: impl Into<String>) -> SamplingError {
    SamplingError { param, message: message.into() }
}

fn within(param: &'static str, value: f32, low: f32, high: f32) -> Result<(), SamplingError> {
    // NaN is in no range.
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let range = if high == f32::MAX {
        format!("a number of at least {low}")
    } else {
        format!("between {low} and {high}")
    };
    Err(refused(param, format!("must be {range}, got {value}")))
}

fn above_zero(param: &'static str, value: f32) -> Result<(), SamplingError> {
    if value > 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(refused(param, format!("must be above 0, got {value}")))
    }
}

fn window(param: &'static str, n: i32) -> Result<(), SamplingError> {
    if n >= -1 { Ok(()) } else { Err(refused(param, format!("must be -1 (all) or more, got {n}"))) }
}

fn known(param: &'static str, id: TokenId, vocab_size: u32) -> Result<(), SamplingError> {
    if id < vocab_size {
        return Ok(());
    }
    Err(refused(param, format!("names token {id}, and the vocabulary ends at {vocab_size}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::MirostatVersion;

    #[track_caller]
    fn check(change: impl FnOnce(&mut SamplingParams), param: Option<&str>) {
        let mut params = SamplingParams::default();
        change(&mut params);
        let refused = params.validate(10).err();
        assert_eq!(refused.as_ref().map(|error| error.param), param, "{refused:?}");
    }

    #[test]
    fn every_range_has_two_ends() {
        type Field = fn(&mut SamplingParams, f32);
        let ranges: [(&str, Field, f32, f32); 9] = [
            ("temperature", |params, x| params.temperature = x, 0.0, 2.0),
            ("top_p", |params, x| params.top_p = x, 0.0, 1.0),
            ("min_p", |params, x| params.min_p = x, 0.0, 1.0),
            ("typical_p", |params, x| params.typical_p = x, 0.0, 1.0),
            ("frequency_penalty", |params, x| params.frequency_penalty = x, -2.0, 2.0),
            ("presence_penalty", |params, x| params.presence_penalty = x, -2.0, 2.0),
            ("xtc_probability", |params, x| params.xtc_probability = x, 0.0, 1.0),
            ("xtc_threshold", |params, x| params.xtc_threshold = x, 0.0, 1.0),
            ("dry_base", |params, x| params.dry_base = x, 1.0, f32::MAX),
        ];
        for (name, set, low, high) in ranges {
            check(|params| set(params, low), None);
            check(|params| set(params, high), None);
            let below = low - 1e-6_f32.max(low.abs() * 1e-6);
            let above = high + 1e-6_f32.max(high.abs() * 1e-6);
            for outside in [below, above, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                check(|params| set(params, outside), Some(name));
            }
        }
    }

    #[test]
    fn the_other_fields() {
        for odd in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            check(|params| params.repetition_penalty = odd, Some("repetition_penalty"));
            check(|params| params.top_n_sigma = Some(odd), Some("top_n_sigma"));
        }
        for odd in [-1e-6, f32::NAN, f32::INFINITY] {
            check(|params| params.dry_multiplier = odd, Some("dry_multiplier"));
            let mirostat = |tau, eta| Some(MirostatParams { version: MirostatVersion::Two, tau, eta });
            check(|params| params.mirostat = mirostat(odd, 0.1), Some("mirostat_tau"));
            check(|params| params.mirostat = mirostat(5.0, odd), Some("mirostat_eta"));
            check(|params| params.mirostat = mirostat(0.0, 0.0), None);
        }
        check(|params| params.top_n_sigma = Some(1.5), None);
        check(|params| params.top_k = u32::MAX, None);
        check(|params| params.repeat_last_n = -2, Some("repeat_last_n"));
        check(|params| params.repeat_last_n = i32::MAX, None);
        check(|params| params.dry_penalty_last_n = i32::MIN, Some("dry_penalty_last_n"));
        check(|params| params.dry_allowed_length = 0, Some("dry_allowed_length"));
        check(|params| params.dry_sequence_breakers = vec![9, 10], Some("dry_sequence_breakers"));
    }

    #[test]
    fn biases_name_known_tokens_once_and_stay_in_range() {
        let bias =
            |entries: &[(TokenId, f32)], param| check(|params| params.logit_bias = entries.to_vec(), param);
        bias(&[(0, 100.0), (9, -100.0), (3, f32::NEG_INFINITY)], None);
        bias(&[(10, 0.0)], Some("logit_bias"));
        bias(&[(TokenId::MAX, 0.0)], Some("logit_bias"));
        bias(&[(1, 1.0), (2, 1.0), (1, 1.0)], Some("logit_bias"));
        for odd in [100.1, -100.1, f32::NAN, f32::INFINITY] {
            bias(&[(1, odd)], Some("logit_bias"));
        }
    }

    #[test]
    fn messages_name_the_range_and_the_value() {
        let refused = SamplingParams { temperature: 2.5, ..SamplingParams::default() }.validate(10);
        assert_eq!(refused.expect_err("refused").to_string(), "temperature must be between 0 and 2, got 2.5");
        let refused = SamplingParams { dry_base: 0.5, ..SamplingParams::default() }.validate(10);
        assert_eq!(
            refused.expect_err("refused").to_string(),
            "dry_base must be a number of at least 1, got 0.5"
        );
    }

    #[test]
    fn what_a_device_can_do_by_itself() {
        let only = |change: fn(&mut SamplingParams)| {
            let mut params = SamplingParams::default();
            change(&mut params);
            params.only_device_filters()
        };
        assert!(only(|_| {}));
        assert!(only(
            |params| (params.top_k, params.top_p, params.min_p, params.temperature) = (5, 0.5, 0.1, 0.0)
        ));
        // Switched off by their partner fields.
        assert!(only(|params| (params.frequency_penalty, params.repeat_last_n) = (1.0, 0)));
        assert!(only(|params| (params.dry_multiplier, params.dry_penalty_last_n) = (1.0, 0)));
        assert!(only(|params| (params.xtc_probability, params.xtc_threshold) = (1.0, 0.6)));
        assert!(!only(|params| params.typical_p = 0.9));
        assert!(!only(|params| params.top_n_sigma = Some(1.0)));
        assert!(!only(|params| params.logit_bias = vec![(1, 1.0)]));
        assert!(!only(|params| params.repetition_penalty = 1.1));
        assert!(!only(|params| params.presence_penalty = 0.1));
        assert!(!only(|params| params.dry_multiplier = 0.1));
        assert!(!only(|params| params.xtc_probability = 0.1));
        let mirostat = MirostatParams { version: MirostatVersion::One, tau: 5.0, eta: 0.1 };
        let with = SamplingParams { mirostat: Some(mirostat), ..SamplingParams::default() };
        assert!(!with.only_device_filters());
    }
}
