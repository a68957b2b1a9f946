//! ggml blocks regrouped into MLX's affine form, w = s·q + β with one scale and bias per 32 values.
//!
//! Value i of a row takes bits i·b … (i+1)·b−1 of the row's little-endian bit stream. Nothing is rounded: s and β are
//! f32, and the integers are the file's own (signed ones shifted to start at 0).

use duet_core::model::gguf::GgmlType;
use half::f16;

/// Values that share a scale and a bias.
pub const GROUP_SIZE: usize = 32;

/// Bits per value of the affine form of `ggml_type`; `None` where it has none.
pub fn affine_bits(ggml_type: GgmlType) -> Option<u32> {
    match ggml_type {
        GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4_K => Some(4),
        GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5_K => Some(5),
        GgmlType::Q8_0 => Some(8),
        _ => None,
    }
}

/// Where the groups of one row go.
pub struct Groups<'a> {
    /// `GROUP_SIZE · bits / 8` bytes per group.
    pub words: &'a mut [u8],
    /// One scale per group.
    pub scales: &'a mut [f32],
    /// One bias per group.
    pub biases: &'a mut [f32],
}

impl Groups<'_> {
    fn put(&mut self, group: usize, bits: u32, scale: f32, bias: f32, integers: &[u8; GROUP_SIZE]) {
        self.scales[group] = scale;
        self.biases[group] = bias;
        let n_bytes = GROUP_SIZE * bits as usize / 8;
        pack(bits, integers, &mut self.words[group * n_bytes..][..n_bytes]);
    }
}

/// Regroups `blocks`, one row of a tensor of the type `ggml_type`, into `out`.
///
/// # Panics
/// If the type has no affine form or the sizes do not agree.
pub fn repack_row(ggml_type: GgmlType, blocks: &[u8], mut out: Groups<'_>) {
    let bits = affine_bits(ggml_type).expect("a type with an affine form");
    let block_bytes = ggml_type.bytes_for(ggml_type.block_len().into()).expect("one whole block") as usize;
    let per_block = ggml_type.block_len() as usize / GROUP_SIZE;
    assert_eq!(blocks.len() / block_bytes * per_block, out.scales.len(), "one scale per group");
    for (index, block) in blocks.chunks_exact(block_bytes).enumerate() {
        match ggml_type {
            GgmlType::Q4_K | GgmlType::Q5_K => super_block(bits, block, index * per_block, &mut out),
            _ => small_block(ggml_type, bits, block, index, &mut out),
        }
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Types of 32 values with one f16 scale, and an f16 minimum or a fixed zero point.
fn small_block(ggml_type: GgmlType, bits: u32, block: &[u8], group: usize, out: &mut Groups<'_>) {
    let scale = half(block);
    let (bias, rest) = match ggml_type {
        GgmlType::Q4_1 | GgmlType::Q5_1 => (half(&block[2..]), &block[4..]),
        GgmlType::Q4_0 => (-8.0 * scale, &block[2..]),
        GgmlType::Q5_0 => (-16.0 * scale, &block[2..]),
        _ => (-128.0 * scale, &block[2..]),
    };
    let mut integers = [0; GROUP_SIZE];
    match bits {
        8 => {
            for (integer, byte) in integers.iter_mut().zip(rest) {
                *integer = byte ^ 0x80; // adds 128 to a signed byte
            }
        }
        4 => spread(rest, &mut integers),
        _ => {
            spread(&rest[4..], &mut integers);
            for (bit, integer) in integers.iter_mut().enumerate() {
                *integer |= (rest[bit / 8] >> (bit % 8) & 1) << 4;
            }
        }
    }
    out.put(group, bits, scale, bias, &integers);
}

/// 16 bytes to 32 nibbles: the low halves first.
fn spread(bytes: &[u8], integers: &mut [u8; GROUP_SIZE]) {
    let (low, high) = integers.split_at_mut(GROUP_SIZE / 2);
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// Q4_K and Q5_K: eight groups; two f16 factors for 6-bit scales and minima.
fn super_block(bits: u32, block: &[u8], first_group: usize, out: &mut Groups<'_>) {
    let (d, dmin) = (half(block), half(&block[2..]));
    // The 12 bytes hold three rows of four: scales 0–3, minima 0–3 (each with two bits to lend), low nibbles of 4–7.
    let [scales, minima, low] = [0, 4, 8].map(|at| &block[4 + at..8 + at]);
    let (fifth, quants) = match bits {
        5 => (Some(&block[16..48]), &block[48..]),
        _ => (None, &block[16..]),
    };
    for group in 0..8 {
        let at = group % 4;
        let (scale, minimum) = if group < 4 {
            (scales[at] & 0x3f, minima[at] & 0x3f)
        } else {
            (low[at] & 0x0f | (scales[at] & 0xc0) >> 2, low[at] >> 4 | (minima[at] & 0xc0) >> 2)
        };
        let mut integers = [0; GROUP_SIZE];
        for (index, integer) in integers.iter_mut().enumerate() {
            let byte = quants[group / 2 * GROUP_SIZE + index];
            *integer = if group % 2 == 0 { byte & 0x0f } else { byte >> 4 };
            if let Some(fifth) = fifth {
                *integer |= (fifth[index] >> group & 1) << 4;
            }
        }
        out.put(first_group + group, bits, d * f32::from(scale), -(dmin * f32::from(minimum)), &integers);
    }
}

/// Integers of `bits` bits into a little-endian bit stream.
fn pack(bits: u32, integers: &[u8; GROUP_SIZE], out: &mut [u8]) {
    let (mut window, mut filled, mut at) = (0u32, 0, 0);
    for &integer in integers {
        window |= u32::from(integer) << filled;
        filled += bits;
        while filled >= 8 {
            out[at] = window as u8;
            (window, filled, at) = (window >> 8, filled - 8, at + 1);
        }
    }
}
