//! The bench on engines of known behaviour: one binary, since linking is what takes the time.

mod decisions;
mod detectors;
mod forecast;
mod http;
mod imports;
mod inputs;
mod load;
mod measures;
mod outputs;
mod prompts;
mod runs;
mod scenarios;
mod schemas;
#[cfg(unix)]
mod servers;
mod simulation;
mod snapshot;
mod statistics;
mod stub;
mod support;
mod synthetic;
#[cfg(unix)]
mod workers;
