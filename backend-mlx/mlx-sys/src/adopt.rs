//! Arrays over memory of the caller's (native/adopt.cpp), on Linux.

use std::os::raw::{c_int, c_void};

use crate::mlx_array;

#[cfg(target_os = "linux")]
unsafe extern "C" {
    /// An f32 array over `values`, before which eight bytes are given as well. libmlx calls `release` with `owner` once, from
    /// any thread, when it needs them no more. 0; 2, and nothing is done, where libmlx holds its buffers in another way; 1
    /// after telling mlx-c's error handler.
    pub fn duet_adopt(
        result: *mut mlx_array,
        values: *mut f32,
        shape: *const c_int,
        n_axes: usize,
        owner: *mut c_void,
        release: extern "C" fn(*mut c_void),
    ) -> c_int;
}

/// Elsewhere libmlx's own constructor takes memory as it is.
#[cfg(not(target_os = "linux"))]
pub unsafe fn duet_adopt(
    _: *mut mlx_array,
    _: *mut f32,
    _: *const c_int,
    _: usize,
    _: *mut c_void,
    _: extern "C" fn(*mut c_void),
) -> c_int {
    2
}
