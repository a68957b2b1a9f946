//! duet: the contract and everything both engines share.
