//! Settings of libmlx that hold for the whole process.

use std::ffi::CStr;
use std::sync::OnceLock;

use super::error::{RawError, call, install};

/// The MLX release that the bindings are written for. mlx-c follows MLX's signatures exactly, so another one is refused.
pub(crate) const BUILT_FOR: &str = env!("DUET_MLX_VERSION");

/// Prepares libmlx for use; the first call does the work, later ones return its result. Any thread may call it.
///
/// Installs the error handler, compares libmlx's version, and on Linux turns `compile` off: there it writes C++ and runs a
/// compiler, most of a second per kernel.
///
/// # Errors
/// When the libmlx found at run time is not the release this program was built for.
pub(crate) fn start() -> Result<(), RawError> {
    static STARTED: OnceLock<Result<(), RawError>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            install();
            agree(&version()?)?;
            if cfg!(target_os = "linux") {
                // SAFETY: takes no argument and sets one process-wide flag.
                call("turn compile off", || unsafe { mlx_sys::mlx_disable_compile() })?;
            }
            Ok(())
        })
        .clone()
}

/// The version of the libmlx that the dynamic linker found, like `0.32.2`. Any thread may call it.
///
/// # Errors
/// When libmlx cannot tell.
pub(crate) fn version() -> Result<String, RawError> {
    install();
    // SAFETY: an empty handle, which `mlx_version` fills.
    let mut text = unsafe { mlx_sys::mlx_string_new() };
    // SAFETY: `text` is a valid handle for the length of the call.
    let status = call("ask libmlx for its version", || unsafe { mlx_sys::mlx_version(&raw mut text) });
    let version = status.map(|()| {
        // SAFETY: the call succeeded, so the handle holds a NUL-terminated text until it is freed below.
        unsafe { CStr::from_ptr(mlx_sys::mlx_string_data(text)) }.to_string_lossy().into_owned()
    });
    // SAFETY: freed once, and not used afterwards.
    unsafe { mlx_sys::mlx_string_free(text) };
    version
}

/// Refuses a libmlx of another release.
pub(super) fn agree(found: &str) -> Result<(), RawError> {
    if found == BUILT_FOR {
        return Ok(());
    }
    Err(RawError {
        operation: "check libmlx",
        message: format!("this program needs libmlx {BUILT_FOR}, and the dynamic linker found {found}"),
    })
}
