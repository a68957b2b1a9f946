//! The host-sampled rows of a step, on several cores where that pays.

use crate::engine::generation::Generation;
use crate::engine::worker::Token;
use crate::runner::{SeqId, StepOutput};

/// Logits below which one core is done before another one is awake.
const MIN_LOGITS: usize = 150_000;

/// Samples `rows` (sequence and row of logits, in rising order of sequence) and appends what came out in their order.
pub(super) fn sample_rows(
    rows: &[(SeqId, usize)],
    output: &StepOutput<'_>,
    running: &mut [Option<Generation>],
    sampled: &mut Vec<(SeqId, Token)>,
) {
    let n_parts = rayon::current_num_threads().min(rows.len());
    if n_parts < 2 || rows.len() * output.n_vocab < MIN_LOGITS {
        for &(seq, row) in rows {
            if let Some(generation) = running[seq.0 as usize].as_mut() {
                sampled.push((seq, generation.sample(output.row(row))));
            }
        }
        return;
    }
    let mut jobs: Vec<(SeqId, usize, &mut Generation, Option<Token>)> = Vec::with_capacity(rows.len());
    let mut wanted = rows.iter().peekable();
    for (index, generation) in running.iter_mut().enumerate() {
        if let Some(&&(seq, row)) = wanted.peek().filter(|(seq, _)| seq.0 as usize == index) {
            wanted.next();
            if let Some(generation) = generation.as_mut() {
                jobs.push((seq, row, generation, None));
            }
        }
    }
    let per_part = jobs.len().div_ceil(n_parts);
    let work = |part: &mut [(SeqId, usize, &mut Generation, Option<Token>)]| {
        for (_, row, generation, token) in part {
            *token = Some(generation.sample(output.row(*row)));
        }
    };
    // This thread takes the first part itself instead of only waiting.
    rayon::in_place_scope(|scope| {
        let (own, others) = jobs.split_at_mut(per_part);
        for part in others.chunks_mut(per_part) {
            scope.spawn(move |_| work(part));
        }
        work(own);
    });
    sampled.extend(jobs.into_iter().filter_map(|(seq, _, _, token)| token.map(|token| (seq, token))));
}
