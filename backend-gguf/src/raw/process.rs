//! The library as a whole: initialised once, never torn down.

use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;

use super::log;

/// A device that llama.cpp can compute on.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// "CPU", "CUDA0", …
    pub(crate) name: String,
    pub(crate) description: String,
    /// Whether it is the CPU (or a library for it) instead of a GPU.
    pub(crate) is_cpu: bool,
    pub(crate) total_bytes: u64,
    pub(crate) free_bytes: u64,
}

/// The initialised library.
#[derive(Debug)]
pub(crate) struct Library {
    /// Kept for its proof of initialisation; `None` if somebody else in the process initialised first.
    _backend: Option<LlamaBackend>,
    /// llama.cpp's own version ("0.6.0-dev").
    pub(crate) version: String,
    /// ggml's version.
    pub(crate) ggml_version: String,
    /// `llama_print_system_info`, untouched.
    pub(crate) system_info: String,
}

/// The library; the first call initialises it. Any thread.
pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        log::install();
        let backend = LlamaBackend::init().ok();
        // SAFETY: these give static strings; the system info is rebuilt in a static buffer at each call, and this is the
        // only call of the process, inside a once-cell.
        let (version, ggml_version, system_info) = unsafe {
            (text(sys::llama_version()), text(sys::ggml_version()), text(sys::llama_print_system_info()))
        };
        tracing::info!(target: "llama.cpp", version, system_info, "llama.cpp is ready");
        Library { _backend: backend, version, ggml_version, system_info }
    })
}

impl Library {
    /// All devices, in the library's order. Asks the drivers for free memory.
    pub(crate) fn devices(&self) -> Vec<Device> {
        llama_cpp_2::list_llama_ggml_backend_devices()
            .into_iter()
            .map(|device| Device {
                is_cpu: matches!(
                    device.device_type,
                    llama_cpp_2::LlamaBackendDeviceType::Cpu
                        | llama_cpp_2::LlamaBackendDeviceType::Accelerator
                ),
                name: device.name,
                description: device.description,
                total_bytes: device.memory_total as u64,
                free_bytes: device.memory_free as u64,
            })
            .collect()
    }

    /// Whether this llama.cpp has a forward pass for `architecture`. Microseconds; reads no file.
    ///
    /// The library has no list to ask for, so it is given a model that is nothing but this name: it gets as far as the
    /// missing hyperparameters for those it knows, and names the architecture as unknown otherwise.
    pub(crate) fn knows_architecture(&self, architecture: &str) -> bool {
        let Ok(value) = CString::new(architecture) else { return false };
        let ((), lines) = log::capture(|| {
            // SAFETY: the metadata lives over the call, which reads it and takes nothing over; no tensors exist, so the
            // callback for their data is never called. A model that came out all the same is freed.
            unsafe {
                let metadata = sys::gguf_init_empty();
                sys::gguf_set_val_str(metadata, c"general.architecture".as_ptr(), value.as_ptr());
                let mut params = sys::llama_model_default_params();
                params.vocab_only = true;
                let model =
                    sys::llama_model_init_from_user(metadata, Some(no_tensor), std::ptr::null_mut(), params);
                if !model.is_null() {
                    sys::llama_model_free(model);
                }
                sys::gguf_free(metadata);
            }
        });
        !lines.iter().any(|line| line.text.contains("unknown model architecture"))
    }
}

unsafe extern "C" fn no_tensor(_tensor: *mut sys::ggml_tensor, _user: *mut std::ffi::c_void) {}

/// # Safety
/// `pointer` is null or a string that ends with NUL.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().trim().to_owned()
}
