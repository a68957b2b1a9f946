//! The GGUF engine against the contract, the oracles and everything that llama.cpp would abort on. One binary, because
//! each links llama.cpp.

mod common;
mod conformance;
mod constrained;
mod encoder;
mod errors;
mod holders;
mod oracle;
mod runner;
mod tokenizer;
