//! The `duet` binary.
fn main() {}
