//! The engine from outside: loaded through core's traits, on small fixtures.

#![cfg(feature = "mlx")]

mod broken;
mod common;
mod conformance;
mod constrained;
mod demo;
mod memory;
mod oracle;
mod sampling;
