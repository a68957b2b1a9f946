//! Failures of raw mlx-c calls as values.
//!
//! mlx-c reports through one process-wide handler, and the one it starts with ends the process. mlx-rs installs its own,
//! which keeps the message where only mlx-rs can read it. The handler here keeps the message of a raw call and passes every
//! other on to mlx-rs.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Once;

/// A raw mlx-c call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}")]
pub(crate) struct RawError {
    /// What was attempted, as given to [`call`].
    pub operation: &'static str,
    /// libmlx's words.
    pub message: String,
}

thread_local! {
    /// Whether this thread is inside [`call`].
    static IN_RAW_CALL: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

unsafe extern "C" {
    /// mlx-rs's own handler, exported under this name.
    fn default_mlx_error_handler(message: *const c_char, data: *mut c_void);
}

/// Runs `function`, which makes one mlx-c call and returns its status, and turns a status other than 0 into an error.
///
/// Any thread may call it. [`super::start`] must have succeeded first: before it libmlx ends the process on an error.
///
/// # Errors
/// libmlx's message, under `operation`.
pub(crate) fn call(operation: &'static str, function: impl FnOnce() -> c_int) -> Result<(), RawError> {
    MESSAGE.with_borrow_mut(Option::take);
    let outer = IN_RAW_CALL.replace(true);
    let status = function();
    IN_RAW_CALL.set(outer);
    if status == 0 {
        return Ok(());
    }
    let message = MESSAGE.with_borrow_mut(Option::take);
    Err(RawError { operation, message: message.unwrap_or_else(|| format!("status {status}")) })
}

extern "C" fn keep(message: *const c_char, data: *mut c_void) {
    if !IN_RAW_CALL.get() {
        // SAFETY: the arguments are those that mlx-c gave to this handler, passed on while they are valid.
        unsafe { default_mlx_error_handler(message, data) };
        return;
    }
    // SAFETY: mlx-c passes a NUL-terminated text that lives until the handler returns.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    MESSAGE.with_borrow_mut(|slot| *slot = Some(text));
}

/// Makes [`keep`] the process's handler. The first call does it, later ones return at once.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // mlx-rs installs its handler at its first guarded operation and never again. Let it do so now, else it would
        // replace ours later. The operation's own result does not matter.
        drop(mlx_rs::ops::zeros::<f32>(&[1]));
        // SAFETY: `keep` lives as long as the process and needs no data, hence no destructor.
        unsafe { mlx_sys::mlx_set_error_handler(Some(keep), std::ptr::null_mut(), None) };
    });
}
