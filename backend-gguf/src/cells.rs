//! Which KV cells are taken, counted here because llama.cpp's interface does not tell.
//!
//! Knows nothing of llama.cpp: a cell is a token of one sequence, or of several that share a prefix.

/// The book of cells. Sequence ids, holders' among them, are below the number given to [`CellBook::new`]; other ids panic.
#[derive(Debug)]
pub(crate) struct CellBook {
    /// How many sequences hold each cell.
    holders: Vec<u16>,
    free: Vec<u32>,
    sequences: Vec<Vec<u32>>,
    /// Whether sequences that share a prefix share its cells; otherwise each has a buffer of its own.
    shared: bool,
    cells_per_sequence: u32,
}

impl CellBook {
    pub(crate) fn new(n_cells: u32, n_sequences: u32, shared: bool, cells_per_sequence: u32) -> Self {
        Self {
            holders: vec![0; n_cells as usize],
            free: (0..n_cells).rev().collect(),
            sequences: (0..n_sequences).map(|_| Vec::new()).collect(),
            shared,
            cells_per_sequence,
        }
    }

    /// Tokens of a sequence; 0 for ids that do not exist.
    pub(crate) fn len(&self, sequence: u32) -> u32 {
        self.sequences.get(sequence as usize).map_or(0, |cells| count(cells.len()))
    }

    /// Cells that at least one sequence holds.
    pub(crate) fn used(&self) -> u32 {
        count(self.holders.len() - self.free.len())
    }

    /// Whether `n` more tokens fit into this sequence, whatever the others take.
    pub(crate) fn fits_sequence(&self, sequence: u32, n: usize) -> bool {
        self.len(sequence) as usize + n <= self.cells_per_sequence as usize
    }

    /// Whether `n` more tokens fit beside all that is held.
    pub(crate) fn fits(&self, n: usize) -> bool {
        n <= self.free.len()
    }

    /// Takes `n` cells for a sequence. `false`, and nothing taken, if there are not so many.
    pub(crate) fn extend(&mut self, sequence: u32, n: usize) -> bool {
        if !self.fits(n) {
            return false;
        }
        let from = self.free.len() - n;
        let cells = &mut self.sequences[sequence as usize];
        for cell in self.free.drain(from..) {
            self.holders[cell as usize] = 1;
            cells.push(cell);
        }
        true
    }

    /// Cuts a sequence to `n` tokens and frees what nobody else holds.
    pub(crate) fn truncate(&mut self, sequence: u32, n: u32) {
        let Some(cells) = self.sequences.get_mut(sequence as usize) else { return };
        for cell in cells.drain((n as usize).min(cells.len())..) {
            let holders = &mut self.holders[cell as usize];
            *holders -= 1;
            if *holders == 0 {
                self.free.push(cell);
            }
        }
    }

    /// Gives `to`, which must be empty, the first `n` tokens of `from`. `false`: no cells for the copy.
    pub(crate) fn share(&mut self, from: u32, to: u32, n: u32) -> bool {
        if !self.shared {
            return self.extend(to, n as usize);
        }
        let prefix = self.sequences[from as usize][..n as usize].to_vec();
        for cell in &prefix {
            self.holders[*cell as usize] += 1;
        }
        self.sequences[to as usize] = prefix;
        true
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::CellBook;

    #[test]
    fn cells_come_back() {
        let mut book = CellBook::new(10, 3, true, 10);
        assert!(book.extend(0, 4) && book.extend(1, 3));
        assert_eq!((book.len(0), book.len(1), book.len(2), book.used()), (4, 3, 0, 7));
        assert!(!book.extend(2, 4), "more than there are");
        assert_eq!((book.len(2), book.used()), (0, 7), "and then nothing is taken");
        book.truncate(0, 1);
        assert_eq!((book.len(0), book.used()), (1, 4));
        book.truncate(0, 0);
        book.truncate(1, 0);
        book.truncate(1, 0);
        assert_eq!(book.used(), 0);
        assert!(book.extend(2, 10), "all of them are usable again");
    }

    #[test]
    fn a_shared_prefix_counts_once_and_outlives_its_source() {
        let mut book = CellBook::new(10, 3, true, 10);
        assert!(book.extend(0, 4) && book.share(0, 1, 3) && book.share(1, 2, 2));
        assert_eq!((book.len(1), book.len(2), book.used()), (3, 2, 4));
        book.truncate(0, 0);
        assert_eq!(book.used(), 3);
        book.truncate(1, 1);
        assert_eq!(book.used(), 2);
        book.truncate(2, 0);
        assert_eq!((book.len(1), book.used()), (1, 1));
    }

    #[test]
    fn separate_buffers_are_copied() {
        let mut book = CellBook::new(8, 2, false, 4);
        assert!(book.extend(0, 4) && book.share(0, 1, 3));
        assert_eq!(book.used(), 7);
        assert!(!book.fits_sequence(0, 1) && book.fits_sequence(1, 1) && !book.fits_sequence(1, 2));
    }

    #[test]
    fn unknown_sequences_are_empty() {
        let mut book = CellBook::new(4, 1, true, 4);
        book.truncate(7, 0);
        assert_eq!(book.len(7), 0);
    }
}
