//! Slices and slice updates by plain bounds, which mlx-rs offers only through its indexing syntax.

use mlx_rs::{Array, Stream};

use super::error::{RawError, call};

/// Runs one mlx-c operation that fills an array.
pub(super) fn array(
    operation: &'static str,
    function: impl FnOnce(*mut mlx_sys::mlx_array) -> i32,
) -> Result<Array, RawError> {
    // SAFETY: an empty handle, which owns nothing yet.
    let mut handle = unsafe { mlx_sys::mlx_array_new() };
    let outcome = call(operation, || function(&raw mut handle));
    // SAFETY: the handle is valid whether it was filled or not, and belongs to the array from here on.
    let array = unsafe { Array::from_ptr(handle) };
    outcome.map(|()| array)
}

/// The elements `start..stop` of `source` along every axis; a view where libmlx can make one. On the thread's stream.
///
/// # Errors
/// libmlx's, for bounds of another length than the array's number of axes.
pub(crate) fn slice(source: &Array, start: &[i32], stop: &[i32]) -> Result<Array, RawError> {
    let (stream, steps) = (Stream::thread_local_or_default(), Steps::of(start.len()));
    array("slice", |result| {
        // SAFETY: the handles and bounds are alive during the call, and each pointer comes with its length.
        unsafe {
            mlx_sys::mlx_slice(
                result,
                source.as_ptr(),
                start.as_ptr(),
                start.len(),
                stop.as_ptr(),
                stop.len(),
                steps.as_ptr(),
                steps.len(),
                stream.as_ptr(),
            )
        }
    })
}

/// `target` with its elements `start..stop` replaced by `update`. Evaluated in place if `target` has no other handle then.
///
/// # Errors
/// libmlx's, for bounds or shapes that do not fit.
pub(crate) fn slice_update(
    target: &Array,
    update: &Array,
    start: &[i32],
    stop: &[i32],
) -> Result<Array, RawError> {
    let (stream, steps) = (Stream::thread_local_or_default(), Steps::of(start.len()));
    array("slice update", |result| {
        // SAFETY: as in `slice`.
        unsafe {
            mlx_sys::mlx_slice_update(
                result,
                target.as_ptr(),
                update.as_ptr(),
                start.as_ptr(),
                start.len(),
                stop.as_ptr(),
                stop.len(),
                steps.as_ptr(),
                steps.len(),
                stream.as_ptr(),
            )
        }
    })
}

/// Steps of 1 for up to eight axes.
struct Steps;

impl Steps {
    fn of(n_axes: usize) -> &'static [i32] {
        const ONES: [i32; 8] = [1; 8];
        &ONES[..n_axes.min(ONES.len())]
    }
}
