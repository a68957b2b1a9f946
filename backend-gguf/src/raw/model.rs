//! A loaded model file: weights, or the vocabulary alone.

use std::ffi::{CString, c_void};
use std::mem::{align_of, size_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;

use super::log::{Line, capture};
use super::{Buffers, library};

/// How a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModelSettings {
    /// The vocabulary and nothing else.
    pub(crate) vocab_only: bool,
    /// Map the file instead of reading it.
    pub(crate) mmap: bool,
    /// Keep weights in the layout that this CPU multiplies fastest, at the price of a private copy.
    pub(crate) repack: bool,
}

/// Why a model did not load.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelError {
    #[error("the load was cancelled")]
    Cancelled,
    /// In llama.cpp's words.
    #[error("{0}")]
    Library(String),
}

/// What the library says of a loaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelFacts {
    pub(crate) n_vocab: usize,
    /// Attention window in tokens; 0 without one.
    pub(crate) window: u32,
    /// Mamba, RWKV and the like, or attention beside such layers.
    pub(crate) recurrent: bool,
    /// Whether it takes tokens and gives states on its own: not T5 (two models in one), not a diffusion model.
    pub(crate) stands_alone: bool,
}

/// A model. Immutable once loaded, so it may be shared over threads.
pub(crate) struct Model {
    inner: LlamaModel,
    vocab_only: bool,
    buffers: Buffers,
}

// `LlamaModel` is declared `repr(transparent)` over one non-null pointer; a release that changes it must not compile.
const _: () = assert!(size_of::<LlamaModel>() == size_of::<NonNull<sys::llama_model>>());
const _: () = assert!(align_of::<LlamaModel>() == align_of::<NonNull<sys::llama_model>>());

struct Progress<'a> {
    report: &'a mut dyn FnMut(f32) -> bool,
    cancelled: bool,
}

impl Model {
    /// Loads `path` (the first shard of several). `progress` is called on this thread with 0.0 to 1.0; `false` cancels.
    pub(crate) fn load(
        path: &Path,
        settings: ModelSettings,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Self, ModelError> {
        library();
        super::vocab::check_tokens(path)?;
        let c_path = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| ModelError::Library("the path has a NUL byte".into()))?;
        let mut progress = Progress { report: progress, cancelled: false };
        // SAFETY: returns a plain struct by value.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = -1; // all that a GPU of this build can take
        params.split_mode = sys::LLAMA_SPLIT_MODE_LAYER;
        params.load_mode = if settings.mmap { sys::LLAMA_LOAD_MODE_MMAP } else { sys::LLAMA_LOAD_MODE_NONE };
        params.vocab_only = settings.vocab_only;
        params.check_tensors = false;
        params.use_extra_bufts = settings.repack;
        params.load_mtp = false;
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = std::ptr::from_mut(&mut progress).cast();
        let (model, lines) = capture(|| {
            // SAFETY: path and progress live over the call, which is the only time the callback is used.
            unsafe { sys::llama_model_load_from_file(c_path.as_ptr(), params) }
        });
        let Some(model) = NonNull::new(model) else {
            return Err(if progress.cancelled {
                ModelError::Cancelled
            } else {
                ModelError::Library(reason(&lines))
            });
        };
        // SAFETY: same layout (asserted above), and `LlamaModel` frees exactly such a pointer when dropped.
        let inner = unsafe { std::mem::transmute::<NonNull<sys::llama_model>, LlamaModel>(model) };
        let model = Self { inner, vocab_only: settings.vocab_only, buffers: Buffers::from_log(&lines) };
        // The layout could be right and the meaning wrong; both ways to the same number say that it is not.
        // SAFETY: a live model.
        let n_params = unsafe { sys::llama_model_n_params(model.as_ptr()) };
        if model.inner.n_params() != n_params {
            return Err(ModelError::Library("llama-cpp-2's model is not what this build expects".into()));
        }
        if model.vocab_type() == sys::LLAMA_VOCAB_TYPE_NONE {
            return Err(ModelError::Library("the file has no vocabulary".into()));
        }
        Ok(model)
    }

    /// The model through llama-cpp-2.
    pub(crate) fn safe(&self) -> &LlamaModel {
        &self.inner
    }

    /// The model through the raw interface; valid as long as `self`.
    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        // SAFETY: same layout, asserted above; reads one pointer out of a live value.
        unsafe { *std::ptr::from_ref(&self.inner).cast::<*mut sys::llama_model>() }
    }

    /// Bytes of its weight buffers.
    pub(crate) fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// Whether weights are there to compute with.
    pub(super) fn has_weights(&self) -> bool {
        !self.vocab_only
    }

    /// The kind of vocabulary (llama-cpp-2's own accessor panics for some of them).
    pub(super) fn vocab_type(&self) -> sys::llama_vocab_type {
        // SAFETY: a live model; its vocabulary lives as long.
        unsafe { sys::llama_vocab_type(sys::llama_model_get_vocab(self.as_ptr())) }
    }

    /// What the library says of it.
    pub(crate) fn facts(&self) -> ModelFacts {
        let pointer = self.as_ptr();
        // SAFETY: a live model.
        let (encoder, decoder, diffusion, window) = unsafe {
            (
                sys::llama_model_has_encoder(pointer),
                sys::llama_model_has_decoder(pointer),
                sys::llama_model_is_diffusion(pointer),
                sys::llama_model_n_swa(pointer),
            )
        };
        ModelFacts {
            n_vocab: usize::try_from(self.inner.n_vocab()).unwrap_or(0),
            window: u32::try_from(window).unwrap_or(0),
            recurrent: self.inner.is_recurrent() || self.inner.is_hybrid(),
            stands_alone: decoder && !encoder && !diffusion,
        }
    }

    /// A metadata value as text, if the key is there and not an array.
    pub(crate) fn metadata(&self, key: &str) -> Option<String> {
        self.inner.meta_val_str(key).ok()
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("vocab_only", &self.vocab_only).finish_non_exhaustive()
    }
}

unsafe extern "C" fn on_progress(fraction: f32, user: *mut c_void) -> bool {
    // SAFETY: `load` passes its own `Progress`, and nobody else touches that while the library runs.
    let progress = unsafe { &mut *user.cast::<Progress<'_>>() };
    let go_on = catch_unwind(AssertUnwindSafe(|| (progress.report)(fraction))).unwrap_or(false);
    progress.cancelled |= !go_on;
    go_on
}

/// The error line that says most: the first one, without the C++ function's name.
pub(super) fn reason(lines: &[Line]) -> String {
    let Some(line) = lines.iter().find(|line| line.is_error()) else {
        return "llama.cpp gave no reason".into();
    };
    let mut rest = line.text.as_str();
    while let Some((head, tail)) = rest.split_once(": ") {
        let is_prefix = head == "error loading model"
            || head.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && head.contains('_');
        if !is_prefix {
            break;
        }
        rest = tail;
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Line, reason};

    #[track_caller]
    fn check(lines: &[&str], expected: &str) {
        let lines: Vec<Line> = [Line::test("a: loading", false)]
            .into_iter()
            .chain(lines.iter().map(|line| Line::test(line, true)))
            .collect();
        assert_eq!(reason(&lines), expected);
    }

    #[test]
    fn the_reason_is_the_first_line_without_function_names() {
        check(&[], "llama.cpp gave no reason");
        check(
            &[
                "llama_model_load: error loading model: unknown model architecture: 'x'",
                "llama_model_load_from_file_impl: failed to load model",
            ],
            "unknown model architecture: 'x'",
        );
        check(
            &["gguf_init_from_file_ptr: invalid magic characters: 'abcd'"],
            "invalid magic characters: 'abcd'",
        );
        check(
            &["tensor 'a.b' data is not within the file bounds"],
            "tensor 'a.b' data is not within the file bounds",
        );
    }
}
