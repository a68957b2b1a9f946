//! Whether both arms compute with the same weights, shown bit by bit, and what a ratio between them is worth.

use std::sync::Arc;

use duet_core::model::ModelInfo;
use duet_core::{LoadedInfo, WeightsMode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::TEXT_PROMPTS;

/// An arm, as far as its weights go.
#[derive(Debug, Clone)]
pub struct ArmWeights {
    /// The engine's id.
    pub engine: String,
    /// The model it loads.
    pub model: Arc<ModelInfo>,
    /// How it was asked to hold quantised weights.
    pub weights: WeightsMode,
}

impl ArmWeights {
    /// Whether the other arm holds the same weights by the same code.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (&self.engine, &self.model.files) == (&other.engine, &other.model.files)
            && !self.model.files.is_empty()
            && self.weights == other.weights
    }
}

/// One tensor as both arms compute with it, dequantised to f32 in the same order of elements.
#[derive(Debug, Clone, Copy)]
pub struct TensorPair<'a> {
    /// Its name.
    pub name: &'a str,
    /// In the first arm.
    pub a: &'a [f32],
    /// In the second arm.
    pub b: &'a [f32],
}

/// Shows the weights of two arms tensor by tensor. Given by the composition root, which knows the engines' crates.
pub trait SameBits: Send + Sync {
    /// Gives every tensor of the model to `each`, once. Blocks; called from a thread that may.
    ///
    /// # Errors
    /// Why these arms' weights cannot be shown, in one sentence.
    fn compare(
        &self,
        a: &ArmWeights,
        b: &ArmWeights,
        each: &mut dyn FnMut(TensorPair<'_>),
    ) -> Result<(), String>;
}

/// What is known about the weights of both arms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum WeightProof {
    /// Every value of every tensor is the same.
    Identical {
        /// How many tensors.
        n_tensors: usize,
        /// How many values.
        n_values: u64,
    },
    /// Some values differ.
    Different {
        /// How many tensors.
        n_tensors: usize,
        /// How many of them are the same in every value.
        n_identical: usize,
        /// The first difference.
        first: String,
    },
    /// There is nothing to compare: both arms are one engine with one file, held the same way.
    OneFile,
    /// Nothing is known.
    Unknown {
        /// Why.
        reason: String,
    },
}

impl std::fmt::Display for WeightProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identical { n_tensors, .. } => {
                write!(f, "identical weights: {n_tensors} of {n_tensors} tensors bit-equal")
            }
            Self::Different { n_tensors, n_identical, first } => {
                write!(f, "different weights: {n_identical} of {n_tensors} tensors bit-equal; first: {first}")
            }
            Self::OneFile => f.write_str("the same weights: both arms are one engine with one file"),
            Self::Unknown { reason } => write!(f, "no proof of identical weights: {reason}"),
        }
    }
}

/// Compares the bit patterns of all tensors that `shower` gives, both zeros counting as one value; `advanced` is told
/// how many there were so far. Blocks.
pub(crate) fn prove(
    shower: &dyn SameBits,
    a: &ArmWeights,
    b: &ArmWeights,
    advanced: impl Fn(u64),
) -> WeightProof {
    if a.is(b) {
        return WeightProof::OneFile;
    }
    let (mut n_tensors, mut n_identical, mut n_values) = (0, 0, 0);
    let mut first = None;
    let result = shower.compare(a, b, &mut |pair| {
        n_tensors += 1;
        n_values += pair.a.len() as u64;
        match difference(pair) {
            None => n_identical += 1,
            Some(text) => {
                first.get_or_insert(text);
            }
        }
        advanced(n_tensors as u64);
    });
    match (result, first) {
        (Err(reason), _) => WeightProof::Unknown { reason },
        (Ok(()), _) if n_tensors == 0 => WeightProof::Unknown { reason: "no tensor was shown".to_owned() },
        (Ok(()), None) => WeightProof::Identical { n_tensors, n_values },
        (Ok(()), Some(first)) => WeightProof::Different { n_tensors, n_identical, first },
    }
}

fn difference(TensorPair { name, a, b }: TensorPair<'_>) -> Option<String> {
    if a.len() != b.len() {
        return Some(format!("{name} has {} and {} values", a.len(), b.len()));
    }
    // −0 and +0 are one value: d·(q − z) and d·q − d·z give either, and no product with them differs in more.
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a == 0.0 && b == 0.0);
    let index = a.iter().zip(b).position(|(a, b)| !same(*a, *b))?;
    Some(format!("{name}[{index}] is {} and {}", a[index], b[index]))
}

/// What a ratio between two arms compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Grade {
    /// Equal values, equal bytes per token: engines are compared.
    A,
    /// Equal values, other bytes per token: engines are compared.
    B,
    /// Equal nominal bits, other or unproven values: artefacts are compared.
    C,
    /// Anything else: artefacts are compared.
    D,
}

/// A grade and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Graded {
    /// The grade.
    pub grade: Grade,
    /// Why, in one sentence.
    pub reason: String,
}

/// The comparability of two loaded arms.
pub(crate) fn grade(proof: &WeightProof, a: &LoadedInfo, b: &LoadedInfo) -> Graded {
    if is_one(a, b) {
        let reason = "the same engine on the same file, held the same way: what differs is noise".to_owned();
        return Graded { grade: Grade::A, reason };
    }
    let takes_text = |info: &LoadedInfo| info.notes.iter().any(|note| note == TEXT_PROMPTS);
    if takes_text(a) || takes_text(b) {
        let reason =
            "an arm takes text and cuts it into tokens itself: what is compared need not be equal work"
                .to_owned();
        return Graded { grade: Grade::D, reason };
    }
    let (bytes_a, bytes_b) = (a.weight_bytes_per_token as f64, b.weight_bytes_per_token as f64);
    if matches!(proof, WeightProof::Identical { .. }) {
        let bytes = format!("{:.1} and {:.1} MB of weights per token", bytes_a / 1e6, bytes_b / 1e6);
        return match (bytes_a - bytes_b).abs() <= 0.005 * bytes_a.max(bytes_b) {
            true => {
                Graded { grade: Grade::A, reason: format!("equal values and {bytes}: this compares engines") }
            }
            false => Graded {
                grade: Grade::B,
                reason: format!("equal values, but {bytes}: this compares engines"),
            },
        };
    }
    let values = match proof {
        WeightProof::Different { .. } => "other values",
        _ => "values not proven equal",
    };
    let (name_a, name_b) = (&a.model.quantization, &b.model.quantization);
    match (nominal_bits(name_a), nominal_bits(name_b)) {
        (Some(bits_a), Some(bits_b)) if bits_a == bits_b => Graded {
            grade: Grade::C,
            reason: format!("equal nominal bits ({name_a} and {name_b}), {values}: this compares artefacts"),
        },
        _ => Graded {
            grade: Grade::D,
            reason: format!("{name_a} against {name_b}, {values}: this compares artefacts"),
        },
    }
}

/// Whether both arms hold the same weights by the same code: there is nothing to compare.
fn is_one(a: &LoadedInfo, b: &LoadedInfo) -> bool {
    let held = |info: &LoadedInfo| (info.weights.clone(), info.weight_bytes_per_token);
    a.backend == b.backend
        && !a.model.files.is_empty()
        && a.model.files == b.model.files
        && held(a) == held(b)
}

/// The bits that a quantisation's name promises: 4 for "Q4_K_M", "MXFP4" and "affine 4-bit g32", 16 for "BF16".
pub(crate) fn nominal_bits(quantization: &str) -> Option<u32> {
    let digits = quantization.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}
