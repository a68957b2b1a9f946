//! What the tests of the engine share: fixtures, a tokenizer for any vocabulary, and doors to a loaded model's runner.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use duet_backend_mlx::MlxBackend;
use duet_core::model::safetensors::SafetensorsDir;
use duet_core::model::{KvType, inspect};
use duet_core::text::{EncodeOptions, TokenId, Tokenizer, TokenizerError};
use duet_core::{
    BackendError, InferenceBackend, LoadProgress, LoadSpec, LoadedModel, ModelRunner, WeightsMode,
};

/// A file or folder of tests/fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// Tokens of one byte, as many ids as the model has: ids beyond the bytes repeat them.
#[derive(Debug)]
pub(crate) struct WideTokenizer {
    bytes: Vec<Vec<u8>>,
}

impl WideTokenizer {
    /// Of `n` ids.
    pub(crate) fn new(n: u32) -> Self {
        Self { bytes: (0..n).map(|id| vec![b'a' + (id % 26) as u8]).collect() }
    }
}

impl Tokenizer for WideTokenizer {
    fn encode(&self, text: &str, _: EncodeOptions) -> Result<Vec<TokenId>, TokenizerError> {
        Ok(text.bytes().map(|byte| u32::from(byte) % self.bytes.len() as u32).collect())
    }

    fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.bytes.get(id as usize).map(Vec::as_slice)
    }

    fn is_control(&self, _: TokenId) -> bool {
        false
    }

    fn vocab_size(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn bos(&self) -> Option<TokenId> {
        None
    }

    fn eos(&self) -> Option<TokenId> {
        None
    }

    fn adds_bos(&self) -> bool {
        false
    }

    fn end_of_generation(&self) -> &[TokenId] {
        &[]
    }

    fn kind(&self) -> &str {
        "one letter per id"
    }

    fn strips_leading_space(&self) -> bool {
        false
    }
}

/// A spec for the model at `path`: f32 KV cache, `parallel` sequences of 192 tokens.
pub(crate) fn spec(path: &Path, parallel: u32) -> LoadSpec {
    let model = inspect(path).expect("a model");
    let tokenizer = Arc::new(WideTokenizer::new(model.vocab_size));
    let mut spec = LoadSpec::new(Arc::new(model), tokenizer);
    spec.context_length = 192;
    spec.parallel = parallel;
    spec.kv_tokens = 192 * parallel;
    spec.kv_type = Some(KvType::F32);
    spec
}

/// Says yes to everything.
pub(crate) fn no_progress() -> LoadProgress {
    Arc::new(|_| true)
}

/// Loads by a spec.
pub(crate) async fn load(spec: LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError> {
    MlxBackend::new().expect("MLX starts").load(spec, no_progress()).await
}

/// Loads the model at `path` with so many sequences and weights held so.
pub(crate) async fn load_as(path: &Path, parallel: u32, weights: WeightsMode) -> Arc<dyn LoadedModel> {
    let mut spec = spec(path, parallel);
    spec.weights = weights;
    load(spec).await.expect("the model loads")
}

/// Runs `work` with the runner of a loaded model, on its thread.
pub(crate) async fn with_runner<T: Send + 'static>(
    model: &dyn LoadedModel,
    work: impl FnOnce(&mut dyn ModelRunner) -> T + Send + 'static,
) -> T {
    let (give, take) = tokio::sync::oneshot::channel();
    let job = model.run_exclusive(Box::new(move |runner| {
        let _ = give.send(work(runner)); // nobody waits after a failed assertion
    }));
    job.await.expect("the engine runs the job");
    take.await.expect("the job gave its result")
}

/// The reference logits of a fixture.
pub(crate) struct Oracle {
    files: SafetensorsDir,
}

impl Oracle {
    /// tests/fixtures/oracle/`name`.safetensors.
    pub(crate) fn open(name: &str) -> (Self, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let from = fixture(&format!("oracle/{name}.safetensors"));
        std::fs::copy(from, folder.path().join("model.safetensors")).expect("the oracle is there");
        (Self { files: SafetensorsDir::open(folder.path()).expect("an oracle file") }, folder)
    }

    /// Whether it has an entry of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.get(name).is_some()
    }

    /// Whole numbers.
    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        let words = self.files.data(name).expect("an entry").as_chunks::<4>().0;
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    /// Numbers.
    pub(crate) fn numbers(&self, name: &str) -> Vec<f32> {
        let words = self.files.data(name).expect("an entry").as_chunks::<4>().0;
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }
}

/// The largest difference, relative to the largest value of `expected`.
pub(crate) fn worst(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    let worst = got.iter().zip(expected).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(got.iter().all(|x| x.is_finite()));
    worst / scale
}
