//! The bench on engines of known behaviour: one binary, since linking is what takes the time.

mod inputs;
mod measures;
mod runs;
mod snapshot;
mod statistics;
mod support;
