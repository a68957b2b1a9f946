//! What the runner is measured against: the plainest loop over `llama_decode` that works, with the library's own
//! defaults, on the same weights. Not used for serving.

use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::Model;

/// One sequence, greedy, no checks.
pub struct RawLoop {
    pointer: NonNull<sys::llama_context>,
    n_vocab: usize,
    n_batch: usize,
    _model: Arc<Model>,
}

impl RawLoop {
    /// A context of `n_ctx` cells and `n_threads` threads; everything else is llama.cpp's default.
    pub(crate) fn new(model: Arc<Model>, n_ctx: u32, n_threads: u32) -> Option<Self> {
        let n_vocab = usize::try_from(model.safe().n_vocab()).ok()?;
        // SAFETY: a live model, default parameters with plain numbers changed.
        let pointer = unsafe {
            let mut params = sys::llama_context_default_params();
            params.n_ctx = n_ctx;
            params.n_threads = n_threads.cast_signed();
            params.n_threads_batch = n_threads.cast_signed();
            sys::llama_init_from_model(model.as_ptr(), params)
        };
        let pointer = NonNull::new(pointer)?;
        // SAFETY: a live context.
        let n_batch = unsafe { sys::llama_n_batch(pointer.as_ptr()) } as usize;
        Some(Self { pointer, n_vocab, n_batch, _model: model })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        // SAFETY: a live context.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.pointer.as_ptr()), false) };
    }

    /// Evaluates `tokens` after what came before and gives the most probable next one.
    ///
    /// # Panics
    /// If llama.cpp fails: a measurement without it means nothing.
    pub fn step(&mut self, tokens: &[u32]) -> u32 {
        assert!(tokens.iter().all(|&id| (id as usize) < self.n_vocab), "ids of this vocabulary");
        let mut ids: Vec<sys::llama_token> = tokens.iter().map(|id| id.cast_signed()).collect();
        for chunk in ids.chunks_mut(self.n_batch) {
            // SAFETY: a live context; the chunk lives over the call, is no longer than the batch, and its ids exist.
            let code = unsafe {
                let batch = sys::llama_batch_get_one(chunk.as_mut_ptr(), chunk.len() as i32);
                sys::llama_decode(self.pointer.as_ptr(), batch)
            };
            assert_eq!(code, 0, "llama_decode");
        }
        // SAFETY: the last token of the last batch has logits, `n_vocab` of them, valid until the next call.
        let logits = unsafe {
            let row = sys::llama_get_logits_ith(self.pointer.as_ptr(), -1);
            std::slice::from_raw_parts(row, self.n_vocab)
        };
        argmax(logits)
    }
}

/// The index of the largest logit; the first of equals.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best as u32
}

impl Drop for RawLoop {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once, before the model.
        unsafe { sys::llama_free(self.pointer.as_ptr()) };
    }
}

impl std::fmt::Debug for RawLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawLoop").field("n_batch", &self.n_batch).finish_non_exhaustive()
    }
}
