//! `engine = "auto"` with decisions of the bench: followed where they hold, said where they do not.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use duet_core::decision::{Decision, DecisionFile, EngineIdentity, MachineIdentity, ModelIdentity};
use duet_core::model::{ModelInfo, fingerprint};
use duet_core::testing::{FakeBackend, fake_model_info};
use duet_core::{
    BackendError, BackendInfo, EngineChoice, InferenceBackend, LoadProgress, LoadSpec, LoadedModel, Probe,
    Registry,
};

struct Named {
    id: &'static str,
    refuses: bool,
}

#[async_trait]
impl InferenceBackend for Named {
    fn info(&self) -> BackendInfo {
        let (id, version) = (self.id, "1".into());
        let (devices, features) = (Vec::new(), Vec::new());
        BackendInfo { id, library: "none", version, devices, features, library_path: "static".into() }
    }

    fn probe(&self, model: &ModelInfo) -> Result<Probe, BackendError> {
        match self.refuses {
            true => Err(BackendError::invalid("model", "not this one")),
            false => FakeBackend::default().probe(model),
        }
    }

    async fn load(&self, _: LoadSpec, _: LoadProgress) -> Result<Arc<dyn LoadedModel>, BackendError> {
        Err(BackendError::invalid("model", "nothing is loaded here"))
    }
}

fn machine() -> MachineIdentity {
    let (cpu, arch, os) = ("Abacus".into(), "x86_64".into(), "Debian".into());
    MachineIdentity { cpu, n_threads: 2, arch, memory_bytes: 1 << 34, os }
}

fn model(dir: &Path) -> ModelInfo {
    let path = dir.join("m.gguf");
    std::fs::write(&path, b"weights").expect("a file");
    ModelInfo { files: vec![path.clone()], path, ..fake_model_info() }
}

fn decision(model: &ModelInfo, engine: Option<&str>, expires: &str) -> Decision {
    let identity = |id: &str| EngineIdentity { id: id.into(), version: "1".into(), device: String::new() };
    let fingerprint = fingerprint(&model.files).expect("a readable model");
    Decision {
        model: ModelIdentity { name: "m".into(), fingerprint, sha256: vec![] },
        machine: machine(),
        engines: vec![identity("gguf"), identity("mlx")],
        decided: "2026-11-01T00:00:00Z".into(),
        expires: expires.into(),
        engine: engine.map(str::to_owned),
        reason: "mlx is 1.30 times as fast at chat".into(),
        probability: 0.99,
        expected_loss: 0.0,
        workloads: vec![],
        matrix: vec![],
        crossovers: vec![],
        grade: None,
        noise_floors: [].into(),
        codes: vec![],
        report_sha256: String::new(),
        command: String::new(),
    }
}

const FAR: &str = "9000-01-01T00:00:00Z";

#[track_caller]
fn check(refuses: bool, engine: Option<&str>, expires: &str, expected: &str, reason: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let model = model(dir.path());
    let backends: Vec<Arc<dyn InferenceBackend>> =
        vec![Arc::new(Named { id: "gguf", refuses: false }), Arc::new(Named { id: "mlx", refuses })];
    let mut file = DecisionFile::default();
    file.put(decision(&model, engine, expires));
    let text = Arc::new(|_: &ModelInfo| Err(BackendError::invalid("model", "no tokenizer here")));
    let registry = Registry::new(backends, text).with_decisions(file, machine());
    let selected = registry.select(&model, &EngineChoice::Auto).expect("some engine takes it");
    assert_eq!(selected.backend.info().id, expected, "{}", selected.reason);
    assert!(selected.reason.contains(reason), "{}", selected.reason);
    let named = registry.select(&model, &EngineChoice::Named("gguf".into())).expect("it is there");
    assert_eq!(named.reason, "`gguf` was asked for", "a name is stronger than any decision");
}

#[test]
fn a_decision_is_followed() {
    check(false, Some("mlx"), FAR, "mlx", "the bench of 2026-11-01T00:00:00Z: mlx is 1.30 times as fast");
}

#[test]
fn one_that_does_not_hold_is_not_followed_and_says_why() {
    check(false, Some("mlx"), "2026-11-02T00:00:00Z", "gguf", "is stale: it expired on 2026-11-02");
    check(true, Some("mlx"), FAR, "gguf", "the bench chose `mlx`, which refuses the model now");
}

#[test]
fn one_without_a_winner_leaves_the_rule() {
    check(false, None, FAR, "gguf", "the native engine of a .gguf file; the bench of 2026-11-01");
}

#[test]
fn other_models_are_not_touched() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut model = model(dir.path());
    let mut file = DecisionFile::default();
    file.put(decision(&model, Some("mlx"), FAR));
    std::fs::write(&model.files[0], b"other weights").expect("a file");
    let backends: Vec<Arc<dyn InferenceBackend>> =
        ["gguf", "mlx"].map(|id| Arc::new(Named { id, refuses: false }) as _).into();
    let text = Arc::new(|_: &ModelInfo| Err(BackendError::invalid("model", "no tokenizer here")));
    let registry = Registry::new(backends, text).with_decisions(file, machine());
    for missing in [false, true] {
        if missing {
            model.files = vec![dir.path().join("gone")];
        }
        let selected = registry.select(&model, &EngineChoice::Auto).expect("gguf takes it");
        assert_eq!(selected.reason, "the native engine of a .gguf file");
    }
}
