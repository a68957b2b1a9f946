//! What all layers of one forward pass share: its rows, their rotation and their masks.

use std::cell::OnceCell;

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
    /// Per kind of window in the model, per row; made when the first layer asks.
    blocks: Vec<(Option<usize>, Vec<OnceCell<Blocks>>)>,
    compute: (Device, ElementType),
}

impl Step {
    /// A step of these rows, for layers with these kinds of windows, computed on this device in this type.
    pub(crate) fn new(
        rows: Vec<StepRow>,
        rope: &Rope,
        windows: &[Option<usize>],
        compute: (Device, ElementType),
    ) -> Self {
        let n_tokens = rows.iter().map(|row| row.n).sum();
        let rotation = rope.rotation(rows.iter().flat_map(|row| row.position..row.position + row.n));
        let blocks =
            windows.iter().map(|&window| (window, rows.iter().map(|_| OnceCell::new()).collect())).collect();
        Self { rows, n_tokens, rotation, blocks, compute }
    }

    /// The blocks of row `row` for a layer with this window.
    pub(crate) fn blocks(&self, window: Option<usize>, row: usize) -> Result<&Blocks> {
        let of_window = self.blocks.iter().find(|(of, _)| *of == window);
        let blocks = &of_window.expect("the step was made for all windows of the model").1[row];
        if let Some(made) = blocks.get() {
            return Ok(made);
        }
        let StepRow { n, position, .. } = self.rows[row];
        let made = Blocks::new(position, n, window, self.compute)?;
        Ok(blocks.get_or_init(|| made))
    }
}
