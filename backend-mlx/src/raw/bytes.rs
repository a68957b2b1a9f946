//! Elements of arrays as bytes, which mlx-rs only gives out by their type.
//!
//! All that libmlx runs on is little-endian, so that the bytes of a file are those of memory.

use mlx_rs::{Array, ArrayElement, Dtype};

use super::error::RawError;

const _: () = assert!(cfg!(target_endian = "little"), "bytes are exchanged with files as they are");

/// The elements of `array` in row-major order, evaluated.
///
/// # Errors
/// libmlx's; and if the array is not contiguous.
pub(crate) fn of(array: &Array) -> Result<&[u8], RawError> {
    match array.dtype() {
        Dtype::Float32 => elements::<f32>(array),
        Dtype::Float16 => elements::<half::f16>(array),
        Dtype::Bfloat16 => elements::<half::bf16>(array),
        Dtype::Uint32 => elements::<u32>(array),
        other => Err(RawError { operation: "read", message: format!("no bytes of {other:?}") }),
    }
}

fn elements<T: ArrayElement>(array: &Array) -> Result<&[u8], RawError> {
    let values = array.try_as_slice::<T>();
    let values = values.map_err(|error| RawError { operation: "read", message: error.to_string() })?;
    // SAFETY: plain numbers without padding, all of whose bytes are initialised, for as long as they are borrowed.
    Ok(unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) })
}

/// An array of this type and shape with a copy of `bytes`.
///
/// # Panics
/// If the shape does not hold as many bytes.
pub(crate) fn array(bytes: &[u8], shape: &[i32], dtype: Dtype, element_size: usize) -> Array {
    let n: usize = shape.iter().map(|n| usize::try_from(*n).expect("no negative length")).product();
    assert_eq!(bytes.len(), n * element_size, "as many bytes as the shape holds");
    if bytes.as_ptr().align_offset(element_size) != 0 {
        let mut aligned = vec![0u64; bytes.len().div_ceil(8)];
        // SAFETY: two allocations, both at least as long, and u64 has no invalid bits.
        unsafe { bytes.as_ptr().copy_to_nonoverlapping(aligned.as_mut_ptr().cast(), bytes.len()) };
        // SAFETY: the pointer is aligned for all elements, and libmlx copies `bytes.len()` bytes before it returns.
        return unsafe { Array::from_raw_data(aligned.as_ptr().cast(), shape, dtype) };
    }
    // SAFETY: as above.
    unsafe { Array::from_raw_data(bytes.as_ptr().cast(), shape, dtype) }
}
