//! What has to hold before llama.cpp is called: it answers a wrong call by ending the process.

use duet_core::{BackendError, RowTokens, SeqId, StepPlan, Want};

use super::GgufRunner;

impl GgufRunner {
    /// Everything that can be wrong with a plan, before llama.cpp sees it.
    pub(super) fn check(&self, plan: &StepPlan<'_>) -> Result<(), BackendError> {
        let refuse = |message: String| Err(BackendError::engine("decode", message));
        if self.in_flight.is_some() {
            return refuse("the step before has not been collected".into());
        }
        if plan.rows.is_empty() {
            return refuse("a step without rows".into());
        }
        if plan.rows.windows(2).any(|pair| pair[0].seq >= pair[1].seq) {
            return refuse("rows are not in rising order of their sequences".into());
        }
        for row in plan.rows {
            let seq = row.seq.0;
            let RowTokens::Host(ids) = row.tokens else {
                return Err(unsupported("tokens sampled on the device"));
            };
            if matches!(row.want, Want::Token(_)) {
                return Err(unsupported("sampling on the device"));
            }
            if seq >= self.capabilities.max_sequences {
                return refuse(format!("sequence {seq} of {}", self.capabilities.max_sequences));
            }
            if ids.is_empty() {
                return refuse(format!("a row of sequence {seq} without tokens"));
            }
            if let Some(id) = ids.iter().find(|id| **id as usize >= self.context.n_vocab()) {
                return refuse(format!("token {id} of a vocabulary of {}", self.context.n_vocab()));
            }
            let length = self.cells.len(seq);
            if row.position != length {
                return refuse(format!(
                    "position {} of sequence {seq}, which has {length} tokens",
                    row.position
                ));
            }
            if !self.cells.fits_sequence(seq, ids.len()) {
                return Err(BackendError::KvCacheFull { n_rows: plan.n_tokens() });
            }
        }
        if self.cells.fits(plan.n_tokens()) {
            Ok(())
        } else {
            Err(BackendError::KvCacheFull { n_rows: plan.n_tokens() })
        }
    }

    /// Whether a sequence can go on from its first `n` tokens (fewer than it has).
    pub(super) fn can_cut(&self, seq: SeqId, n: u32) -> bool {
        match (self.recurrent, self.window) {
            (true, _) => n == 0,
            (false, None) => true,
            (false, Some(window)) => {
                let oldest = self.context.positions(seq.0).map_or(0, |(oldest, _)| oldest);
                n == 0 || oldest <= n.saturating_sub(window)
            }
        }
    }

    /// Whether a sequence or a holder has this id.
    pub(super) fn known(&self, seq: SeqId) -> Result<(), BackendError> {
        let n = self.capabilities.max_sequences + self.capabilities.n_holders;
        if seq.0 < n { Ok(()) } else { Err(invalid(format!("sequence {} of {n}", seq.0))) }
    }

    pub(super) fn unused(&self, seq: SeqId) -> Result<(), BackendError> {
        self.known(seq)?;
        match self.cells.len(seq.0) {
            0 => Ok(()),
            n => Err(invalid(format!("sequence {} is in use: it has {n} tokens", seq.0))),
        }
    }
}

pub(super) fn invalid(message: String) -> BackendError {
    BackendError::InvalidRequest { param: None, message }
}

pub(super) fn unsupported(feature: &'static str) -> BackendError {
    BackendError::Unsupported { feature: feature.into(), backend: crate::ID.into() }
}
