//! Operations on bits, which mlx-rs does not have.

use mlx_rs::{Array, Stream};

use super::error::RawError;
use super::slices::array;

/// Each integer of `values` shifted left by `places`. On the thread's stream.
///
/// # Errors
/// libmlx's, for anything but integers.
pub(crate) fn left_shift(values: &Array, places: i32) -> Result<Array, RawError> {
    let (stream, places) = (Stream::thread_local_or_default(), Array::from_int(places));
    array("left shift", |result| {
        // SAFETY: the handles are alive during the call, and `result` is an empty one.
        unsafe { mlx_sys::mlx_left_shift(result, values.as_ptr(), places.as_ptr(), stream.as_ptr()) }
    })
}
