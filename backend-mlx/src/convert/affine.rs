//! Values of MLX's affine form, computed as libmlx does in f32: one product, one sum.

/// Writes the values of one row: `bits`-bit integers of the little-endian stream `words`, `group_size` of which share a
/// scale and a bias.
///
/// # Panics
/// If the sizes do not agree.
pub fn dequantize_row(
    bits: u32,
    group_size: usize,
    words: &[u8],
    scales: &[f32],
    biases: &[f32],
    out: &mut [f32],
) {
    assert_eq!(words.len() * 8, out.len() * bits as usize, "one integer per value");
    assert!(scales.len() * group_size == out.len() && biases.len() == scales.len(), "one scale per group");
    let group_bytes = group_size * bits as usize / 8;
    let groups = words.chunks_exact(group_bytes).zip(out.chunks_exact_mut(group_size));
    for ((words, out), (&scale, &bias)) in groups.zip(scales.iter().zip(biases)) {
        match bits {
            8 => {
                for (value, byte) in out.iter_mut().zip(words) {
                    *value = scale * f32::from(*byte) + bias;
                }
            }
            4 => {
                for (pair, byte) in out.chunks_exact_mut(2).zip(words) {
                    pair[0] = scale * f32::from(byte & 15) + bias;
                    pair[1] = scale * f32::from(byte >> 4) + bias;
                }
            }
            _ => any_bits(bits, words, scale, bias, out),
        }
    }
}

fn any_bits(bits: u32, words: &[u8], scale: f32, bias: f32, out: &mut [f32]) {
    let mask = (1u32 << bits) - 1;
    let (mut window, mut filled) = (0u32, 0);
    let mut bytes = words.iter();
    for value in out {
        while filled < bits {
            window |= u32::from(*bytes.next().expect("the sizes agree")) << filled;
            filled += 8;
        }
        *value = scale * (window & mask) as f32 + bias;
        window >>= bits;
        filled -= bits;
    }
}
