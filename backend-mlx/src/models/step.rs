//! What all layers of one forward pass share: its rows, their rotation and their masks.

use super::mask::Blocks;
use super::rope::{Rope, Rotation};
use crate::tensor::{Device, ElementType, Result};

/// A run of tokens of one sequence within a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepRow {
    /// Where it begins among the step's tokens.
    pub(crate) start: usize,
    /// Its length.
    pub(crate) n: usize,
    /// Position of its first token, = tokens in the sequence's cache before.
    pub(crate) position: usize,
}

/// One forward pass over rows of several sequences, whose tokens lie one after another.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) rows: Vec<StepRow>,
    pub(crate) n_tokens: usize,
    pub(crate) rotation: Rotation,
    /// Per kind of window in the model, per row.
    blocks: Vec<(Option<usize>, Vec<Blocks>)>,
}

impl Step {
    /// A step of these rows, for layers with these kinds of windows, computed on this device in this type.
    pub(crate) fn new(
        rows: Vec<StepRow>,
        rope: &Rope,
        windows: &[Option<usize>],
        compute: (Device, ElementType),
    ) -> Result<Self> {
        let n_tokens = rows.iter().map(|row| row.n).sum();
        let rotation = rope.rotation(rows.iter().flat_map(|row| row.position..row.position + row.n));
        let blocks = windows.iter().map(|&window| {
            let blocks = rows.iter().map(|row| Blocks::new(row.position, row.n, window, compute));
            Ok((window, blocks.collect::<Result<_>>()?))
        });
        let blocks = blocks.collect::<Result<_>>()?;
        Ok(Self { rows, n_tokens, rotation, blocks })
    }

    /// The blocks of row `row` for a layer with this window.
    pub(crate) fn blocks(&self, window: Option<usize>, row: usize) -> &Blocks {
        let of_window = self.blocks.iter().find(|(of, _)| *of == window);
        &of_window.expect("the step was made for all windows of the model").1[row]
    }
}
