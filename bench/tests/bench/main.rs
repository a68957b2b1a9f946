//! The bench on engines of known behaviour: one binary, since linking is what takes the time.

mod http;
mod inputs;
mod load;
mod measures;
mod runs;
#[cfg(unix)]
mod servers;
mod snapshot;
mod statistics;
mod stub;
mod support;
