//! libmlx's allocator, which is one for the whole process.

use super::{Named, Result};

/// Gives buffers that are free and kept back to the system.
pub(crate) fn clear_cache() -> Result<()> {
    mlx_rs::memory::clear_cache().named("clear the allocator's cache")
}

/// Bytes in use.
#[cfg(test)]
pub(crate) fn active_bytes() -> Result<usize> {
    mlx_rs::memory::active_memory().named("ask for memory in use")
}

/// The most bytes in use since the last [`reset_peak`].
pub(crate) fn peak_bytes() -> Result<usize> {
    mlx_rs::memory::peak_memory().named("ask for peak memory")
}

/// Starts counting the peak anew.
#[cfg(test)]
pub(crate) fn reset_peak() -> Result<()> {
    mlx_rs::memory::reset_peak_memory().named("reset peak memory")
}
