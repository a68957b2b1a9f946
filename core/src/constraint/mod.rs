//! Output that keeps to a grammar: JSON schemas, regular expressions, Lark and GBNF grammars, choices.
//!
//! One layer for every engine, over the `llguidance` crate: it sees token bytes and gives masks of allowed ids, and knows
//! no engine. A [`ConstraintCompiler`] is built once per tokenizer; compiling happens on the caller's thread and gives
//! a [`Constraint`], which travels in [`GenerateRequest::constraint`](crate::GenerateRequest). While a request runs its
//! parser lives on threads of its own ([`pool`]): the mask for the next token is computed while the forward pass for it
//! runs, and one that is late holds back its own request only ([`guide`]).
//!
//! What a hostile grammar can cost is bounded: its size and nesting, fuel for its compilation and for each mask.

mod compiler;
mod error;
mod gbnf;
pub(crate) mod guide;
mod limits;
mod mask;
mod pool;
mod schema;
mod spec;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use compiler::{Constraint, ConstraintCompiler};
pub use error::ConstraintError;
pub use mask::Mask;
pub use spec::ConstraintSpec;
