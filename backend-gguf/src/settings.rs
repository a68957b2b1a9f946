//! Choices of this engine that are not a model's: kernels and batch sizes. Defaults were measured (see the guide on GGUF).

/// How the engine computes. One set for all models of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufSettings {
    /// Attention as one fused kernel; `None` leaves it to llama.cpp, which asks the device, but for an f32 KV cache, which
    /// the kernel would round to f16.
    pub flash_attention: Option<bool>,
    /// Rearrange quantised weights at load into the layout that this CPU multiplies fastest, where it has one: a private
    /// copy of them in memory instead of pages shared with the file cache.
    pub repack: bool,
    /// Map weight files instead of reading them.
    pub mmap: bool,
    /// Most rows of one call into llama.cpp; steps of more rows are split.
    pub batch: u32,
    /// Most rows of one pass over the weights.
    pub micro_batch: u32,
    /// Most rows of one call that give logits. Each costs a row of scratch memory as wide as the vocabulary; steps that
    /// want more are split.
    pub outputs: u32,
}

impl Default for GgufSettings {
    fn default() -> Self {
        Self { flash_attention: None, repack: true, mmap: true, batch: 2048, micro_batch: 512, outputs: 64 }
    }
}
