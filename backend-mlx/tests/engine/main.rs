//! The engine from outside: loaded through core's traits, on small fixtures.

#![cfg(feature = "mlx")]

mod common;
mod oracle;
