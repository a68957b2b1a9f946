//! The load bench: many requests at once against one server or two, over HTTP, in turns.
//!
//! [`run`] takes arms (servers started here, or running already) through scenarios and gives a report with a ratio for
//! each figure and every raw instant. It measures servers as clients see them and knows none of them by name: whatever
//! answers `/health`, `/v1/models` and streamed `/v1/completions` on token ids can be an arm.

mod answers;
mod arm;
mod cpu;
mod error;
mod figure;
mod prompts;
mod report;
mod run;
pub(crate) mod scenario;
mod server;
mod sizes;
mod table;

pub(crate) use answers::Answers;
pub use arm::{Arm, ArmInfo, Launch};
pub use error::LoadError;
pub use figure::{Better, Figure};
pub use prompts::{Prompts, VisitPrompts};
pub use report::{Comparison, LoadFlag, LoadReport, Request, Spread, ValueRatio, Visit};
pub use run::{LoadPlan, run};
pub use scenario::Scenario;
pub use server::{ServerCommand, ServerProcess};
pub use sizes::Sizes;
