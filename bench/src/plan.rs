//! What will be done, said before it is done.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::measure::WashOutRule;
use crate::order::{block_orders, order_name};

/// One side of the comparison, before it is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// A and B.
    pub arms: Vec<PlannedArm>,
    /// Prompt tokens of a request.
    pub n_prompt: usize,
    /// How many times each visit reads a prompt, in each mode; the median counts.
    #[serde(default = "once")]
    pub n_reads: usize,
    /// Tokens decoded after it, in each mode.
    pub n_decode: usize,
    /// Blocks of each arm against itself, before the others.
    pub n_aa_blocks: usize,
    /// Blocks that only tell how many it takes.
    pub n_pilot_blocks: usize,
    /// The blocks: "ABBA" or "BAAB" each. With a pilot or a time to keep, what is printed first is the most.
    pub orders: Vec<String>,
    /// Seed of the orders.
    pub seed: u64,
    /// How far from 1 a ratio has to be to matter: 0.03 for 3 %.
    pub margin: f64,
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

/// Before there was a choice.
fn once() -> usize {
    1
}

impl Plan {
    /// Sets the numbers of blocks, and with them the orders.
    pub(crate) fn set_counts(&mut self, n_aa: usize, n_pilot: usize, n_ab: usize) {
        (self.n_aa_blocks, self.n_pilot_blocks) = (n_aa, n_pilot);
        let orders = block_orders(self.seed, n_pilot + n_ab);
        self.orders = orders[n_pilot..].iter().map(order_name).collect();
    }
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
        match self.n_aa_blocks {
            0 => {}
            n => writeln!(f, "{n} blocks of each arm against itself, for the noise floor")?,
        }
        let at_most = if self.n_pilot_blocks > 0 {
            writeln!(f, "{} blocks to see how much they vary", self.n_pilot_blocks)?;
            "at most "
        } else {
            ""
        };
        writeln!(
            f,
            "{at_most}{} blocks ({}) of 4 visits, each {} prompt{} + {} decoded tokens in two modes",
            self.orders.len(),
            self.orders.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(" ")
                + if self.orders.len() > 8 { " …" } else { "" },
            self.n_prompt,
            if self.n_reads > 1 { format!(" (read {} times)", self.n_reads) } else { String::new() },
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
