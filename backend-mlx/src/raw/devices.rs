//! The devices that libmlx sees, and where it lies.

use std::ffi::CStr;

use super::error::{RawError, call};

/// A device as libmlx describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawDevice {
    /// Whether it is a GPU.
    pub is_gpu: bool,
    /// Its marketing name.
    pub name: String,
    /// Its memory, where libmlx tells.
    pub memory_bytes: Option<u64>,
    /// How much of it one process should keep in use (Metal).
    pub working_set_bytes: Option<u64>,
}

/// All devices, best first: GPUs, then the CPU. Any thread may call it.
///
/// # Errors
/// libmlx's.
pub(crate) fn devices() -> Result<Vec<RawDevice>, RawError> {
    let mut found = Vec::new();
    for (is_gpu, kind) in
        [(true, mlx_sys::mlx_device_type__MLX_GPU), (false, mlx_sys::mlx_device_type__MLX_CPU)]
    {
        let mut count = 0;
        // SAFETY: `count` is a valid place for the result.
        call("count devices", || unsafe { mlx_sys::mlx_device_count(&raw mut count, kind) })?;
        for index in 0..count {
            found.push(describe(is_gpu, kind, index)?);
        }
    }
    Ok(found)
}

fn describe(is_gpu: bool, kind: mlx_sys::mlx_device_type, index: i32) -> Result<RawDevice, RawError> {
    // SAFETY: plain constructors; both handles are freed once below.
    let (device, mut info) =
        unsafe { (mlx_sys::mlx_device_new_type(kind, index), mlx_sys::mlx_device_info_new()) };
    // SAFETY: both handles are valid during the call.
    let outcome =
        call("describe a device", || unsafe { mlx_sys::mlx_device_info_get(&raw mut info, device) });
    let described = outcome.map(|()| RawDevice {
        is_gpu,
        name: text(info, c"device_name").unwrap_or_else(|| if is_gpu { "GPU" } else { "CPU" }.to_owned()),
        memory_bytes: [c"memory_size", c"total_memory"].into_iter().find_map(|key| number(info, key)),
        working_set_bytes: number(info, c"max_recommended_working_set_size"),
    });
    // SAFETY: freed once, and not used afterwards.
    unsafe {
        mlx_sys::mlx_device_info_free(info);
        mlx_sys::mlx_device_free(device);
    }
    described
}

fn has(info: mlx_sys::mlx_device_info, key: &CStr) -> bool {
    let mut exists = false;
    // SAFETY: the handle is valid, the key ends with NUL, and `exists` is a valid place for the result.
    unsafe { mlx_sys::mlx_device_info_has_key(&raw mut exists, info, key.as_ptr()) == 0 && exists }
}

fn text(info: mlx_sys::mlx_device_info, key: &CStr) -> Option<String> {
    let mut value = std::ptr::null();
    // SAFETY: as in `has`.
    let found = has(info, key)
        && unsafe { mlx_sys::mlx_device_info_get_string(&raw mut value, info, key.as_ptr()) } == 0
        && !value.is_null();
    // SAFETY: not null, and a NUL-terminated text that lives as long as `info`.
    found.then(|| unsafe { CStr::from_ptr(value) }.to_string_lossy().trim().to_owned())
}

fn number(info: mlx_sys::mlx_device_info, key: &CStr) -> Option<u64> {
    let mut value = 0;
    // SAFETY: as in `has`.
    let found = has(info, key)
        && unsafe { mlx_sys::mlx_device_info_get_size(&raw mut value, info, key.as_ptr()) } == 0;
    found.then_some(value as u64)
}

/// The file that libmlx was loaded from; `None` where it is part of the program.
pub(crate) fn library_path() -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        path.rsplit('/').next()?.starts_with("libmlx.").then(|| path.to_owned())
    })
}
