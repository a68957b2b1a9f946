//! JSON schemas of the files that the bench writes, made from the types themselves: what a field means is said once, at the
//! field. docs/schemas holds them; a test compares.

use duet_core::decision::DecisionFile;

use crate::report::Report;

/// The schema of [`Report::to_json`].
pub fn report() -> schemars::Schema {
    schemars::schema_for!(Report)
}

/// The schema of a file of decisions.
pub fn decisions() -> schemars::Schema {
    schemars::schema_for!(DecisionFile)
}
