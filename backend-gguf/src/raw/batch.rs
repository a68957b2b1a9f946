//! Rows for one call of `llama_decode`, in buffers that are filled again and again.

use llama_cpp_sys_2 as sys;

/// One token of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchRow {
    pub(crate) token: u32,
    pub(crate) position: u32,
    pub(crate) sequence: u32,
    /// Whether logits are wanted after it.
    pub(crate) output: bool,
}

/// Rows in the layout that llama.cpp reads. llama-cpp-2's batch is not used: it writes past its arrays when given more
/// sequence ids than it was made for.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    outputs: Vec<i8>,
    /// All ones: each row belongs to one sequence.
    n_sequences: Vec<i32>,
    /// Into `sequences`, made afresh for each call.
    sequence_pointers: Vec<*mut sys::llama_seq_id>,
    n_outputs: usize,
    /// The largest values among the rows, for the checks before a call.
    max_token: u32,
    max_sequence: u32,
}

impl Batch {
    /// An empty batch that takes `n_rows` without allocating.
    pub(crate) fn with_capacity(n_rows: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(n_rows),
            positions: Vec::with_capacity(n_rows),
            sequences: Vec::with_capacity(n_rows),
            outputs: Vec::with_capacity(n_rows),
            n_sequences: vec![1; n_rows],
            sequence_pointers: Vec::with_capacity(n_rows),
            n_outputs: 0,
            max_token: 0,
            max_sequence: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.n_outputs = 0;
        self.max_token = 0;
        self.max_sequence = 0;
    }

    /// Adds a row. Values too large for llama.cpp's signed types are refused when the batch is decoded.
    pub(crate) fn push(&mut self, row: BatchRow) {
        self.tokens.push(row.token.cast_signed());
        self.positions.push(row.position.cast_signed());
        self.sequences.push(row.sequence.cast_signed());
        self.outputs.push(i8::from(row.output));
        self.n_outputs += usize::from(row.output);
        self.max_token = self.max_token.max(row.token);
        self.max_sequence = self.max_sequence.max(row.sequence);
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    /// The sequence of each row.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = u32> {
        self.sequences.iter().map(|id| id.cast_unsigned())
    }

    pub(super) fn max_token(&self) -> u32 {
        self.max_token
    }

    pub(super) fn max_sequence(&self) -> u32 {
        self.max_sequence
    }

    /// Whether all positions are non-negative as llama.cpp reads them.
    pub(super) fn positions_are_valid(&self) -> bool {
        self.positions.iter().all(|&position| position >= 0)
    }

    /// The view that llama.cpp takes; valid until `self` changes.
    pub(super) fn as_raw(&mut self) -> sys::llama_batch {
        let n_rows = self.len();
        if self.n_sequences.len() < n_rows {
            self.n_sequences.resize(n_rows, 1);
        }
        self.sequence_pointers.clear();
        self.sequence_pointers.extend(self.sequences.iter_mut().map(std::ptr::from_mut));
        sys::llama_batch {
            n_tokens: i32::try_from(n_rows).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.n_sequences.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_view_shows_the_rows() {
        let mut batch = Batch::with_capacity(1);
        for round in 0..2u32 {
            batch.clear();
            for index in 0..3u32 {
                let row = BatchRow {
                    token: 10 * index + round,
                    position: index,
                    sequence: 2 - index,
                    output: index == 1,
                };
                batch.push(row);
            }
            assert_eq!((batch.len(), batch.n_outputs()), (3, 1));
            assert_eq!((batch.max_token(), batch.max_sequence()), (20 + round, 2));
            let raw = batch.as_raw();
            assert_eq!(raw.n_tokens, 3);
            for index in 0..3 {
                // SAFETY: three rows were pushed, and the batch is not touched while `raw` is read.
                unsafe {
                    assert_eq!(*raw.token.add(index), 10 * index as i32 + round as i32);
                    assert_eq!(*raw.pos.add(index), index as i32);
                    assert_eq!(*raw.n_seq_id.add(index), 1);
                    assert_eq!(**raw.seq_id.add(index), 2 - index as i32);
                    assert_eq!(*raw.logits.add(index), i8::from(index == 1));
                }
            }
        }
    }

    #[test]
    fn positions_beyond_the_signed_range_are_noticed() {
        let mut batch = Batch::with_capacity(1);
        batch.push(BatchRow { token: 0, position: u32::MAX, sequence: 0, output: false });
        assert!(!batch.positions_are_valid());
    }
}
