//! duet: the contract and everything both engines share.

pub mod model;
pub mod sampling;
pub mod text;
