//! How a step becomes calls of `llama_decode`, and how many passes over the weights each of them takes.
//!
//! Knows nothing of llama.cpp's types: rows go in, calls come out.

use duet_core::{PlanRow, RowTokens, Want};

use crate::raw::BatchRow;

/// What one call may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallLimits {
    /// Rows of a call.
    pub(crate) n_rows: usize,
    /// Rows of a call that give logits.
    pub(crate) n_outputs: usize,
}

/// The tokens of a plan one by one, in order. Rows without host tokens give none (they are refused before).
pub(crate) fn tokens<'a>(rows: &'a [PlanRow<'a>]) -> impl Iterator<Item = BatchRow> + 'a {
    rows.iter().flat_map(|row| {
        let ids = match row.tokens {
            RowTokens::Host(ids) => ids,
            RowTokens::Previous => &[],
        };
        let last = ids.len().saturating_sub(1);
        ids.iter().zip(row.position..).enumerate().map(move |(index, (&token, position))| BatchRow {
            token,
            position,
            sequence: row.seq.0,
            output: match row.want {
                Want::Nothing | Want::Token(_) => false,
                Want::LastLogits => index == last,
                Want::AllLogits => true,
            },
        })
    })
}

/// Whether a call that holds so much already has to end before `next`.
pub(crate) fn is_full(limits: CallLimits, n_rows: usize, n_outputs: usize, next: &BatchRow) -> bool {
    n_rows >= limits.n_rows || (next.output && n_outputs >= limits.n_outputs)
}

/// Passes over the weights that llama.cpp makes of a call whose rows belong to these sequences, in this order, where
/// each sequence has a buffer of its own: micro-batches of equally many rows per sequence over consecutive ids, so that
/// uneven rows and holes between ids cost further passes. (With one buffer for all, a micro-batch takes any mix.)
pub(crate) fn n_passes_of_equal_rows(sequences: impl Iterator<Item = u32>, n_ubatch: usize) -> u64 {
    let mut runs: Vec<(u32, usize)> = Vec::new();
    for sequence in sequences {
        match runs.last_mut() {
            Some((last, n)) if *last == sequence => *n += 1,
            _ => runs.push((sequence, 1)),
        }
    }
    let mut n_passes = 0;
    while let Some(first) = runs.iter().position(|(_, n)| *n > 0) {
        let mut last = runs[first].0;
        let mut group = vec![first];
        for (index, &(sequence, n)) in runs.iter().enumerate().skip(first + 1) {
            if n > 0 && sequence == last + 1 && group.len() < n_ubatch {
                group.push(index);
                last = sequence;
            }
        }
        let shortest = group.iter().map(|&index| runs[index].1).min().unwrap_or(1);
        let n_each = shortest.min((n_ubatch / group.len()).max(1));
        for index in group {
            runs[index].1 -= n_each;
        }
        n_passes += 1;
    }
    n_passes
}

#[cfg(test)]
mod tests {
    use duet_core::SeqId;

    use super::*;

    #[test]
    fn rows_become_tokens_with_positions_and_outputs() {
        let rows = [
            PlanRow { seq: SeqId(0), position: 7, tokens: RowTokens::Host(&[5]), want: Want::LastLogits },
            PlanRow { seq: SeqId(2), position: 0, tokens: RowTokens::Host(&[6, 7]), want: Want::Nothing },
            PlanRow { seq: SeqId(3), position: 1, tokens: RowTokens::Host(&[8, 9]), want: Want::AllLogits },
            PlanRow { seq: SeqId(4), position: 1, tokens: RowTokens::Host(&[1, 2]), want: Want::LastLogits },
        ];
        let all: Vec<_> =
            tokens(&rows).map(|row| (row.sequence, row.position, row.token, row.output)).collect();
        assert_eq!(
            all,
            [
                (0, 7, 5, true),
                (2, 0, 6, false),
                (2, 1, 7, false),
                (3, 1, 8, true),
                (3, 2, 9, true),
                (4, 1, 1, false),
                (4, 2, 2, true),
            ]
        );
    }

    #[test]
    fn a_call_ends_at_its_rows_or_its_outputs() {
        let limits = CallLimits { n_rows: 4, n_outputs: 2 };
        let row = |output| BatchRow { token: 0, position: 0, sequence: 0, output };
        assert!(!is_full(limits, 3, 1, &row(true)));
        assert!(is_full(limits, 4, 0, &row(false)));
        assert!(is_full(limits, 3, 2, &row(true)));
        assert!(!is_full(limits, 3, 2, &row(false)));
    }

    #[track_caller]
    fn check(sequences: &[u32], n_ubatch: usize, expected: u64) {
        assert_eq!(n_passes_of_equal_rows(sequences.iter().copied(), n_ubatch), expected);
    }

    #[test]
    fn passes_follow_the_librarys_split() {
        check(&[], 4, 0);
        check(&[0], 4, 1);
        check(&[0; 9], 4, 3);
        check(&[0, 1, 2, 3], 4, 1);
        check(&[0, 1, 1, 1], 4, 2);
        check(&[0, 2, 3], 4, 2);
        check(&[0, 0, 0, 1, 1, 1], 4, 2);
    }
}
