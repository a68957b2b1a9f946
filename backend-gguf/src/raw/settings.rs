//! What a context is made with: every field of llama.cpp's parameters that has a default which bites.

use duet_core::model::memory::KvType;
use llama_cpp_sys_2 as sys;

/// llama.cpp's name for an element type of the KV cache; `None` for those of the other engine.
fn ggml_type(kv_type: KvType) -> Option<sys::ggml_type> {
    Some(match kv_type {
        KvType::F32 => sys::GGML_TYPE_F32,
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Bf16 => sys::GGML_TYPE_BF16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q5_1 => sys::GGML_TYPE_Q5_1,
        KvType::Q5_0 => sys::GGML_TYPE_Q5_0,
        KvType::Q4_1 => sys::GGML_TYPE_Q4_1,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
        KvType::Affine { .. } => return None,
    })
}

/// Windowed layers keep their window only, as llama-server does; the library's default keeps everything.
pub(crate) const SWA_FULL: bool = false;

/// Whether attention runs as one fused kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlashAttention {
    /// As llama.cpp decides for model and device.
    Auto,
    On,
    Off,
}

/// What a context is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Tokens one after another over a cache; logits come back.
    Generate,
    /// The same, and each row leaves its state as well.
    States,
    /// Whole texts without a cache, each of whose rows leaves its state.
    Encode,
    /// Whole pairs of texts without a cache, which leave a score.
    Rank,
}

impl Purpose {
    /// Whether texts are encoded without a cache.
    pub(crate) fn encodes(self) -> bool {
        matches!(self, Self::Encode | Self::Rank)
    }

    /// Whether scores come back.
    pub(crate) fn ranks(self) -> bool {
        self == Self::Rank
    }
}

/// A context's settings, all explicit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContextSettings {
    /// Cells of KV cache over all sequences; rounded up to [`ContextSettings::CELLS_STEP`].
    pub(crate) n_cells: u32,
    /// Most rows of one call.
    pub(crate) n_batch: u32,
    /// Most rows of one pass over the weights.
    pub(crate) n_ubatch: u32,
    /// Sequences that may have rows; at most [`ContextSettings::MAX_SEQUENCES`].
    pub(crate) n_sequences: u32,
    /// Ids above these that only hold cells; as many as the library has room for, and none with split KV, where each id
    /// would have a buffer of its own.
    pub(crate) n_holders: u32,
    /// Most rows of one call that give logits; at least `n_sequences`.
    pub(crate) n_outputs: u32,
    /// Threads for decoding and for prompts.
    pub(crate) n_threads: u32,
    pub(crate) flash_attention: FlashAttention,
    pub(crate) kv_type: KvType,
    /// One buffer for all sequences instead of one each.
    pub(crate) kv_unified: bool,
    pub(crate) purpose: Purpose,
}

impl ContextSettings {
    /// llama.cpp's ceiling for sequence ids (`LLAMA_MAX_SEQ`).
    pub(crate) const MAX_SEQUENCES: u32 = 256;
    /// llama.cpp pads the cells to a multiple of this.
    pub(crate) const CELLS_STEP: u32 = 256;

    /// The same settings as llama.cpp would make them, or what is wrong with them. After this nothing that depends on
    /// settings alone can fail an assertion inside the library.
    pub(crate) fn normalized(mut self) -> Result<Self, String> {
        if self.n_sequences == 0 || self.n_sequences > Self::MAX_SEQUENCES {
            return Err(format!(
                "{} sequences; llama.cpp has 1 to {}",
                self.n_sequences,
                Self::MAX_SEQUENCES
            ));
        }
        if self.n_cells == 0 || self.n_batch == 0 || self.n_ubatch == 0 || self.n_threads == 0 {
            return Err("cells, batch, micro-batch and threads must be at least 1".into());
        }
        if ggml_type(self.kv_type).is_none() {
            return Err(format!("llama.cpp has no KV cache of type {:?}", self.kv_type));
        }
        let quantised = !matches!(self.kv_type, KvType::F32 | KvType::F16 | KvType::Bf16);
        if quantised && self.flash_attention == FlashAttention::Off {
            return Err("a quantised KV cache needs flash attention".into());
        }
        // The fused kernel takes f16 only: llama.cpp would round an f32 cache to f16, and all of it at every step.
        if self.kv_type == KvType::F32 && self.flash_attention == FlashAttention::Auto {
            self.flash_attention = FlashAttention::Off;
        }
        let n_ids = Self::MAX_SEQUENCES - self.n_sequences;
        self.n_holders = if self.kv_unified { self.n_holders.min(n_ids.saturating_sub(1)) } else { 0 };
        // Split mode gives each sequence an equal share, rounded up on its own.
        let n_parts = if self.kv_unified { 1 } else { self.n_sequences };
        self.n_cells = self
            .n_cells
            .div_ceil(n_parts)
            .checked_next_multiple_of(Self::CELLS_STEP)
            .and_then(|part| part.checked_mul(n_parts))
            .filter(|&cells| i32::try_from(cells).is_ok())
            .ok_or_else(|| format!("{} KV cells are more than llama.cpp can count", self.n_cells))?;
        // A causal model's batch is clamped to the cells; done here, so that reading back shows no difference.
        self.n_batch = self.n_batch.min(self.n_cells);
        self.n_ubatch = self.n_ubatch.min(self.n_batch);
        if self.n_seq_max() > self.n_batch {
            return Err(format!(
                "{} sequences do not fit into a batch of {} rows: each may need one",
                self.n_seq_max(),
                self.n_batch
            ));
        }
        self.n_outputs = self.n_outputs.clamp(self.n_seq_max(), self.n_batch);
        Ok(self)
    }

    /// Sequences as llama.cpp is told: ids from here on are good for its memory, but not in batches and not for saving a
    /// state. With holders that is one more than may run, the spare one.
    pub(crate) fn n_seq_max(&self) -> u32 {
        self.n_sequences + u32::from(self.n_holders > 0)
    }

    /// llama.cpp's id for one of ours: sequences, then the spare one, then the holders. `None` for ids that do not exist.
    pub(super) fn library_id(&self, sequence: u32) -> Option<i32> {
        let id = match sequence.checked_sub(self.n_sequences) {
            None => sequence,
            Some(holder) if holder < self.n_holders => sequence + 1,
            Some(_) => return None,
        };
        i32::try_from(id).ok()
    }

    /// The id through which a holder's state is saved; always empty otherwise.
    pub(super) fn spare_id(&self) -> Option<i32> {
        (self.n_holders > 0).then(|| i32::try_from(self.n_sequences).ok()).flatten()
    }

    /// Cells that one sequence can use.
    pub(crate) fn cells_per_sequence(&self) -> u32 {
        if self.kv_unified { self.n_cells } else { self.n_cells / self.n_sequences }
    }

    /// llama.cpp's parameters, every field that matters written down.
    pub(super) fn to_params(self) -> sys::llama_context_params {
        // SAFETY: returns a plain struct by value.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = self.n_cells;
        params.n_batch = self.n_batch;
        params.n_ubatch = self.n_ubatch;
        params.n_seq_max = self.n_seq_max();
        params.n_rs_seq = 0;
        params.n_outputs_max = self.n_outputs;
        params.n_outputs_max_per_seq = 0; // only limits samplers on the device, of which there are none
        let n_threads = i32::try_from(self.n_threads).unwrap_or(i32::MAX);
        params.n_threads = n_threads;
        params.n_threads_batch = n_threads;
        params.ctx_type = sys::LLAMA_CONTEXT_TYPE_DEFAULT;
        params.rope_scaling_type = sys::LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED; // as the model says
        params.pooling_type = match self.purpose {
            // No state is asked for, so nothing is pooled; llama.cpp warns of whatever is not the model's own.
            Purpose::Generate => sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
            Purpose::Rank => sys::LLAMA_POOLING_TYPE_RANK,
            _ => sys::LLAMA_POOLING_TYPE_NONE,
        };
        params.attention_type = sys::LLAMA_ATTENTION_TYPE_UNSPECIFIED; // as the model says; checked afterwards
        params.flash_attn_type = match self.flash_attention {
            FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        };
        // `normalized` has refused types that llama.cpp does not have.
        let element = ggml_type(self.kv_type).unwrap_or(sys::GGML_TYPE_F16);
        params.type_k = element;
        params.type_v = element;
        params.embeddings = self.purpose != Purpose::Generate;
        params.offload_kqv = true;
        params.op_offload = true;
        params.no_perf = true;
        params.swa_full = SWA_FULL;
        params.kv_unified = self.kv_unified;
        params.cb_eval = None;
        params.abort_callback = None;
        params.samplers = std::ptr::null_mut();
        params.n_samplers = 0;
        params.ctx_other = std::ptr::null_mut();
        params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ContextSettings {
        ContextSettings {
            n_cells: 1000,
            n_batch: 512,
            n_ubatch: 512,
            n_sequences: 4,
            n_holders: 0,
            n_outputs: 64,
            n_threads: 2,
            flash_attention: FlashAttention::Auto,
            kv_type: KvType::F16,
            kv_unified: true,
            purpose: Purpose::Generate,
        }
    }

    #[test]
    fn cells_are_padded_as_the_library_pads() {
        assert_eq!(settings().normalized().unwrap().n_cells, 1024);
        let split = ContextSettings { kv_unified: false, ..settings() }.normalized().unwrap();
        assert_eq!((split.n_cells, split.cells_per_sequence()), (1024, 256));
        let uneven =
            ContextSettings { kv_unified: false, n_sequences: 3, ..settings() }.normalized().unwrap();
        assert_eq!((uneven.n_cells, uneven.cells_per_sequence()), (1536, 512));
    }

    #[test]
    fn a_batch_never_exceeds_the_cells() {
        let small = ContextSettings { n_cells: 10, n_batch: 4096, ..settings() }.normalized().unwrap();
        assert_eq!((small.n_cells, small.n_batch, small.n_ubatch), (256, 256, 256));
    }

    #[test]
    fn what_the_library_would_abort_on_is_refused() {
        for bad in [
            ContextSettings { n_sequences: 0, ..settings() },
            ContextSettings { n_sequences: 257, ..settings() },
            ContextSettings { n_sequences: 5, n_batch: 4, ..settings() },
            ContextSettings { n_cells: 0, ..settings() },
            ContextSettings { n_batch: 0, ..settings() },
            ContextSettings { n_ubatch: 0, ..settings() },
            ContextSettings { n_threads: 0, ..settings() },
            ContextSettings { n_cells: u32::MAX, ..settings() },
            ContextSettings { kv_type: KvType::Affine { bits: 4, group_size: 32 }, ..settings() },
            ContextSettings { kv_type: KvType::Q8_0, flash_attention: FlashAttention::Off, ..settings() },
            ContextSettings { n_cells: u32::MAX, kv_unified: false, ..settings() },
        ] {
            assert!(bad.normalized().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn holders_get_the_ids_that_are_left() {
        let settings = |n_sequences, n_holders, kv_unified| {
            let settings = ContextSettings { n_sequences, n_holders, kv_unified, ..settings() };
            settings.normalized().unwrap()
        };
        assert_eq!(settings(4, 64, false).n_holders, 0, "each would need a buffer");
        let some = settings(4, 64, true);
        assert_eq!((some.n_holders, some.n_seq_max(), some.spare_id()), (64, 5, Some(4)));
        let ids: Vec<_> = [0, 3, 4, 67, 68, u32::MAX].map(|id| some.library_id(id)).to_vec();
        assert_eq!(ids, [Some(0), Some(3), Some(5), Some(68), None, None]);
        let most = settings(250, 64, true);
        assert_eq!((most.n_holders, most.library_id(254)), (5, Some(255)));
        let none = settings(255, 64, true);
        assert_eq!((none.n_holders, none.n_seq_max(), none.library_id(255)), (0, 255, None));
        let none = settings(256, 64, true);
        assert_eq!((none.n_holders, none.n_seq_max(), none.spare_id()), (0, 256, None));
        let none = settings(4, 0, true);
        assert_eq!((none.n_seq_max(), none.library_id(4), none.spare_id()), (4, None, None));
    }

    #[test]
    fn an_f32_cache_stays_f32_in_attention() {
        let chosen = |kv_type, flash_attention| {
            ContextSettings { kv_type, flash_attention, ..settings() }.normalized().unwrap().flash_attention
        };
        assert_eq!(chosen(KvType::F32, FlashAttention::Auto), FlashAttention::Off);
        assert_eq!(chosen(KvType::F32, FlashAttention::On), FlashAttention::On, "asked for, so given");
        assert_eq!(chosen(KvType::F16, FlashAttention::Auto), FlashAttention::Auto);
    }

    #[test]
    fn outputs_hold_one_row_per_sequence_at_least() {
        assert_eq!(ContextSettings { n_outputs: 0, ..settings() }.normalized().unwrap().n_outputs, 4);
        assert_eq!(ContextSettings { n_outputs: 9999, ..settings() }.normalized().unwrap().n_outputs, 512);
    }
}
