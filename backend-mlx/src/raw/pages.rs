//! Memory for weights, which libmlx takes over as it is.
//!
//! Aligned to cache lines and in large pages where the system has them: reading weights is what decoding on a CPU waits for,
//! and libmlx's own buffers, 8 bytes off and in pages of 4 KiB, cost a fifth of the bandwidth.

use std::ffi::c_void;

use memmap2::MmapMut;
use mlx_rs::{Array, Dtype};
use mlx_sys::adopt;

use super::error::RawError;
use super::slices::array;

/// The size of large pages on x86 and Arm64.
const LARGE: usize = 1 << 21;
/// Values begin at cache lines, with room for the size that libmlx's own buffers have before them.
const LINE: usize = 64;

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
        let n_large = n_large_bytes(len * size_of::<f32>());
        let slack = if n_large > 0 { LARGE } else { 0 };
        let map = MmapMut::map_anon(LINE + slack + (len * size_of::<f32>()).max(n_large));
        let map = map.map_err(|error| RawError { operation: "map memory", message: error.to_string() })?;
        let offset = match n_large {
            0 => LINE,
            _ => LINE + map[LINE..].as_ptr().align_offset(LARGE),
        };
        #[cfg(target_os = "linux")]
        if n_large > 0 {
            // Without them it is slower, not wrong.
            let _ = map.advise_range(memmap2::Advice::HugePage, offset, n_large);
        }
        Ok(Self { map, offset, len })
    }

    /// The values.
    pub(crate) fn values(&mut self) -> &mut [f32] {
        let bytes = &mut self.map[self.offset..][..self.len * size_of::<f32>()];
        // SAFETY: mapped memory of that many bytes, aligned to a cache line at least, all of it initialised (to zeros),
        // borrowed as long as `self` is; any bits are a float.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), self.len) }
    }

    /// An array of these values, which gives the memory back when libmlx lets go of it. Libraries for GPUs may copy them.
    ///
    /// # Errors
    /// libmlx's.
    ///
    /// # Panics
    /// If the shape does not hold as many values.
    pub(crate) fn into_array(mut self, shape: &[i32]) -> Result<Array, RawError> {
        let n: usize = shape.iter().map(|n| usize::try_from(*n).expect("no negative length")).product();
        assert_eq!(n, self.len, "as many values as the shape holds");
        let data = self.values().as_mut_ptr();
        let owner = Box::into_raw(Box::new(self)).cast::<c_void>();
        let mut adopted = false;
        let array = array("adopt memory", |result| {
            // SAFETY: `data` points to that many floats and has a line before it that is nobody's; both stay where they are,
            // owned by `owner`, until `free` is called on it, once, from whatever thread.
            let status = unsafe { adopt::duet_adopt(result, data, shape.as_ptr(), shape.len(), owner, free) };
            adopted = status == 0;
            if status == OTHER_BUFFERS { 0 } else { status }
        });
        match array {
            Ok(array) if adopted => Ok(array),
            // SAFETY: as above; libmlx copies where it cannot take the memory over, and calls `free` either way.
            Ok(_) => Ok(unsafe {
                Array::from_ptr(mlx_sys::mlx_array_new_data_managed_payload(
                    data.cast::<c_void>(),
                    shape.as_ptr(),
                    i32::try_from(shape.len()).expect("few axes"),
                    Dtype::Float32.into(),
                    owner,
                    Some(free),
                ))
            }),
            Err(error) => {
                free(owner);
                Err(error)
            }
        }
    }
}

/// What `duet_adopt` says where libmlx's buffers do not begin with their size.
const OTHER_BUFFERS: i32 = 2;

/// How many of a matrix's first bytes go into large pages: all whole ones, and the last if it is three quarters full.
fn n_large_bytes(n_bytes: usize) -> usize {
    (n_bytes + LARGE / 4) / LARGE * LARGE
}

extern "C" fn free(owner: *mut c_void) {
    // SAFETY: the pointer that `into_array` made from a box, handed back once.
    drop(unsafe { Box::from_raw(owner.cast::<Pages>()) });
}
