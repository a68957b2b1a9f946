//! libmlx's own products, timed by themselves: with the decoder's matrices of the form and shape that it has most of, and
//! nothing around them.

use std::time::{Duration, Instant};

use super::decoder::Decoder;
use super::linear::{Linear, Weights};
use crate::tensor::{Result, Tensor, eval};

/// Passes that are timed at least, and for how long: the fastest counts.
const N_PASSES: usize = 3;
const MOMENT: Duration = Duration::from_millis(250);

/// What was timed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timed {
    /// "matmul, float32 1536 × 576".
    pub(crate) what: String,
    pub(crate) n_weights: u64,
    pub(crate) n_bytes: u64,
    pub(crate) time: Duration,
}

/// The matrices of which the decoder has most, by bytes.
fn common(decoder: &Decoder) -> Vec<&Linear> {
    let mut kinds: Vec<(String, usize, Vec<&Linear>)> = Vec::new();
    for linear in decoder.layers.iter().flat_map(|layer| layer.mlp.linears().chain(layer.attention.linears()))
    {
        let name = linear.weights().name();
        match kinds.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, bytes, found)) => {
                *bytes += linear.n_bytes();
                found.push(linear);
            }
            None => kinds.push((name, linear.n_bytes(), vec![linear])),
        }
    }
    kinds.into_iter().max_by_key(|(_, bytes, _)| *bytes).map_or_else(Vec::new, |(.., found)| found)
}

/// The fastest of a few passes of `n_rows` rows through about `n_bytes` of matrices: one row as the decoder multiplies, with
/// matrices as they are held; several rows with matrices as floats, where packed ones are unpacked before the clock runs.
/// `None` for a decoder without matrices.
///
/// # Errors
/// libmlx's.
pub(crate) fn time(decoder: &Decoder, n_rows: usize, n_bytes: u64) -> Result<Option<Timed>> {
    let linears = common(decoder);
    let Some(first) = linears.first() else { return Ok(None) };
    let one = first.n_bytes().max(1) as u64;
    let n = usize::try_from(n_bytes / one).unwrap_or(usize::MAX).clamp(1, linears.len());
    let matrices: Vec<&Weights> = linears[..n].iter().map(|linear| linear.weights()).collect();
    let unpacked = match n_rows {
        1 => None,
        _ => Some(matrices.iter().map(|weights| weights.unpacked()).collect::<Result<Vec<_>>>()?),
    };
    if let Some(unpacked) = &unpacked {
        eval(unpacked)?;
    }
    let (rows, columns) = first.weights().shape();
    let values: Vec<f32> = (0..n_rows * columns).map(|index| 1.0 + (index % 7) as f32).collect();
    let input = Tensor::from_f32(&values, &[n_rows, columns]).cast(decoder.compute)?;
    let pass = || -> Result<()> {
        let products: Result<Vec<Tensor>> = match &unpacked {
            Some(unpacked) => unpacked.iter().map(|matrix| input.matmul(matrix)).collect(),
            None => matrices.iter().map(|weights| weights.multiply(&input)).collect(),
        };
        eval(&products?)
    };
    pass()?; // touches every page, and makes the threads
    let (begin, mut best, mut n_passes) = (Instant::now(), Duration::MAX, 0);
    while n_passes < N_PASSES || begin.elapsed() < MOMENT {
        let start = Instant::now();
        pass()?;
        best = best.min(start.elapsed());
        n_passes += 1;
    }
    let what = match &unpacked {
        Some(_) => format!("matmul, {} {rows} × {columns}", decoder.compute),
        None => first.weights().name(),
    };
    let held = matrices.iter().map(|weights| weights.n_bytes() as u64).sum();
    Ok(Some(Timed { what, n_weights: (n * rows * columns) as u64, n_bytes: held, time: best }))
}
