//! The order of the rows of llama's Q and K matrices.

/// Where row `row` of a checkpoint's Q or K matrix lies in a GGUF file of the architecture `llama`.
///
/// GGUF pairs the rows that rotate together: there the rows of a head are `[head_dim/2, 2]`, in the checkpoint
/// `[2, head_dim/2]`.
pub fn gguf_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (side, pair) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + pair * 2 + side
}
