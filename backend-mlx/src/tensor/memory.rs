//! libmlx's allocator, which is one for the whole process.

use super::{Named, Result};

/// Gives buffers that are free and kept back to the system.
pub(crate) fn clear_cache() -> Result<()> {
    mlx_rs::memory::clear_cache().named("clear the allocator's cache")
}

/// Keeps up to so many bytes resident on the device. Metal pages weights out between requests without it; elsewhere it has
/// no meaning and fails.
pub(crate) fn keep_resident(n_bytes: u64) -> Result<()> {
    let limit = usize::try_from(n_bytes).unwrap_or(usize::MAX);
    mlx_rs::memory::set_wired_limit(limit).named("set the wired limit").map(|_| ())
}

/// The most bytes in use since the process started.
pub(crate) fn peak_bytes() -> Result<usize> {
    mlx_rs::memory::peak_memory().named("ask for peak memory")
}
