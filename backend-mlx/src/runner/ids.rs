//! The token ids of a step as one tensor, some of them perhaps still being sampled.

use duet_core::{BackendError, PlanRow, RowTokens, StepPlan};

use super::sequences::Sequences;
use crate::tensor::{MlxError, Tensor, concat};

/// Refuses ids outside of the vocabulary (a gather would read garbage in silence) and tokens that nobody sampled.
pub(super) fn check(row: &PlanRow<'_>, sequences: &Sequences, n_vocab: usize) -> Result<(), BackendError> {
    match row.tokens {
        RowTokens::Host([]) => {
            Err(BackendError::engine("decode", format!("sequence {} has no tokens", row.seq.0)))
        }
        RowTokens::Host(ids) => match ids.iter().find(|id| **id as usize >= n_vocab) {
            Some(id) => {
                let message = format!("token id {id} is outside the vocabulary of {n_vocab}");
                Err(BackendError::invalid("prompt", message))
            }
            None => Ok(()),
        },
        RowTokens::Previous if sequences.last_token(row.seq).is_some() => Ok(()),
        RowTokens::Previous => {
            let what = format!("the step before sampled no token for sequence {}", row.seq.0);
            Err(BackendError::engine("decode", what))
        }
    }
}

/// All ids in the order of the rows, `[n_tokens]` u32.
pub(super) fn of(plan: StepPlan<'_>, sequences: &Sequences) -> Result<Tensor, MlxError> {
    let mut parts: Vec<Tensor> = Vec::new();
    let mut known: Vec<u32> = Vec::new();
    for row in plan.rows {
        match row.tokens {
            RowTokens::Host(ids) => known.extend_from_slice(ids),
            RowTokens::Previous => {
                if !known.is_empty() {
                    parts.push(Tensor::from_u32(&known, &[known.len()]));
                    known.clear();
                }
                parts.extend(sequences.last_token(row.seq).cloned());
            }
        }
    }
    if !known.is_empty() {
        parts.push(Tensor::from_u32(&known, &[known.len()]));
    }
    concat(&parts, 0)
}
