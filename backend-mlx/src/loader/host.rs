//! Filling buffers with rows of matrices, on all cores.

use std::num::NonZeroUsize;
use std::thread;

use crate::convert::matrix::{Matrix, PackedForm};
use crate::convert::repack::Groups;

/// Below so many values a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 18;

/// Writes the values of `matrices`, which have equal rows, one below the other: `[rows of all, cols]`.
pub(super) fn write_values(matrices: &[Matrix<'_>], values: &mut [f32]) {
    let mut rest = values;
    for matrix in matrices {
        let (own, others) = rest.split_at_mut(matrix.rows * matrix.cols);
        rest = others;
        let rows: Vec<(usize, &mut [f32])> = own.chunks_exact_mut(matrix.cols).enumerate().collect();
        in_parallel(rows, matrix.cols, |(row, out)| matrix.dense_row(row, out));
    }
}

/// Packed matrices, one below the other.
pub(super) struct PackedValues {
    pub(super) words: Vec<u8>,
    pub(super) scales: Vec<f32>,
    pub(super) biases: Vec<f32>,
}

/// The packed form of `matrices`, which all have the form `form` and equal rows.
pub(super) fn packed_values(matrices: &[Matrix<'_>], form: PackedForm) -> PackedValues {
    let n: usize = matrices.iter().map(|matrix| matrix.rows * matrix.cols).sum();
    let mut values = PackedValues {
        words: vec![0; form.word_bytes(n)],
        scales: vec![0.0; n / form.group_size],
        biases: vec![0.0; n / form.group_size],
    };
    let cols = matrices.first().map_or(0, |matrix| matrix.cols);
    let (row_bytes, row_groups) = (form.word_bytes(cols), cols / form.group_size);
    let rows = matrices.iter().flat_map(|matrix| (0..matrix.rows).map(move |row| (matrix, row)));
    let words = values.words.chunks_exact_mut(row_bytes);
    let scales = values.scales.chunks_exact_mut(row_groups);
    let biases = values.biases.chunks_exact_mut(row_groups);
    let groups =
        words.zip(scales).zip(biases).map(|((words, scales), biases)| Groups { words, scales, biases });
    let rows: Vec<_> = rows.zip(groups).collect();
    in_parallel(rows, cols, |((matrix, row), groups)| matrix.packed_row(row, groups));
    values
}

/// Does `work` for all rows, each of `cols` values.
fn in_parallel<T: Send>(rows: Vec<T>, cols: usize, work: impl Fn(T) + Sync) {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let n_threads = cores.min(rows.len() * cols / WORTH_A_THREAD).max(1);
    let share = rows.len().div_ceil(n_threads).max(1);
    let mut rows = rows.into_iter();
    thread::scope(|scope| {
        // The last share is this thread's own.
        for _ in 1..n_threads {
            let part: Vec<T> = rows.by_ref().take(share).collect();
            let work = &work;
            scope.spawn(move || part.into_iter().for_each(work));
        }
        rows.for_each(&work);
    });
}
