//! What a bench has found out about engines for a model on a machine: the file that `engine = "auto"` reads.
//!
//! A decision holds for exactly what was measured: these files, this machine, these versions of the engines. Anything else
//! makes it *stale*, which is said and never followed. The bench writes decisions; core only reads and matches them, so
//! that a server can follow one without linking the bench. docs/decision-file.md documents the format.

mod file;
mod matching;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backend::{BackendInfo, DeviceInfo};

pub use file::{DecisionError, DecisionFile};
pub use matching::{Found, Question, Stale};

/// What was found out about engines for one model on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Decision {
    /// The model.
    pub model: ModelIdentity,
    /// The machine.
    pub machine: MachineIdentity,
    /// The engines that were compared, in the order of the report's arms.
    pub engines: Vec<EngineIdentity>,
    /// When it was decided, RFC 3339.
    pub decided: String,
    /// When it expires, RFC 3339.
    pub expires: String,
    /// The engine to use where the workload is not known; `None`: the measurement gives no reason to leave the stated
    /// rule.
    pub engine: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
    /// The probability that this engine is the faster one for that workload, 0 to 1.
    pub probability: f64,
    /// How much longer requests take on average if the choice is wrong, weighted by how likely that is: 0.01 for 1 %.
    pub expected_loss: f64,
    /// The choice by workload.
    pub workloads: Vec<WorkloadChoice>,
    /// What speaks for and against each engine.
    pub matrix: Vec<EngineRow>,
    /// Where the faster engine changes, one sentence each.
    pub crossovers: Vec<String>,
    /// What the ratios behind it compare: "A" to "D", with the reason.
    pub grade: Option<String>,
    /// The noise floor by figure: 0.01 for 1 %.
    pub noise_floors: BTreeMap<String, f64>,
    /// Codes of findings in the measurement.
    pub codes: Vec<String>,
    /// SHA-256 of the report with the raw samples.
    pub report_sha256: String,
    /// The command that measures it anew.
    pub command: String,
}

/// A model by what its files hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelIdentity {
    /// What it is called; not compared.
    pub name: String,
    /// [`crate::model::fingerprint`] of its files: compared.
    pub fingerprint: String,
    /// SHA-256 of each file, whole; for people and other tools.
    pub sha256: Vec<String>,
}

/// A machine by what makes it fast or slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MachineIdentity {
    /// The processor's name.
    pub cpu: String,
    /// Threads that run at once.
    pub n_threads: usize,
    /// Its architecture ("x86_64").
    pub arch: String,
    /// Main memory in bytes; compared to a sixteenth, since systems reserve a little more or less at each start.
    pub memory_bytes: u64,
    /// The operating system with its version.
    pub os: String,
}

/// An engine by what makes it another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EngineIdentity {
    /// Its id.
    pub id: String,
    /// Its library's and binding's version.
    pub version: String,
    /// The device it ran on.
    pub device: String,
}

impl EngineIdentity {
    /// An engine of this build, by what it says before anything is loaded. Its device is the first one it names.
    pub fn of(info: &BackendInfo) -> Self {
        Self {
            id: info.id.to_owned(),
            version: info.version.clone(),
            device: info.devices.first().map_or_else(String::new, device_name),
        }
    }
}

/// A device as identities and reports name it: "CPU (AMD EPYC 9R14)".
pub fn device_name(device: &DeviceInfo) -> String {
    format!("{} ({})", device.name, device.description)
}

/// The choice for one kind of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkloadChoice {
    /// Its name ("chat").
    pub workload: String,
    /// Prompt tokens of its requests.
    pub n_prompt: u64,
    /// Tokens generated.
    pub n_decode: u64,
    /// Whether such requests were measured, or computed from shorter ones.
    pub estimate: bool,
    /// The engine to use; `None`: no reason to leave the stated rule.
    pub engine: Option<String>,
    /// The probability that it is the faster one (of the faster one by the mean, where no engine is named).
    pub probability: f64,
    /// Expected loss if the choice is wrong: 0.01 for 1 %.
    pub expected_loss: f64,
    /// Time on the first engine / time on the second, by the mean.
    pub time_ratio: f64,
}

/// What speaks for and against one engine. What is not known is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EngineRow {
    /// Its id.
    pub engine: String,
    /// Prompt tokens per second.
    pub prefill_rate: Option<f64>,
    /// Generated tokens per second, as a user gets them.
    pub decode_rate: Option<f64>,
    /// Seconds to load, files cached.
    pub load_seconds: Option<f64>,
    /// What the process grew by.
    pub memory_bytes: Option<u64>,
    /// Most tokens of a request, as measured.
    pub context_length: Option<u32>,
    /// Perplexity over the bench's text.
    pub perplexity: Option<f64>,
    /// What a user of it should know.
    pub risks: Vec<String>,
}
