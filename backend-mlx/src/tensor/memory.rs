//! libmlx's allocator, which is one for the whole process.

use super::{Named, Result};

/// Gives buffers that are free and kept back to the system.
pub(crate) fn clear_cache() -> Result<()> {
    mlx_rs::memory::clear_cache().named("clear the allocator's cache")
}

/// The most bytes in use since the process started.
pub(crate) fn peak_bytes() -> Result<usize> {
    mlx_rs::memory::peak_memory().named("ask for peak memory")
}
