//! A step that was started: what it will give, and reading it.

use duet_core::text::TokenId;
use duet_core::{StepPlan, Want};

use super::sampled_rows;
use super::sampling::draw;
use super::sequences::Sequences;
use crate::models::{Decoder, Step};
use crate::tensor::{Result, Tensor, eval};

/// Its lazy outputs.
#[derive(Debug)]
pub(super) struct PendingStep {
    pub(super) n_tokens: usize,
    /// `[n_logits, n_vocab]`, if any were asked for.
    logits: Option<Tensor>,
    /// `[n_sampled]`, if any were asked for.
    tokens: Option<Tensor>,
    /// The plan rows that the sampled tokens belong to.
    sampled: Vec<usize>,
    n_rows: usize,
    /// Computed after everything else of a step without outputs. Not a tensor of a cache, of which no second handle may
    /// exist when the next step writes to it.
    marker: Option<Tensor>,
}

impl PendingStep {
    /// The outputs of the plan over `hidden`, `[n_tokens, hidden]`. Only rows that are wanted go through the head.
    pub(super) fn new(
        plan: StepPlan<'_>,
        decoder: &Decoder,
        step: &Step,
        hidden: &Tensor,
        sequences: &mut Sequences,
    ) -> Result<Self> {
        let mut wanted: Vec<u32> = Vec::new();
        for (row, place) in plan.rows.iter().zip(&step.rows) {
            match row.want {
                Want::AllLogits => wanted.extend(place.start as u32..(place.start + place.n) as u32),
                Want::LastLogits => wanted.push((place.start + place.n - 1) as u32),
                Want::Nothing | Want::Token(_) => {}
            }
        }
        let n_logits = wanted.len();
        let ends = sampled_rows(plan).map(|(index, ..)| step.rows[index].start + step.rows[index].n - 1);
        wanted.extend(ends.map(|end| end as u32));
        let sampled: Vec<usize> = sampled_rows(plan).map(|(index, ..)| index).collect();

        let mut outputs = Self {
            n_tokens: step.n_tokens,
            logits: None,
            tokens: None,
            sampled,
            n_rows: plan.rows.len(),
            marker: None,
        };
        if wanted.is_empty() {
            // Before the last layer's MLP, which nobody needs: a value computed from the last cache that was written.
            outputs.marker = sequences.marker(plan)?;
        } else {
            let all =
                wanted.len() == step.n_tokens && wanted.iter().enumerate().all(|(at, row)| at as u32 == *row);
            let rows = match all {
                true => hidden.clone(),
                false => hidden.take_rows(&Tensor::from_u32(&wanted, &[wanted.len()]))?,
            };
            let logits = decoder.logits(&rows)?;
            let (n, n_vocab) = (wanted.len(), decoder.config.vocab_size);
            let part = |from: usize, to: usize| match (from, to) == (0, n) {
                true => Ok(logits.clone()),
                false => logits.slice(&[from, 0], &[to, n_vocab]),
            };
            if n_logits > 0 {
                outputs.logits = Some(part(0, n_logits)?.contiguous()?);
            }
            if n > n_logits {
                let draws: Vec<_> = sampled_rows(plan).map(|(_, _, sampling)| sampling).collect();
                outputs.tokens = Some(draw(&part(n_logits, n)?, &draws)?);
            }
        }
        outputs.hand_on_tokens(plan, sequences)?;
        Ok(outputs)
    }

    /// Lets the next step continue with tokens that are not known yet.
    fn hand_on_tokens(&self, plan: StepPlan<'_>, sequences: &mut Sequences) -> Result<()> {
        for row in plan.rows {
            sequences.set_last_token(row.seq, None);
        }
        let Some(tokens) = &self.tokens else { return Ok(()) };
        for (at, (_, seq, _)) in sampled_rows(plan).enumerate() {
            let token = match tokens.len(0) {
                1 => tokens.clone(),
                _ => tokens.slice(&[at], &[at + 1])?,
            };
            sequences.set_last_token(seq, Some(token));
        }
        Ok(())
    }

    /// What is to be evaluated.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &Tensor> {
        self.logits.iter().chain(&self.tokens).chain(&self.marker)
    }
}

/// A step's results on the host; the buffers are used again.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// `[n_logits, n_vocab]`.
    pub(super) logits: Vec<f32>,
    /// One per row of the plan.
    pub(super) tokens: Vec<Option<TokenId>>,
}

impl Collected {
    /// Waits for the step and copies its results.
    pub(super) fn read(&mut self, step: PendingStep) -> Result<()> {
        self.logits.clear();
        self.tokens.clear();
        self.tokens.resize(step.n_rows, None);
        eval(step.outputs())?;
        if let Some(logits) = &step.logits {
            self.logits.extend_from_slice(logits.as_f32()?);
        }
        if let Some(tokens) = &step.tokens {
            for (row, token) in step.sampled.iter().zip(tokens.as_u32()?) {
                self.tokens[*row] = Some(*token);
            }
        }
        Ok(())
    }
}
