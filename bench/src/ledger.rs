//! An arm's memory as a ledger: predicted from headers, counted by the engine, seen by the system, and what of the last the
//! ones before do not explain.

use duet_core::Probe;
use duet_core::model::memory::compute_bytes;
use duet_core::model::{KvLayout, MemoryError, ModelInfo, kv_bytes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::memory::FootprintDelta;
use crate::report::EngineMemory;

/// Growth of the process beyond what is explained counts from this share of the explained on …
const UNEXPLAINED_SHARE: f64 = 0.05;
/// … and from so many bytes on: threads, allocators and the tokenizer are in no ledger.
const UNEXPLAINED_BYTES: i64 = 32 << 20;

/// Memory from headers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PredictedMemory {
    /// Weights as the engine will hold them.
    pub weights_bytes: u64,
    /// KV cache with the request in it, as the engine lays it out.
    pub kv_bytes: u64,
    /// Scratch space, meant to err upwards.
    pub compute_bytes: u64,
    /// Of the KV cache, what a decode step reads in the middle of the request's answer.
    pub step_kv_bytes: u64,
}

/// What a process grew by against what explains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ledger {
    /// Weights, KV cache and scratch by the engine's count; scratch that it does not count, from its highest use, and at
    /// most as predicted.
    pub explained_bytes: u64,
    /// By which the process grew from before the load to after the warm-up, mapped files included.
    pub process_bytes: i64,
    /// `process_bytes` − `explained_bytes`; below 0 where pages are shared or not resident.
    pub unexplained_bytes: i64,
    /// Of these, pages of files beside weights that were copied: the system takes them back when it needs to.
    pub unexplained_file_bytes: i64,
    /// Whether that is more than 5 % of the explained, and more than 32 MiB.
    pub flagged: bool,
}

/// The request that memory is predicted for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) context_length: u32,
    pub(crate) n_prompt: u32,
    pub(crate) n_decode: u32,
    pub(crate) prefill_chunk: u32,
}

impl PredictedMemory {
    /// Of a model on an engine that said this of it.
    ///
    /// # Errors
    /// `UnknownCache` for layers that keep something else than keys and values.
    pub(crate) fn of(
        model: &ModelInfo,
        probe: &Probe,
        layout: KvLayout,
        request: Request,
    ) -> Result<Self, MemoryError> {
        let n_tokens = u64::from(request.n_prompt) + u64::from(request.n_decode);
        let cells = u64::from(request.context_length);
        let middle = u64::from(request.n_prompt) + u64::from(request.n_decode) / 2;
        Ok(Self {
            weights_bytes: held_bytes(model, probe.bits_per_weight),
            kv_bytes: layout.bytes(model, cells, n_tokens, 1)?,
            compute_bytes: compute_bytes(model, request.prefill_chunk.min(request.n_prompt), cells),
            step_kv_bytes: kv_bytes(model, middle, layout.kv_type)?,
        })
    }
}

/// Weights in memory: as on disk, or wider or narrower where the engine holds them otherwise.
pub(crate) fn held_bytes(model: &ModelInfo, held_bits: f64) -> u64 {
    (model.weight_bytes as f64 * held_scale(model, held_bits)).round() as u64
}

/// Bits per weight as held over bits per weight on disk.
pub(crate) fn held_scale(model: &ModelInfo, held_bits: f64) -> f64 {
    match model.bits_per_weight {
        bits if bits > 0.0 && held_bits > 0.0 => held_bits / bits,
        _ => 1.0,
    }
}

impl Ledger {
    /// `None` where the engine does not count its weights: then nothing is explained.
    pub(crate) fn of(
        engine: &EngineMemory,
        predicted: Option<&PredictedMemory>,
        grown: &FootprintDelta,
    ) -> Option<Self> {
        let weights = engine.weights_bytes?;
        let counted = weights.saturating_add(engine.kv_bytes.unwrap_or(0));
        let scratch = engine.compute_bytes.unwrap_or_else(|| {
            // The highest use is the whole process's, which may hold another arm.
            let used = engine.peak_bytes.unwrap_or(counted).saturating_sub(counted);
            predicted.map_or(0, |predicted| used.min(predicted.compute_bytes))
        });
        let explained_bytes = counted.saturating_add(scratch);
        let unexplained_bytes = grown.pss_bytes - i64::try_from(explained_bytes).unwrap_or(i64::MAX);
        let copied = grown.anonymous_bytes >= i64::try_from(weights).unwrap_or(i64::MAX);
        let file = if copied { grown.pss_bytes - grown.anonymous_bytes } else { 0 };
        let limit = (UNEXPLAINED_SHARE * explained_bytes as f64) as i64;
        Some(Self {
            explained_bytes,
            process_bytes: grown.pss_bytes,
            unexplained_bytes,
            unexplained_file_bytes: file.clamp(0, unexplained_bytes.max(0)),
            flagged: unexplained_bytes > limit.max(UNEXPLAINED_BYTES),
        })
    }

    /// The flag in a sentence; `None` where there is none.
    pub(crate) fn warning(&self) -> Option<String> {
        if !self.flagged {
            return None;
        }
        let mb = |bytes: i64| bytes as f64 / 1e6;
        let file = match self.unexplained_file_bytes {
            0 => String::new(),
            bytes => format!(", {:.0} MB of them pages of files that the system can take back", mb(bytes)),
        };
        Some(format!(
            "unexplained memory: the process grew by {:.0} MB and weights, KV cache and scratch explain {:.0} MB; {:.0} MB \
             ({:.0} %) are unexplained{file}",
            mb(self.process_bytes),
            self.explained_bytes as f64 / 1e6,
            mb(self.unexplained_bytes),
            100.0 * self.unexplained_bytes as f64 / self.explained_bytes.max(1) as f64,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn engine(compute: Option<u64>, peak: Option<u64>) -> EngineMemory {
        EngineMemory {
            weights_bytes: Some(500 * MB),
            kv_bytes: Some(20 * MB),
            compute_bytes: compute.map(|mb| mb * MB),
            peak_bytes: peak.map(|mb| mb * MB),
        }
    }

    fn ledger(engine: &EngineMemory, pss: i64, anonymous: i64) -> Ledger {
        let predicted = PredictedMemory {
            weights_bytes: 500 * MB,
            kv_bytes: 20 * MB,
            compute_bytes: 100 * MB,
            step_kv_bytes: MB,
        };
        let mb = MB as i64;
        let grown =
            FootprintDelta { rss_bytes: pss * mb, pss_bytes: pss * mb, anonymous_bytes: anonymous * mb };
        Ledger::of(engine, Some(&predicted), &grown).unwrap()
    }

    #[test]
    fn only_a_large_rest_is_flagged() {
        let counted = engine(Some(30), None);
        for (pss, flagged) in
            [(100, false), (550, false), (580, false), (583, false), (590, true), (2000, true)]
        {
            let found = ledger(&counted, pss, pss);
            assert_eq!((found.explained_bytes, found.flagged), (550 * MB, flagged), "{pss}");
            assert_eq!(found.warning().is_some(), flagged);
        }
        // Below 32 MiB nothing is, however small the model.
        let tiny =
            EngineMemory { weights_bytes: Some(MB), kv_bytes: None, compute_bytes: None, peak_bytes: None };
        assert!(!ledger(&tiny, 34, 34).flagged && ledger(&tiny, 36, 36).flagged);
    }

    #[test]
    fn scratch_that_is_not_counted_is_taken_from_the_highest_use() {
        assert_eq!(ledger(&engine(None, Some(560)), 600, 600).explained_bytes, 560 * MB);
        assert_eq!(
            ledger(&engine(None, Some(2000)), 600, 600).explained_bytes,
            620 * MB,
            "another arm's is in it"
        );
        assert_eq!(ledger(&engine(None, None), 600, 600).explained_bytes, 520 * MB);
    }

    #[test]
    fn pages_of_files_are_said_apart_where_weights_were_copied() {
        let counted = engine(Some(30), None);
        let copied = ledger(&counted, 1050, 550);
        assert_eq!(
            (copied.unexplained_bytes, copied.unexplained_file_bytes),
            (500 * MB as i64, 500 * MB as i64)
        );
        assert!(copied.warning().unwrap().contains("pages of files"));
        let mapped = ledger(&counted, 1050, 50);
        assert_eq!(mapped.unexplained_file_bytes, 0);
        assert!(!mapped.warning().unwrap().contains("pages of files"));
    }

    #[test]
    fn without_a_count_there_is_no_ledger() {
        let none = EngineMemory { weights_bytes: None, ..engine(None, None) };
        let grown = FootprintDelta { rss_bytes: 1, pss_bytes: 1, anonymous_bytes: 1 };
        assert_eq!(Ledger::of(&none, None, &grown), None);
    }
}
