//! The chain over one row, and the state of one request that it needs.

use super::SamplingParams;
use super::candidates::{Candidates, draw_from_row, min_p_floor};
use super::draw::Draws;
use super::dry::Dry;
use super::history::Adjustments;
use super::mirostat::Mirostat;
use super::row::Row;
use crate::constraint::Mask;
use crate::text::TokenId;

/// Chooses the tokens of one request.
///
/// Give it every token of the sequence, prompt and chosen ones alike, with [`Sampler::accept`] (`sample` does not
/// accept by itself, so that a caller may refuse the token), and each row of logits to [`Sampler::sample`]. Buffers
/// are kept: after the first rows nothing is allocated. The row is read, never written or copied.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    vocab_size: u32,
    draws: Draws,
    xtc_draws: Draws,
    adjustments: Adjustments,
    dry: Option<Dry>,
    mirostat: Option<Mirostat>,
    overlay: Vec<(TokenId, f32)>,
    maxima: Vec<f32>,
    masses: Vec<f64>,
    candidates: Candidates,
}

/// A row from which no token can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A logit is NaN: the forward pass failed numerically.
    #[error("the logits contain a value that is not a number")]
    NotANumber,
    /// A logit is plus infinity (after bias and penalties, which are finite).
    #[error("the logits contain plus infinity")]
    Infinite,
    /// Every logit is minus infinity.
    #[error("the logits leave no token to choose: all of them are minus infinity")]
    NothingAllowed,
    /// The row is not as wide as the vocabulary.
    #[error("the row has {n_logits} logits, the vocabulary {vocab_size} tokens")]
    WrongWidth {
        /// Length of the row given.
        n_logits: usize,
        /// What the sampler was made for.
        vocab_size: u32,
    },
}

impl Sampler {
    /// A sampler before its first token, for parameters that have passed [`SamplingParams::validate`] with the same
    /// `vocab_size` (the width of the logits row).
    #[must_use]
    pub fn new(params: SamplingParams, vocab_size: u32) -> Self {
        Self {
            vocab_size,
            draws: Draws::for_tokens(params.seed),
            xtc_draws: Draws::for_xtc(params.seed),
            adjustments: Adjustments::new(&params),
            dry: Dry::new(&params),
            mirostat: params.mirostat.map(Mirostat::new),
            overlay: Vec::new(),
            maxima: Vec::new(),
            masses: Vec::new(),
            candidates: Candidates::default(),
            params,
        }
    }

    /// What the request asked for.
    #[must_use]
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Takes note of the sequence's next token, for penalties, DRY and Mirostat; free where none is on.
    pub fn accept(&mut self, id: TokenId) {
        self.adjustments.accept(id);
        if let Some(mirostat) = &mut self.mirostat {
            mirostat.accept();
        }
    }

    /// The uniform number in [0, 1) for the next token; the one after it belongs to the token after it.
    ///
    /// [`Sampler::sample`] takes it by itself. Call this once for each token that is chosen elsewhere (on a device).
    pub fn next_uniform(&mut self) -> f32 {
        self.draws.next()
    }

    /// The next token, from `logits` [vocab_size].
    ///
    /// # Errors
    /// [`SampleError`] for a row with NaN or plus infinity, without any token left, or of the wrong width. The draw is
    /// used up all the same.
    pub fn sample(&mut self, logits: &[f32]) -> Result<TokenId, SampleError> {
        self.sample_without(logits, &[], None)
    }

    /// The next token, from `logits` [vocab_size], none of `banned` (ids outside of the row are no harm) and one that
    /// `mask` allows, if there is one. The mask is looked at in place, block by block.
    ///
    /// # Errors
    /// As [`Sampler::sample`]; [`SampleError::NothingAllowed`] also where nothing is left of the mask.
    pub fn sample_without(
        &mut self,
        logits: &[f32],
        banned: &[TokenId],
        mask: Option<&Mask>,
    ) -> Result<TokenId, SampleError> {
        let uniform = self.draws.next();
        let coin = if self.params.has_xtc() { self.xtc_draws.next() } else { 1.0 };
        if logits.len() != self.vocab_size as usize {
            return Err(SampleError::WrongWidth { n_logits: logits.len(), vocab_size: self.vocab_size });
        }
        self.adjust(logits);
        self.ban(banned);
        let row = Row::new(logits, &self.overlay, mask);
        let max = row.scan(&mut self.maxima)?;
        if self.params.is_greedy() {
            return Ok(row.first_of(max, &self.maxima));
        }
        let floor = self.params.top_n_sigma.map_or(f32::NEG_INFINITY, |n| row.sigma_floor(max, n));
        let excludes = coin < self.params.xtc_probability;
        let temperature = self.params.temperature;
        let is_filtered =
            filter(&mut self.candidates, &self.params, &row, &self.maxima, max, floor, excludes);
        if let Some(mirostat) = &mut self.mirostat {
            if !is_filtered {
                self.candidates.gather(&row, &self.maxima, f32::NEG_INFINITY);
            }
            return Ok(mirostat.choose(&mut self.candidates, uniform, temperature));
        }
        if !is_filtered {
            return Ok(draw_from_row(&row, max, uniform, temperature, &mut self.masses));
        }
        Ok(self.candidates.draw(uniform, temperature))
    }

    /// Makes entries of the row unreachable; after `adjust`, which starts the overlay afresh.
    fn ban(&mut self, banned: &[TokenId]) {
        for &id in banned.iter().filter(|id| **id < self.vocab_size) {
            match self.overlay.binary_search_by_key(&id, |entry| entry.0) {
                Ok(at) => self.overlay[at].1 = f32::NEG_INFINITY,
                Err(at) => self.overlay.insert(at, (id, f32::NEG_INFINITY)),
            }
        }
    }

    /// Puts the entries of the row that bias, penalties and DRY change into the overlay.
    fn adjust(&mut self, logits: &[f32]) {
        self.adjustments.apply(logits, &mut self.overlay);
        let Some(dry) = &mut self.dry else { return };
        let n_before = self.overlay.len();
        for &(id, penalty) in dry.penalties(self.adjustments.tokens()) {
            match self.overlay[..n_before].binary_search_by_key(&id, |entry| entry.0) {
                Ok(at) => self.overlay[at].1 -= penalty,
                Err(_) => {
                    if let Some(&logit) = logits.get(id as usize) {
                        self.overlay.push((id, logit - penalty));
                    }
                }
            }
        }
        if self.overlay.len() > n_before {
            self.overlay.sort_unstable_by_key(|entry| entry.0);
        }
    }
}

/// Runs the filters; `false` where none is on, so that the whole row is drawn from and no set is built.
fn filter(
    candidates: &mut Candidates,
    params: &SamplingParams,
    row: &Row<'_>,
    maxima: &[f32],
    max: f32,
    floor: f32,
    excludes: bool,
) -> bool {
    let has_top_k = params.top_k > 0 && (params.top_k as usize) < row.len();
    let has_typical = params.typical_p < 1.0;
    let mut has_top_p = params.top_p < 1.0;
    let has_min_p = params.min_p > 0.0;
    if has_top_k {
        candidates.gather_top_k(row, maxima, floor, params.top_k as usize);
    } else if has_top_p && !has_typical && floor == f32::NEG_INFINITY {
        candidates.gather_top_p(row, maxima, max, params.top_p);
        has_top_p = false;
    } else if has_min_p && !has_typical && !has_top_p {
        candidates.gather(row, maxima, floor.max(min_p_floor(max, params.min_p)));
    } else if has_typical || excludes || floor > f32::NEG_INFINITY {
        candidates.gather(row, maxima, floor);
    } else {
        return false;
    }
    if has_typical {
        candidates.typical(params.typical_p);
    }
    if has_top_p {
        candidates.top_p(params.top_p);
    }
    if has_min_p {
        candidates.min_p(params.min_p);
    }
    if excludes {
        candidates.exclude_top_choices(params.xtc_threshold);
    }
    true
}
