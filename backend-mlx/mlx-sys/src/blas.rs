//! The BLAS in front of libmlx's own (native/blas.cpp).

use std::os::raw::{c_char, c_int};

unsafe extern "C" {
    /// Threads that one matrix product may use from now on; the count is process-wide.
    pub fn duet_blas_set_threads(threads: c_int);
    /// Threads that one matrix product may use.
    pub fn duet_blas_threads() -> c_int;
    /// OpenBLAS's version, build options and kernel family, as text that lives as long as the process.
    pub fn duet_blas_config() -> *const c_char;
    /// Matrix products that libmlx has handed to OpenBLAS since the start of the process.
    pub fn duet_blas_products() -> u64;
    /// The file that the dynamic linker took OpenBLAS's matrix product from, or null; text that lives as long as the process.
    pub fn duet_blas_library() -> *const c_char;
}
