//! duet's bench: the same token ids through two engines, timed in turns, with their agreement beside the speed.
//!
//! Knows engines only by duet-core's contract, and no terminal: the command line gives a [`Reporter`] and prints
//! [`Report::to_text`]. One entry point, [`run`]; what single measurements need is open to others as well:
//! [`measure::measure_runner`] for one request, [`order::block_orders`] for the order of two arms, [`stats`] for the
//! ratio between them. Servers are measured from outside: [`http`] is a client that notes when everything came, [`load`]
//! puts many requests on one server or two.

mod agreement;
pub mod analysis;
mod clock;
pub mod compare;
pub mod decision;
mod environment;
mod error;
mod exclusive;
mod files;
pub mod forecast;
pub mod http;
pub mod import;
mod input;
mod ledger;
mod library;
pub mod load;
mod machine;
pub mod measure;
mod memory;
mod options;
pub mod order;
pub mod parity;
mod plan;
pub mod prompts;
pub mod report;
mod reporter;
pub mod roofline;
pub mod scenario;
pub mod schema;
mod session;
pub mod stats;
pub mod sweep;
pub mod validity;
mod weights;
mod work;
pub mod worker;

pub use agreement::{
    Agreement, DepthBand, Flip, KlSummary, MeanInterval, NonFinite, Reference, RowComparison, argmax,
    compare_rows,
};
pub use clock::{Clock, SystemClock};
pub use environment::Environment;
pub use error::BenchError;
pub use files::{FileHash, hash_file, hash_ids};
pub use ledger::{Ledger, PredictedMemory};
pub use library::LibraryRates;
pub use machine::Machine;
pub use memory::{Footprint, FootprintDelta};
pub use options::{BenchOptions, Subject, Text};
pub use plan::{Plan, PlannedArm};
pub use report::Report;
pub use reporter::{Phase, Reporter, Silent};
pub use session::{ReferenceModel, note_hang, run, run_models};
pub use weights::{ArmWeights, Grade, Graded, SameBits, TensorPair, WeightProof};
pub use work::BUILT_IN_TEXT;
