//! Logits to tokens: the one sampler of duet, the same for every engine.
//!
//! # The chain
//! In llama-server's order: logit bias, penalties (repetition, then frequency and presence), DRY, top-n-sigma, top-k,
//! typical, top-p, min-p, XTC, temperature, Mirostat, draw. Each filter sees the *untempered* softmax of what the filters before
//! it have left; temperature only shapes the draw. Every filter keeps at least one token. Ties are kept in favour
//! of the lower id, everywhere. Temperature 0 takes the most probable token after bias, penalties and DRY, and the
//! filters play no part.
//!
//! # The draw
//! One uniform number `u` in [0, 1) belongs to each generated token: the n-th number of the request's own stream to
//! its n-th token, whatever the parameters. The token is the inverse of the cumulative distribution over the
//! surviving candidates *in order of token id*: the first whose cumulative mass exceeds `u` times the whole mass.
//! Ordering by id and not by probability makes the choice change little where the distribution changes little: two
//! engines with slightly different logits, or a device that knows no more than mask, softmax and cumulative sum,
//! choose the same token from the same seed but for a small multiple of the distance between their distributions,
//! while in order of probability two tokens that change places exchange their whole intervals
//! (`docs/decisions/sampling-draw.md` has the figures and the alternatives).
//!
//! The stream is ChaCha8 with the key `seed` (8 bytes, little-endian), then the 24 bytes `duet sampling draw, v. 1`,
//! nonce 0; word n, shifted right by 8, divided by 2^24, is `u` of token n (counted from 0). XTC's coin for token n is
//! word n of nonce 1, so that it does not move the draws. With the same row, parameters and seed, the same token
//! comes out on every machine: exponentials are our own (no libm), sums are f64 in a fixed order.

mod candidates;
mod draw;
mod dry;
mod exp;
mod history;
mod logprobs;
mod mirostat;
mod params;
#[cfg(test)]
mod reference;
mod row;
mod sampler;
#[cfg(test)]
mod tests;

pub use dry::sequence_breakers;
pub use logprobs::{TokenLogprobs, logprobs};
pub use mirostat::{MirostatParams, MirostatVersion};
pub use params::{SamplingError, SamplingParams};
pub use sampler::{SampleError, Sampler};
