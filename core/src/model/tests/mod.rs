//! Tests of model detection. Hostile headers by the thousand are in `tests/hostile_models.rs` of the crate.

mod describe_gguf;
mod describe_mlx;
mod fit;
mod gguf_windows;
mod golden_kv;
mod mlx_files;
mod quant_config;
mod read_gguf;
mod split_gguf;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{LayerInfo, LayerKind, ModelFileError, ModelInfo, WindowPattern, inspect};
use crate::testing::{GgufWriter, MlxWriter};

/// A directory that goes when the test ends.
fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// `bytes` as the file "m.gguf".
fn gguf_file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = folder();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, bytes).expect("a small file");
    (dir, path)
}

/// What inspecting the written file gives; the directory is gone afterwards.
fn inspect_gguf(writer: &GgufWriter) -> Result<ModelInfo, ModelFileError> {
    let (_dir, path) = gguf_file(&writer.to_bytes());
    inspect(&path)
}

fn inspect_mlx(writer: &MlxWriter) -> Result<ModelInfo, ModelFileError> {
    let dir = folder();
    writer.write(dir.path()).expect("a small model");
    inspect(dir.path())
}

/// The error's one line: it has to begin with the name of a file or directory that exists, and to contain `expected`.
#[track_caller]
fn check_line<T: std::fmt::Debug>(result: Result<T, ModelFileError>, expected: &str) {
    let error = result.expect_err(expected);
    let line = error.to_string();
    assert!(line.contains(expected), "{line:?} does not contain {expected:?}");
    assert!(line.starts_with(&error.path().display().to_string()), "{line:?} does not name its file first");
    assert!(!line.contains('\n') && line.len() < 600, "not one line: {line:?}");
}

/// The tiny model of this family with further keys, its layers' number among them.
fn family(architecture: &str, n_layers: u32, edit: impl FnOnce(&mut GgufWriter)) -> ModelInfo {
    let mut file = GgufWriter::tiny(architecture);
    file.set(&format!("{architecture}.block_count"), n_layers);
    edit(&mut file);
    inspect_gguf(&file).expect("a good file")
}

/// Which layers have a window, as a string of 'w' and '.'.
fn pattern(info: &ModelInfo) -> String {
    info.layers.iter().map(|layer| if layer.window.is_some() { 'w' } else { '.' }).collect()
}

/// A description with these layers and hardly anything else.
fn info_with(layers: Vec<LayerInfo>, context_length: u32) -> ModelInfo {
    let mut info = inspect_gguf(&GgufWriter::tiny("llama")).expect("the tiny model");
    info.path = Path::new("hand-made.gguf").to_owned();
    info.n_layers = layers.len() as u32;
    info.window = WindowPattern::of(&layers);
    info.context_length = context_length;
    info.layers = layers;
    info
}

/// An attention layer with `n_kv` key/value heads of size `head_dim`.
fn layer(n_kv: u32, head_dim: u32, window: Option<u32>) -> LayerInfo {
    LayerInfo {
        kind: LayerKind::Attention,
        n_heads: n_kv.saturating_mul(4),
        n_kv_heads: n_kv,
        head_dim_k: head_dim,
        head_dim_v: head_dim,
        window,
    }
}
