//! The library behind dense matrix products on the CPU.
//!
//! On Linux the wheel's libmlx comes with a reference BLAS; mlx-sys puts OpenBLAS in front of it. On macOS MLX uses
//! Accelerate, which manages its own threads.

use std::num::NonZeroUsize;

/// What computes dense products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blas {
    /// Name, version, options and the kernel family chosen for this CPU.
    pub config: String,
    /// The file it was loaded from.
    pub library: String,
    /// Threads that one product may use.
    pub n_threads: usize,
}

/// The BLAS of this process; `None` where the platform's own serves (macOS). Any thread may call it.
#[must_use]
pub(crate) fn describe() -> Option<Blas> {
    #[cfg(target_os = "linux")]
    {
        use mlx_sys::blas;
        // SAFETY: these three take no argument and return plain values or texts that live as long as the process.
        let (config, library, threads) =
            unsafe { (blas::duet_blas_config(), blas::duet_blas_library(), blas::duet_blas_threads()) };
        Some(Blas {
            config: text(config),
            library: text(library),
            n_threads: usize::try_from(threads).unwrap_or(0),
        })
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Sets the threads that one product may use, for the whole process; `None` means the physical cores
/// that this process may use. Call it while no
/// product runs. Where [`describe`] returns `None` there is nothing to set.
pub(crate) fn set_threads(n_threads: Option<NonZeroUsize>) {
    #[cfg(target_os = "linux")]
    {
        let n_threads = n_threads.map_or_else(default_threads, NonZeroUsize::get);
        // SAFETY: a plain number; OpenBLAS bounds it by what it was built for.
        unsafe { mlx_sys::blas::duet_blas_set_threads(i32::try_from(n_threads).unwrap_or(i32::MAX)) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = n_threads;
}

/// The physical cores, or fewer where the process may not use them all (a container's share).
#[cfg(target_os = "linux")]
pub(super) fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(usize::MAX, NonZeroUsize::get);
    num_cpus::get_physical().min(allowed)
}

/// Products that libmlx has handed to the library of [`describe`] since the process started; 0 where that is `None`.
#[cfg(test)]
pub(crate) fn n_products() -> u64 {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: reads one atomic counter.
        unsafe { mlx_sys::blas::duet_blas_products() }
    }
    #[cfg(not(target_os = "linux"))]
    0
}

#[cfg(target_os = "linux")]
fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the functions above return NUL-terminated texts that live as long as the process.
    unsafe { std::ffi::CStr::from_ptr(pointer) }.to_string_lossy().trim().to_owned()
}
