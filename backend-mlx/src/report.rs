//! What a comparison of converted weights with their file says.

/// The outcome of [`crate::check_exactness`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExactnessReport {
    /// Tensors compared.
    pub n_tensors: usize,
    /// Values compared.
    pub n_values: u64,
    /// Tensors with values that differ in any bit.
    pub differences: Vec<Difference>,
}

impl ExactnessReport {
    /// Whether every value is bit for bit the file's.
    pub fn is_exact(&self) -> bool {
        self.differences.is_empty()
    }
}

/// A tensor that was changed by its conversion.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The file's name for it.
    pub tensor: String,
    /// Values that differ.
    pub n_values: u64,
    /// The largest difference.
    pub largest: f32,
}

/// Takes a tensor's name, its values as MLX computes with them, and the file's own.
pub type EachTensor<'a> = dyn FnMut(&str, &[f32], &[f32]) + 'a;
