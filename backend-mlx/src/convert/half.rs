//! Half-precision numbers in little-endian bytes.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The f16 at byte `at`.
pub(super) fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Values per round of a conversion: their bits pass through a buffer of this size, whatever the bytes' alignment.
const ROUND: usize = 512;

/// Widens `bytes`, f16 values, to `out`.
///
/// # Panics
/// If the two do not have the same number of values.
pub fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * 2, "as many values as are wanted");
    let mut buffer = [f16::ZERO; ROUND];
    for (bytes, out) in bytes.chunks(2 * ROUND).zip(out.chunks_mut(ROUND)) {
        for (half, word) in buffer.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*word);
        }
        buffer[..out.len()].convert_to_f32_slice(out);
    }
}

/// Widens `bytes`, bf16 values, to `out`.
///
/// # Panics
/// If the two do not have the same number of values.
pub fn bf16_to_f32(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * 2, "as many values as are wanted");
    for (value, word) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = bf16::from_le_bytes(*word).to_f32();
    }
}
