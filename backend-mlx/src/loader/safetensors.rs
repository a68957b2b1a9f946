//! MLX directories: safetensors files, packed by MLX or dense.

use std::cell::RefCell;
use std::collections::HashSet;

use duet_core::BackendError;
use duet_core::model::config::ModelConfig;
use duet_core::model::safetensors::{Dtype, SafetensorsDir, TensorEntry};
use duet_core::model::{ModelFileError, ModelInfo, QuantMode, QuantSpec, Quantization};

use super::{Checkpoint, malformed};
use crate::convert::matrix::{DenseBytes, DenseType, Matrix, PackedForm, Source};

/// The tensors of an MLX directory.
pub(crate) struct MlxCheckpoint {
    model: ModelInfo,
    files: SafetensorsDir,
    quantization: Option<Quantization>,
    used: RefCell<HashSet<String>>,
}

impl MlxCheckpoint {
    /// Opens the directory of `model`.
    ///
    /// # Errors
    /// `ModelFile`; `Unsupported` for a quantisation of another library, by its name.
    pub(crate) fn open(model: &ModelInfo) -> Result<Self, BackendError> {
        let config = ModelConfig::read(&model.path)?;
        if let Some(foreign) = config.foreign_quantization() {
            return Err(refused(format!("the quantization {:?}", foreign.scheme)));
        }
        let files = SafetensorsDir::open(&model.path)?;
        Ok(Self {
            model: model.clone(),
            files,
            quantization: config.quantization()?,
            used: RefCell::default(),
        })
    }

    /// How each module is packed, with the number of its weights; `None` for dense ones.
    ///
    /// # Errors
    /// As [`Checkpoint::matrix`].
    pub(crate) fn forms(&self) -> Result<Vec<(Option<PackedForm>, u64)>, BackendError> {
        let matrices = self.files.tensors().filter(|(_, entry)| entry.shape.len() == 2);
        let mut forms = Vec::new();
        for (name, words) in matrices {
            if is_packing(&self.files, name) {
                continue;
            }
            let module = name.strip_suffix(".weight").unwrap_or(name);
            match self.files.get(&format!("{module}.scales")) {
                Some(scales) => {
                    let form = self.form(module, words, scales, None)?;
                    forms.push((Some(form), scales.n_elements() * form.group_size as u64));
                }
                None => {
                    self.dense_type(name, words)?;
                    forms.push((None, words.n_elements()));
                }
            }
        }
        Ok(forms)
    }

    /// The type of the last norm, where it is one that weights have.
    pub(crate) fn norm_type(&self) -> Option<DenseType> {
        let name = "model.norm.weight";
        self.dense_type(name, self.files.get(name)?).ok()
    }

    /// Whether the module has packed weights is for the file to say (it has scales, or has not), and so are its bits; only
    /// where the shapes leave a choice the configuration decides.
    fn form(
        &self,
        module: &str,
        words: &TensorEntry,
        scales: &TensorEntry,
        cols: Option<usize>,
    ) -> Result<PackedForm, BackendError> {
        let wrong =
            |what: String| Err(malformed(&self.model, format!("the packed module {module:?} {what}")));
        let rule = self.quantization.as_ref().and_then(|quantization| quantization.for_module(module));
        if let Some(QuantSpec { mode, .. }) = rule.filter(|rule| rule.mode != QuantMode::Affine) {
            return Err(refused(format!("the quantization mode {:?}", mode.as_str())));
        }
        if scales.dtype == Dtype::U8 {
            return Err(refused("a quantization with 8-bit scales"));
        }
        let ([rows, words_per_row], [scale_rows, groups]) = (words.shape.as_slice(), scales.shape.as_slice())
        else {
            return wrong("is no matrix".to_owned());
        };
        if words.dtype != Dtype::U32 || rows != scale_rows || *groups == 0 {
            return wrong(format!(
                "has words {:?} {:?} beside scales {:?}",
                words.dtype, words.shape, scales.shape
            ));
        }
        let fits = |form: &PackedForm| {
            let per_row = groups * form.group_size;
            per_row * form.bits as usize == words_per_row * 32 && cols.is_none_or(|cols| cols == per_row)
        };
        let stated = rule.map(|rule| PackedForm { bits: rule.bits, group_size: rule.group_size as usize });
        let bits = [4, 8, 6, 5, 3, 2].into_iter();
        let mut others =
            bits.flat_map(|bits| [64, 32, 128, 16].map(|group_size| PackedForm { bits, group_size }));
        match stated.filter(fits).or_else(|| others.find(fits)) {
            Some(form) => Ok(form),
            None => {
                wrong(format!("has words {:?} and scales {:?}, which fit no bits", words.shape, scales.shape))
            }
        }
    }

    fn entry(&self, name: &str) -> Result<&TensorEntry, BackendError> {
        let missing =
            || ModelFileError::NoSuchTensor { path: self.model.path.clone(), tensor: name.to_owned() };
        let entry = self.files.get(name).ok_or_else(missing)?;
        self.used.borrow_mut().insert(name.to_owned());
        Ok(entry)
    }

    fn dense_type(&self, name: &str, entry: &TensorEntry) -> Result<DenseType, BackendError> {
        match entry.dtype {
            Dtype::F32 => Ok(DenseType::F32),
            Dtype::F16 => Ok(DenseType::F16),
            Dtype::BF16 => Ok(DenseType::Bf16),
            other => Err(ModelFileError::UnsupportedTensorType {
                path: self.model.path.clone(),
                tensor: name.to_owned(),
                type_name: format!("{other:?}"),
            }
            .into()),
        }
    }

    /// The numbers of tensor `name`, which has to have this shape.
    fn dense(&self, name: &str, shape: &[usize]) -> Result<DenseBytes<'_>, BackendError> {
        let entry = self.entry(name)?;
        if entry.shape != shape {
            let what = format!("the tensor {name:?} is {:?}, not {shape:?}", entry.shape);
            return Err(malformed(&self.model, what));
        }
        Ok(DenseBytes { ty: self.dense_type(name, entry)?, bytes: self.files.data(name)? })
    }
}

impl Checkpoint for MlxCheckpoint {
    fn matrix(&self, module: &str, rows: usize, cols: usize) -> Result<Matrix<'_>, BackendError> {
        let name = format!("{module}.weight");
        let source = match self.files.get(&format!("{module}.scales")) {
            None => Source::Dense(self.dense(&name, &[rows, cols])?),
            Some(scales) => {
                let words = self.entry(&name)?;
                let form = self.form(module, words, scales, Some(cols))?;
                let groups = [rows, cols / form.group_size];
                let scales = self.dense(&format!("{module}.scales"), &groups)?;
                let biases = self.dense(&format!("{module}.biases"), &groups)?;
                Source::Affine { form, words: self.files.data(&name)?, scales, biases }
            }
        };
        Matrix::new(rows, cols, source).map_err(|error| malformed(&self.model, error.to_string()))
    }

    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, BackendError> {
        let dense = self.dense(name, &[n])?;
        let mut values = vec![0.0; n];
        dense.ty.widen(dense.bytes, &mut values);
        Ok(values)
    }

    fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let unused = self.files.tensors().map(|(name, _)| name).filter(|name| {
            let is_known_leftover =
                is_rotary_buffer(name) || self.model.tied_embeddings && name.starts_with("lm_head.");
            !used.contains(*name) && !is_known_leftover
        });
        unused.map(str::to_owned).collect()
    }
}

/// Frequencies that old checkpoints carry along; they follow from the configuration.
fn is_rotary_buffer(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

/// Whether `name` is a packed module's scales or biases.
fn is_packing(files: &SafetensorsDir, name: &str) -> bool {
    let module = name.strip_suffix(".scales").or_else(|| name.strip_suffix(".biases"));
    module.is_some_and(|module| files.get(&format!("{module}.scales")).is_some())
}

fn refused(feature: impl Into<std::borrow::Cow<'static, str>>) -> BackendError {
    BackendError::Unsupported { feature: feature.into(), backend: crate::ID.into() }
}
