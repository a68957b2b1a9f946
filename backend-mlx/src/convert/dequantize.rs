//! Values of ggml blocks, as ggml itself computes them in f32.
//!
//! In all types but Q6_K every intermediate product fits 24 bits, so that there is one rounding at most and the order of
//! operations cannot matter; Q6_K multiplies in ggml's order.

use duet_core::model::gguf::GgmlType;

use super::half::{bf16_to_f32, f16_at, f16_to_f32};

/// The encoding has no dequantiser here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tensors of the type {0} cannot be read")]
pub struct UnsupportedType(pub GgmlType);

/// Whether [`dequantize`] knows the encoding.
pub fn is_supported(ggml_type: GgmlType) -> bool {
    block(ggml_type).is_some() || matches!(ggml_type, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16)
}

/// Writes the values of `bytes`, whole blocks of `ggml_type`, to `out`.
///
/// # Errors
/// [`UnsupportedType`].
///
/// # Panics
/// If `bytes` and `out` do not have the same number of values.
pub fn dequantize(ggml_type: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), UnsupportedType> {
    match ggml_type {
        GgmlType::F32 => {
            let (words, rest) = bytes.as_chunks::<4>();
            assert!(rest.is_empty() && words.len() == out.len(), "as many values as are wanted");
            for (value, word) in out.iter_mut().zip(words) {
                *value = f32::from_le_bytes(*word);
            }
        }
        GgmlType::F16 => f16_to_f32(bytes, out),
        GgmlType::BF16 => bf16_to_f32(bytes, out),
        _ => {
            let Block { values, bytes: size, read } = block(ggml_type).ok_or(UnsupportedType(ggml_type))?;
            assert!(
                bytes.len().is_multiple_of(size) && bytes.len() / size * values == out.len(),
                "whole blocks"
            );
            for (block, values) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(values)) {
                read(block, values);
            }
        }
    }
    Ok(())
}

/// Writes the values of one block.
type ReadBlock = fn(&[u8], &mut [f32]);

/// One encoding in blocks.
struct Block {
    values: usize,
    bytes: usize,
    read: ReadBlock,
}

fn block(ggml_type: GgmlType) -> Option<Block> {
    let (values, bytes, read): (usize, usize, ReadBlock) = match ggml_type {
        GgmlType::Q4_0 => (32, 18, q4_0),
        GgmlType::Q4_1 => (32, 20, q4_1),
        GgmlType::Q5_0 => (32, 22, q5_0),
        GgmlType::Q5_1 => (32, 24, q5_1),
        GgmlType::Q8_0 => (32, 34, q8_0),
        GgmlType::Q2_K => (256, 84, q2_k),
        GgmlType::Q3_K => (256, 110, q3_k),
        GgmlType::Q4_K => (256, 144, q4_k),
        GgmlType::Q5_K => (256, 176, q5_k),
        GgmlType::Q6_K => (256, 210, q6_k),
        GgmlType::IQ4_NL => (32, 18, iq4_nl),
        GgmlType::IQ4_XS => (256, 136, iq4_xs),
        GgmlType::MXFP4 => (32, 17, mxfp4),
        _ => return None,
    };
    Some(Block { values, bytes, read })
}

/// Low nibbles are the first half of the values, high nibbles the second.
fn nibbles(packed: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let half = packed.len();
    for (index, byte) in packed.iter().enumerate() {
        out[index] = value(index, byte & 15);
        out[index + half] = value(index + half, byte >> 4);
    }
}

fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = f16_at(block, 0);
    nibbles(&block[2..], out, |_, q| (i32::from(q) - 8) as f32 * d);
}

fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    nibbles(&block[4..], out, |_, q| f32::from(q) * d + m);
}

/// The fifth bits of 32 values.
fn fifth_bits(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn q5_0(block: &[u8], out: &mut [f32]) {
    let (d, high) = (f16_at(block, 0), fifth_bits(&block[2..]));
    nibbles(&block[6..], out, |i, q| (i32::from(q) + (high >> i & 1) as i32 * 16 - 16) as f32 * d);
}

fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m, high) = (f16_at(block, 0), f16_at(block, 2), fifth_bits(&block[4..]));
    nibbles(&block[8..], out, |i, q| (u32::from(q) + (high >> i & 1) * 16) as f32 * d + m);
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = f16_at(block, 0);
    for (value, q) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(q.cast_signed()) * d;
    }
}

/// 16 sub-blocks of 16; a nibble of scale and one of minimum each, then 2-bit values in four layers of 32 per half.
fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (sub, values) in out.chunks_exact_mut(16).enumerate() {
        let (half, layer, side) = (sub / 8, sub % 8 / 2, sub % 2);
        let scale = d * f32::from(scales[sub] & 15);
        let minimum = dmin * f32::from(scales[sub] >> 4);
        for (value, byte) in values.iter_mut().zip(&quants[half * 32 + side * 16..]) {
            *value = scale * f32::from(byte >> (2 * layer) & 3) - minimum;
        }
    }
}

/// As Q2_K without minima, a third bit in `high`, and 6-bit scales: four low bits in nibbles, two high ones in pairs.
fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, quants, scales, d) = (&block[..32], &block[32..96], &block[96..108], f16_at(block, 108));
    for (sub, values) in out.chunks_exact_mut(16).enumerate() {
        let (half, layer, side) = (sub / 8, sub % 8 / 2, sub % 2);
        let low = scales[sub % 8] >> (4 * (sub / 8)) & 15;
        let top = scales[8 + sub % 4] >> (2 * (sub / 4)) & 3;
        let scale = d * (i32::from(top << 4 | low) - 32) as f32;
        for (index, value) in values.iter_mut().enumerate() {
            let at = side * 16 + index;
            let q = i32::from(quants[half * 32 + at] >> (2 * layer) & 3);
            let offset = if high[at] >> (half * 4 + layer) & 1 == 1 { 0 } else { 4 };
            *value = scale * (q - offset) as f32;
        }
    }
}

/// Scale and minimum of sub-block `sub` of Q4_K and Q5_K: 6 bits each, the upper half's high pairs beside the lower
/// half's values.
fn six_bits(scales: &[u8], sub: usize) -> (f32, f32) {
    let (scale, minimum) = if sub < 4 {
        (scales[sub] & 63, scales[sub + 4] & 63)
    } else {
        let low = scales[sub + 4];
        ((low & 15) | (scales[sub - 4] >> 6) << 4, (low >> 4) | (scales[sub] >> 6) << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    for (sub, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = six_bits(&block[4..16], sub);
        let (scale, minimum) = (d * scale, dmin * minimum);
        let run = &block[16 + sub / 2 * 32..][..32];
        for (value, byte) in values.iter_mut().zip(run) {
            *value = scale * f32::from(byte >> (4 * (sub % 2)) & 15) - minimum;
        }
    }
}

fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    for (sub, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = six_bits(&block[4..16], sub);
        let (scale, minimum) = (d * scale, dmin * minimum);
        let run = &block[48 + sub / 2 * 32..][..32];
        for ((value, byte), high) in values.iter_mut().zip(run).zip(&block[16..48]) {
            let q = (byte >> (4 * (sub % 2)) & 15) + (high >> sub & 1) * 16;
            *value = scale * f32::from(q) - minimum;
        }
    }
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], f16_at(block, 208));
    for (index, value) in out.iter_mut().enumerate() {
        let (half, layer, at) = (index / 128, index % 128 / 32, index % 32);
        let byte = low[half * 64 + layer % 2 * 32 + at] >> (4 * (layer / 2)) & 15;
        let top = high[half * 32 + at] >> (2 * layer) & 3;
        let q = i32::from(top << 4 | byte) - 32;
        let scale = f32::from(scales[index / 16].cast_signed());
        *value = d * scale * q as f32;
    }
}

/// The 16 values of the non-linear 4-bit types.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let d = f16_at(block, 0);
    nibbles(&block[2..], out, |_, q| d * f32::from(IQ4[usize::from(q)]));
}

fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let d = f16_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (sub, values) in out.chunks_exact_mut(32).enumerate() {
        let low = block[4 + sub / 2] >> (4 * (sub % 2)) & 15;
        let scale = i32::from(low) | i32::from(high >> (2 * sub) & 3) << 4;
        let scale = d * (scale - 32) as f32;
        nibbles(&block[8 + sub * 16..][..16], values, |_, q| scale * f32::from(IQ4[usize::from(q)]));
    }
}

/// The 16 values of a 4-bit float (sign, two bits of exponent, one of mantissa), doubled.
const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn mxfp4(block: &[u8], out: &mut [f32]) {
    // Half of 2^(e − 127), exact down to the subnormal ones.
    let exponent = u32::from(block[0]);
    let scale = f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 });
    nibbles(&block[1..], out, |_, q| scale * f32::from(E2M1_DOUBLED[usize::from(q)]));
}
