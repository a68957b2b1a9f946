//! A context: one KV cache and one set of buffers over a model, bound to the thread that made it.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use llama_cpp_sys_2 as sys;

use super::log::{capture, errors};
use super::model::reason;
use super::{Batch, Buffers, ContextSettings, Model, ModelError, Purpose};

/// Why a batch was not evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Would have ended the process or corrupted memory; nothing was done.
    #[error("refused: {0}")]
    Refused(String),
    /// No room in the KV cache; the library has put the memory back.
    #[error("no room in the KV cache")]
    NoCells,
    /// The library found the batch inconsistent; nothing was done.
    #[error("invalid batch ({0})")]
    Invalid(String),
    /// Failed on the way: micro-batches that had been evaluated are still in the memory.
    #[error("llama_decode gave {code} ({reason})")]
    Failed {
        /// As returned.
        code: i32,
        /// As logged.
        reason: String,
    },
}

/// An owned context. Not `Send`: the thread that made it is the only one to use it.
pub(crate) struct Context {
    pointer: NonNull<sys::llama_context>,
    memory: sys::llama_memory_t,
    settings: ContextSettings,
    n_vocab: usize,
    /// Rows of logits that the last decode left.
    n_outputs: usize,
    buffers: Buffers,
    /// Dropped after the context (see `Drop`), so that the model outlives it.
    model: Arc<Model>,
    _one_thread: PhantomData<*mut ()>,
}

impl Context {
    /// A context over `model`. The settings are normalised first and compared with what the library made of them.
    pub(crate) fn new(model: Arc<Model>, settings: ContextSettings) -> Result<Self, ModelError> {
        // Making a context may rewrite a field of the model (custom YaRN), so only one at a time.
        static CREATING: Mutex<()> = Mutex::new(());
        let settings = settings.normalized().map_err(ModelError::Library)?;
        if !model.has_weights() {
            return Err(ModelError::Library("only the vocabulary of the model is loaded".into()));
        }
        let n_vocab = usize::try_from(model.safe().n_vocab()).unwrap_or(0);
        let (pointer, lines) = {
            let _guard = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
            capture(|| {
                // SAFETY: a live model with weights; all pointers in the parameters are null.
                unsafe { sys::llama_init_from_model(model.as_ptr(), settings.to_params()) }
            })
        };
        let Some(pointer) = NonNull::new(pointer) else {
            return Err(ModelError::Library(reason(&lines)));
        };
        // SAFETY: a live context, which owns the memory object.
        let memory = unsafe { sys::llama_get_memory(pointer.as_ptr()) };
        let buffers = Buffers::from_log(&lines);
        let context = Self {
            pointer,
            memory,
            settings,
            n_vocab,
            n_outputs: 0,
            buffers,
            model,
            _one_thread: PhantomData,
        };
        context.check().map_err(ModelError::Library)?;
        Ok(context)
    }

    /// Reads back what the library made of the settings.
    fn check(&self) -> Result<(), String> {
        let context = self.pointer.as_ptr();
        let settings = &self.settings;
        // SAFETY: a live context.
        let (causal, pairs) = unsafe {
            (
                sys::llama_get_causal_attn(context),
                [
                    ("n_ctx", sys::llama_n_ctx(context), settings.n_cells),
                    ("n_ctx_seq", sys::llama_n_ctx_seq(context), settings.cells_per_sequence()),
                    ("n_batch", sys::llama_n_batch(context), settings.n_batch),
                    ("n_ubatch", sys::llama_n_ubatch(context), settings.n_ubatch),
                    ("n_seq_max", sys::llama_n_seq_max(context), settings.n_seq_max()),
                    ("n_threads", sys::llama_n_threads(context).cast_unsigned(), settings.n_threads),
                    (
                        "n_threads_batch",
                        sys::llama_n_threads_batch(context).cast_unsigned(),
                        settings.n_threads,
                    ),
                ],
            )
        };
        if settings.purpose.encodes() && (causal || !self.memory.is_null()) {
            return Err("the model is no encoder: it has a KV cache, or causal attention".into());
        }
        if !settings.purpose.encodes() && (self.memory.is_null() || !causal) {
            return Err("the model does not generate text: it has no causal attention over a KV cache".into());
        }
        match pairs.iter().find(|(_, have, want)| have != want) {
            None => Ok(()),
            Some((name, have, want)) => Err(format!("llama.cpp made {name} = {have} of {want}")),
        }
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> &ContextSettings {
        &self.settings
    }

    /// Bytes of its buffers: cache, scratch, outputs.
    pub(crate) fn buffers(&self) -> Buffers {
        self.buffers
    }

    pub(crate) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Width of a row of logits.
    pub(crate) fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Evaluates the batch. Blocks on a CPU; a GPU may still be at work when this returns.
    pub(crate) fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        self.may_decode(batch).map_err(DecodeError::Refused)?;
        // SAFETY: what the library asserts about the batch was checked above.
        self.evaluated(batch.n_outputs(), |context| unsafe { sys::llama_decode(context, batch.as_raw()) })
    }

    /// What became of a batch; `n_outputs` rows of it are left behind if it was evaluated. `call` gets the live context, on
    /// its own thread.
    fn evaluated(
        &mut self,
        n_outputs: usize,
        call: impl FnOnce(*mut sys::llama_context) -> i32,
    ) -> Result<(), DecodeError> {
        self.n_outputs = 0;
        let (code, lines) = capture(|| call(self.pointer.as_ptr()));
        match code {
            0 => {
                self.n_outputs = n_outputs;
                Ok(())
            }
            1 => Err(DecodeError::NoCells),
            -1 => Err(DecodeError::Invalid(errors(&lines))),
            code => Err(DecodeError::Failed { code, reason: errors(&lines) }),
        }
    }

    /// As [`Context::decode`], but given up when `stop` says so, which the CPU asks between the nodes of the graph.
    pub(crate) fn decode_unless(
        &mut self,
        batch: &mut Batch,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), DecodeError> {
        let mut stop: &mut dyn FnMut() -> bool = stop;
        let user = std::ptr::from_mut(&mut stop).cast();
        // SAFETY: a live context on its own thread; `stop` lives until the callback is taken out again below.
        unsafe { sys::llama_set_abort_callback(self.pointer.as_ptr(), Some(ask), user) };
        let result = self.decode(batch);
        self.synchronize();
        // SAFETY: a live context on its own thread, at rest.
        unsafe { sys::llama_set_abort_callback(self.pointer.as_ptr(), None, std::ptr::null_mut()) };
        result
    }

    /// From now on every decode asks `stop` whether to give up.
    #[cfg(test)]
    pub(crate) fn stop_whenever(&mut self, stop: impl FnMut() -> bool + 'static) {
        let stop: &'static mut dyn FnMut() -> bool = Box::leak(Box::new(stop));
        let user = std::ptr::from_mut(Box::leak(Box::new(stop))).cast();
        // SAFETY: a live context on its own thread; both boxes are never freed.
        unsafe { sys::llama_set_abort_callback(self.pointer.as_ptr(), Some(ask), user) };
    }

    fn may_decode(&self, batch: &Batch) -> Result<(), String> {
        let settings = &self.settings;
        if batch.len() == 0 {
            return Err("no rows".into());
        }
        if batch.len() > settings.n_batch as usize {
            return Err(format!("{} rows, the batch holds {}", batch.len(), settings.n_batch));
        }
        if batch.n_outputs() > settings.n_outputs as usize {
            return Err(format!("{} outputs, the context has {}", batch.n_outputs(), settings.n_outputs));
        }
        if batch.max_token() as usize >= self.n_vocab {
            return Err(format!("token {} of a vocabulary of {}", batch.max_token(), self.n_vocab));
        }
        if batch.max_sequence() >= settings.n_sequences {
            return Err(format!("sequence {} of {}", batch.max_sequence(), settings.n_sequences));
        }
        if !batch.positions_are_valid() {
            return Err("a position beyond 2^31".into());
        }
        Ok(())
    }

    /// Logits of the batch decoded last, `[n_outputs, n_vocab]` f32 in the order of its rows; empty if it wanted none or
    /// failed. Waits for the device.
    pub(crate) fn logits(&self) -> &[f32] {
        if self.n_outputs == 0 {
            return &[];
        }
        // SAFETY: a live context on its own thread.
        let pointer = unsafe { sys::llama_get_logits(self.pointer.as_ptr()) };
        if pointer.is_null() {
            return &[];
        }
        // SAFETY: the library keeps one row of `n_vocab` floats per output of the last batch, contiguous and in batch
        // order, until the next decode, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(pointer, self.n_outputs * self.n_vocab) }
    }

    /// Numbers in a state.
    pub(crate) fn state_width(&self) -> usize {
        // SAFETY: a live model.
        usize::try_from(unsafe { sys::llama_model_n_embd_out(self.model.as_ptr()) }).unwrap_or(0)
    }

    /// States of the batch decoded last, `[n_outputs, state_width]` f32 in the order of its rows; empty if it failed. Waits
    /// for the device.
    pub(crate) fn states(&self) -> &[f32] {
        if self.n_outputs == 0 || !matches!(self.settings.purpose, Purpose::States | Purpose::Encode) {
            return &[];
        }
        // SAFETY: a live context on its own thread.
        let pointer = unsafe { sys::llama_get_embeddings(self.pointer.as_ptr()) };
        if pointer.is_null() {
            return &[];
        }
        // SAFETY: without pooling the library keeps one state per output of the last batch, contiguous and in batch order,
        // until the next decode, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(pointer, self.n_outputs * self.state_width()) }
    }

    /// Numbers in a score: 1 of a reranker, more of a classifier.
    pub(crate) fn score_width(&self) -> usize {
        // SAFETY: a live model.
        usize::try_from(unsafe { sys::llama_model_n_cls_out(self.model.as_ptr()) }).unwrap_or(0)
    }

    /// The score of the text encoded last, `[score_width]` f32; empty if that failed or the context is for something else.
    pub(crate) fn scores(&self) -> &[f32] {
        if self.n_outputs == 0 || !self.settings.purpose.ranks() {
            return &[];
        }
        // SAFETY: a live context on its own thread.
        let pointer = unsafe { sys::llama_get_embeddings_seq(self.pointer.as_ptr(), 0) };
        if pointer.is_null() {
            return &[];
        }
        // SAFETY: with that pooling the library keeps so many floats for each sequence of the last batch until the next one,
        // which needs `&mut self`; sequence 0 is the only one (`encode` has seen to it).
        unsafe { std::slice::from_raw_parts(pointer, self.score_width()) }
    }

    /// Encodes the batch, a whole text of sequence 0. Blocks on a CPU; a GPU may still be at work when this returns.
    pub(crate) fn encode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        self.may_encode(batch).map_err(DecodeError::Refused)?;
        // SAFETY: what the library asserts about the batch was checked above.
        self.evaluated(batch.len(), |context| unsafe { sys::llama_encode(context, batch.as_raw()) })
    }

    /// An encoder's text goes through in one pass, or the library ends the process.
    fn may_encode(&self, batch: &Batch) -> Result<(), String> {
        self.may_decode(batch)?;
        if !self.settings.purpose.encodes() || batch.max_sequence() > 0 {
            return Err("not a text for an encoder".into());
        }
        match self.settings.n_ubatch as usize {
            most if batch.len() > most => Err(format!("{} rows of {most} in a pass", batch.len())),
            _ => Ok(()),
        }
    }

    /// Waits until the device has finished.
    pub(crate) fn synchronize(&self) {
        // SAFETY: a live context on its own thread.
        unsafe { sys::llama_synchronize(self.pointer.as_ptr()) };
    }

    /// Removes positions `from..` of a sequence. `false`: this kind of memory cannot, and nothing changed.
    pub(crate) fn remove(&mut self, sequence: u32, from: u32) -> bool {
        let (Some(id), Ok(from)) = (self.settings.library_id(sequence), i32::try_from(from)) else {
            return false;
        };
        // SAFETY: a live memory on its own thread; the id is in range, which the library asserts.
        unsafe { sys::llama_memory_seq_rm(self.memory, id, from, -1) }
    }

    /// Makes `to` share positions `0..n` of `from`. `to` must be empty. `false`: ids out of range, nothing changed.
    ///
    /// With split KV the library copies whole buffers and asserts on ranges, so only whole sequences pass there.
    pub(crate) fn share(&mut self, from: u32, to: u32, n: u32) -> bool {
        let ids = (self.settings.library_id(from), self.settings.library_id(to));
        let ((Some(source), Some(target)), Ok(end)) = (ids, i32::try_from(n)) else { return false };
        if from == to || n == 0 {
            return false;
        }
        let end = if self.settings.kv_unified { end } else { -1 };
        // SAFETY: a live memory on its own thread; ids are in range, and split memory gets the whole range only.
        unsafe { sys::llama_memory_seq_cp(self.memory, source, target, 0, end) };
        true
    }

    /// Smallest and largest position held for a sequence.
    pub(crate) fn positions(&self, sequence: u32) -> Option<(u32, u32)> {
        let id = self.settings.library_id(sequence)?;
        // SAFETY: a live memory on its own thread; the id is in range.
        let (min, max) = unsafe {
            (sys::llama_memory_seq_pos_min(self.memory, id), sys::llama_memory_seq_pos_max(self.memory, id))
        };
        Some((u32::try_from(min).ok()?, u32::try_from(max).ok()?))
    }

    /// The state of one sequence as bytes behind `n_header` zeroes; `None` if the library gives none.
    ///
    /// The library writes the sequences of each cell only up to its own number of them, and then refuses to read a cell
    /// that seems to belong to nobody: a holder lends its cells to the spare sequence for as long as this takes.
    pub(crate) fn save(&mut self, sequence: u32, n_header: usize) -> Option<Vec<u8>> {
        let id = self.settings.library_id(sequence)?;
        let Some(spare) = self.settings.spare_id().filter(|_| sequence >= self.settings.n_sequences) else {
            return self.save_id(id, n_header);
        };
        // SAFETY: a live memory on its own thread; both ids are in range, and holders exist in unified memory only, which
        // copies no buffers.
        unsafe { sys::llama_memory_seq_cp(self.memory, id, spare, 0, -1) };
        let bytes = self.save_id(spare, n_header);
        // SAFETY: as above.
        unsafe { sys::llama_memory_seq_rm(self.memory, spare, 0, -1) };
        bytes
    }

    /// As [`Context::save`], by an id of llama.cpp's below its number of sequences.
    fn save_id(&mut self, id: i32, n_header: usize) -> Option<Vec<u8>> {
        self.synchronize();
        // SAFETY: a live context on its own thread, an id in range; the library writes at most the length it is told,
        // which is what it asked for.
        let (bytes, n) = unsafe {
            let mut bytes = vec![0; n_header + sys::llama_state_seq_get_size(self.pointer.as_ptr(), id)];
            let state = &mut bytes[n_header..];
            let n = sys::llama_state_seq_get_data(self.pointer.as_ptr(), state.as_mut_ptr(), state.len(), id);
            (bytes, n)
        };
        (n > 0 && n_header + n == bytes.len()).then_some(bytes)
    }

    /// Puts a state into a sequence, which must be empty. `bytes` must come from [`Context::save`] of a context of the
    /// same model and settings: the library believes the sizes it reads.
    pub(crate) fn restore(&mut self, sequence: u32, bytes: &[u8]) -> bool {
        let Some(id) = self.settings.library_id(sequence) else { return false };
        let (n, _) = capture(|| {
            // SAFETY: a live context on its own thread, an id in range; reads stay within the given length (the library
            // throws and catches at its end). That the content fits is the caller's promise.
            unsafe { sys::llama_state_seq_set_data(self.pointer.as_ptr(), bytes.as_ptr(), bytes.len(), id) }
        });
        n == bytes.len() && n > 0
    }
}

/// Called by the first compute thread, which is the one that called `llama_decode`.
unsafe extern "C" fn ask(user: *mut c_void) -> bool {
    // SAFETY: `decode_unless` passes a reference that outlives the call, and nobody else uses it meanwhile.
    let stop = unsafe { &mut *user.cast::<&mut dyn FnMut() -> bool>() };
    catch_unwind(AssertUnwindSafe(stop)).unwrap_or(true)
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once; `model` is a field and so is dropped after this.
        unsafe { sys::llama_free(self.pointer.as_ptr()) };
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("settings", &self.settings).finish_non_exhaustive()
    }
}
