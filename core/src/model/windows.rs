//! Which blocks attend to a window, by family: what llama.cpp does when the metadata gives only the window's length.
//!
//! Families that state a window and are run without one by both engines (phi3, Mistral 7B v0.1, qwen2) have none here:
//! their cache is allocated in full.

/// Every `period`-th block attends to everything, the others to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    /// 0: all blocks are windowed; 1: none is.
    pub(super) period: u32,
    /// Whether the full block is the first of its period instead of the last.
    pub(super) full_first: bool,
}

impl Period {
    /// Whether block `layer` is windowed.
    pub(super) fn is_windowed(self, layer: u32) -> bool {
        match self.period {
            0 => true,
            period if self.full_first => !layer.is_multiple_of(period),
            period => layer % period != period - 1,
        }
    }
}

/// The family's own period, for GGUF `general.architecture` and MLX `model_type` alike (spelt with '-' or '_').
pub(super) fn family_period(architecture: &str, n_layers: u32) -> Option<Period> {
    let last = |period| Some(Period { period, full_first: false });
    let first = |period| Some(Period { period, full_first: true });
    match architecture.replace('_', "-").as_str() {
        "gemma2" | "gpt-oss" => last(2),
        "gemma3n" | "gemma3n-text" => last(5),
        "gemma3" | "gemma3-text" | "gemma-embedding" => last(6),
        "plamo3" => last(8),
        "exaone4" if n_layers == 64 => last(4),
        "afmoe" | "cohere2" | "exaone-moe" | "llama4" | "llama4-text" | "mellum" | "muse-glimmer"
        | "olmo2" | "olmo3" => last(4),
        "cohere2moe" | "laguna" | "smallthinker" => first(4),
        "modern-bert" => first(3),
        _ => None,
    }
}

/// The window's length that llama.cpp puts in place of what the file says.
pub(super) fn fixed_window(architecture: &str) -> Option<u32> {
    match architecture {
        "llama4" => Some(8192),
        "smallthinker" => Some(4096),
        _ => None,
    }
}

/// Whether llama.cpp ignores all window metadata of this family.
pub(super) fn ignores_windows(architecture: &str) -> bool {
    matches!(architecture, "phi3" | "phimoe")
}
