//! What will be done, said before it is done.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::measure::WashOutRule;

/// One side of the comparison, before it is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedArm {
    /// How the report calls it: the engine's id, with a number where both arms have the same.
    pub label: String,
    /// The engine's id.
    pub engine: String,
    /// Why this engine.
    pub reason: String,
    /// The model.
    pub path: PathBuf,
    /// What the engine will hold the weights as.
    pub weights: String,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// A and B.
    pub arms: Vec<PlannedArm>,
    /// Prompt tokens of a request.
    pub n_prompt: usize,
    /// Tokens decoded after it, in each mode.
    pub n_decode: usize,
    /// The blocks: "ABBA" or "BAAB" each.
    pub orders: Vec<String>,
    /// Seed of the orders.
    pub seed: u64,
    /// Most prompt tokens of a step.
    pub prefill_chunk: u32,
    /// When an arm counts as warm after a switch.
    pub wash_out: WashOutRule,
    /// Windows of the agreement.
    pub n_windows: usize,
    /// Tokens of a window.
    pub window: usize,
    /// Context asked of both engines.
    pub context_length: u32,
    /// Where the text is from.
    pub text: String,
    /// Its tokens.
    pub n_text_tokens: usize,
    /// SHA-256 of its ids, each as four bytes, lowest first: both arms get these.
    pub ids_sha256: String,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (side, arm) in ["A", "B"].iter().zip(&self.arms) {
            writeln!(
                f,
                "{side}  {}: {} ({}; weights {})",
                arm.label,
                arm.path.display(),
                arm.reason,
                arm.weights
            )?;
        }
        writeln!(
            f,
            "{} blocks ({}) of 4 visits, each {} prompt + {} decoded tokens in two modes",
            self.orders.len(),
            self.orders.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(" ")
                + if self.orders.len() > 8 { " …" } else { "" },
            self.n_prompt,
            self.n_decode,
        )?;
        match self.n_windows {
            0 => writeln!(f, "no agreement")?,
            n => writeln!(f, "agreement over {n} windows of {} tokens", self.window)?,
        }
        write!(
            f,
            "text: {}, {} tokens, ids sha256 {}…",
            self.text,
            self.n_text_tokens,
            &self.ids_sha256[..12]
        )
    }
}
