//! What a model's weights will be held as, told from headers alone.

use duet_core::model::gguf::GgmlType;
use duet_core::model::{KvAllocation, KvType, ModelFormat, ModelInfo};
use duet_core::{BackendError, EngineSettings, Probe};

use crate::convert::matrix::PackedForm;
use crate::convert::repack::{GROUP_SIZE, affine_bits};
use crate::loader::{GgufCheckpoint, Held, MlxCheckpoint, Placement, encodings};
use crate::models::{DecoderConfig, Family};
use crate::tensor::ElementType;

/// How the matrices of one kind are stored in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Ggml(GgmlType),
    Affine(PackedForm),
    Dense,
}

impl Stored {
    fn name(self) -> String {
        match self {
            Self::Ggml(ty) => ty.name().to_owned(),
            Self::Affine(PackedForm { bits, group_size }) => format!("affine {bits}-bit g{group_size}"),
            Self::Dense => "dense".to_owned(),
        }
    }

    fn packed_form(self) -> Option<PackedForm> {
        match self {
            Self::Ggml(ty) => affine_bits(ty).map(|bits| PackedForm { bits, group_size: GROUP_SIZE }),
            Self::Affine(form) => Some(form),
            Self::Dense => None,
        }
    }

    fn is_quantized(self) -> bool {
        match self {
            Self::Ggml(ty) => ty.is_quantized(),
            Self::Affine(_) => true,
            Self::Dense => false,
        }
    }
}

/// The matrices of a model: kinds and their numbers of weights, the most frequent first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inventory(Vec<(Stored, u64)>);

impl Inventory {
    /// Of a model that this engine can run.
    ///
    /// # Errors
    /// `UnsupportedArchitecture`; `Unsupported` for another library's quantisation; `ModelFile`, naming the tensor, for a
    /// type that cannot be held.
    pub(crate) fn of(model: &ModelInfo) -> Result<Self, BackendError> {
        let family = Family::of(model)?;
        DecoderConfig::of(model, family)?;
        let mut kinds: Vec<(Stored, u64)> = Vec::new();
        let mut add = |stored: Stored, n: u64| match kinds.iter_mut().find(|(kind, _)| *kind == stored) {
            Some((_, sum)) => *sum += n,
            None => kinds.push((stored, n)),
        };
        match model.format {
            ModelFormat::Gguf => {
                for (ty, n) in encodings(GgufCheckpoint::open(model, family)?.file()) {
                    add(Stored::Ggml(ty), n);
                }
            }
            ModelFormat::MlxDirectory => {
                for (form, n) in MlxCheckpoint::open(model)?.forms()? {
                    add(form.map_or(Stored::Dense, Stored::Affine), n);
                }
            }
        }
        kinds.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        Ok(Self(kinds))
    }

    /// Bytes of all matrices, held so.
    pub(crate) fn n_bytes(&self, placement: Placement) -> u64 {
        let bits: f64 = self.0.iter().map(|&(stored, n)| n as f64 * held_bits(stored, placement)).sum();
        (bits / 8.0) as u64
    }

    /// In words, and whether every value is the file's.
    pub(crate) fn describe(&self, placement: Placement) -> (String, bool) {
        let packed = |stored: Stored| stored.packed_form().filter(|_| placement.held == Held::Packed);
        let names = |kinds: &[Stored]| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        let (as_packed, as_dense): (Vec<Stored>, Vec<Stored>) =
            self.0.iter().map(|(stored, _)| *stored).partition(|stored| packed(*stored).is_some());
        let (dequantised, plain): (Vec<Stored>, Vec<Stored>) =
            as_dense.into_iter().partition(|kind| kind.is_quantized());
        let mut parts = Vec::new();
        if !as_packed.is_empty() {
            let from_gguf = as_packed.iter().any(|stored| matches!(stored, Stored::Ggml(_)));
            let regrouped = if from_gguf { " regrouped as affine g32" } else { "" };
            parts.push(format!("{}{regrouped} with {} scales", names(&as_packed), placement.compute));
        }
        if !dequantised.is_empty() {
            parts.push(format!("{}, dequantised from {}", placement.compute, names(&dequantised)));
        } else if !plain.is_empty() {
            parts.push(placement.compute.to_string());
        }
        let exact = placement.compute == ElementType::F32;
        parts.push(if exact { "value-exact" } else { "rounded to the compute type" }.to_owned());
        (parts.join("; "), exact)
    }

    /// The answer to [`duet_core::InferenceBackend::probe`].
    pub(crate) fn probe(&self, placement: Placement, kv_type: KvType) -> Probe {
        let n: u64 = self.0.iter().map(|(_, n)| n).sum();
        let mut notes = Vec::new();
        if placement.held == Held::Dense && self.0.iter().any(|(stored, _)| stored.is_quantized()) {
            notes.push(
                "weights are dequantised at load, which is faster on this CPU and takes more memory"
                    .to_owned(),
            );
        }
        Probe {
            weights: self.describe(placement).0,
            bits_per_weight: if n == 0 { 0.0 } else { self.n_bytes(placement) as f64 * 8.0 / n as f64 },
            kv_type,
            kv_allocation: KvAllocation::Mlx,
            settings: EngineSettings { weights: true, kv_unified: false },
            notes,
        }
    }
}

/// Bits per weight of matrices stored so, as they are held.
fn held_bits(stored: Stored, placement: Placement) -> f64 {
    let compute_bits = placement.compute.size() as f64 * 8.0;
    match stored.packed_form() {
        Some(form) if placement.held == Held::Packed => {
            f64::from(form.bits) + 2.0 * compute_bits / form.group_size as f64
        }
        _ => compute_bits,
    }
}
