//! duet: the contract and everything both engines share.

pub mod sampling;
pub mod text;
