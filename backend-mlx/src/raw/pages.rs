//! Memory for weights, which libmlx takes over as it is.
//!
//! Aligned to cache lines and in large pages where the system has them: reading weights is what decoding on a CPU waits for,
//! and libmlx's own buffers, 8 bytes off and in pages of 4 KiB, cost a fifth of the bandwidth.

use std::ffi::c_void;

use memmap2::MmapMut;
use mlx_rs::{Array, Dtype};

use super::error::RawError;

/// The size of large pages on x86 and Arm64.
const LARGE: usize = 1 << 21;

/// Zeros to fill in, f32.
pub(crate) struct Pages {
    map: MmapMut,
    /// Where the values begin, in bytes.
    offset: usize,
    len: usize,
}

impl Pages {
    /// So many zeros.
    ///
    /// # Errors
    /// If the system has no memory.
    pub(crate) fn new(len: usize) -> Result<Self, RawError> {
        let n_bytes = len * size_of::<f32>();
        let slack = if n_bytes >= LARGE { LARGE } else { 0 };
        let map = MmapMut::map_anon((n_bytes + slack).max(1));
        let map = map.map_err(|error| RawError { operation: "map memory", message: error.to_string() })?;
        let offset = if slack > 0 { map.as_ptr().align_offset(LARGE) } else { 0 };
        #[cfg(target_os = "linux")]
        if slack > 0 {
            // Without them it is slower, not wrong.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { map, offset, len })
    }

    /// The values.
    pub(crate) fn values(&mut self) -> &mut [f32] {
        let bytes = &mut self.map[self.offset..][..self.len * size_of::<f32>()];
        // SAFETY: mapped memory of that many bytes, aligned to a page at least, all of it initialised (to zeros), borrowed
        // as long as `self` is; any bits are a float.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), self.len) }
    }

    /// An array of these values, which gives the memory back when libmlx lets go of it.
    ///
    /// # Panics
    /// If the shape does not hold as many values.
    pub(crate) fn into_array(mut self, shape: &[i32]) -> Array {
        let n: usize = shape.iter().map(|n| usize::try_from(*n).expect("no negative length")).product();
        assert_eq!(n, self.len, "as many values as the shape holds");
        let data = self.values().as_mut_ptr();
        let owner = Box::into_raw(Box::new(self));
        // SAFETY: `data` points to that many floats, which stay where they are, owned by `owner`, until libmlx calls
        // `free` on it, once, from whatever thread.
        unsafe {
            Array::from_ptr(mlx_sys::mlx_array_new_data_managed_payload(
                data.cast::<c_void>(),
                shape.as_ptr(),
                i32::try_from(shape.len()).expect("few axes"),
                Dtype::Float32.into(),
                owner.cast::<c_void>(),
                Some(free),
            ))
        }
    }
}

extern "C" fn free(owner: *mut c_void) {
    // SAFETY: the pointer that `into_array` made from a box, handed back once.
    drop(unsafe { Box::from_raw(owner.cast::<Pages>()) });
}
