//! llama.cpp's GBNF, translated to llguidance's Lark.
//!
//! GBNF knows characters only, Lark has lexemes below its rules. A rule that no recursion can be reached from is a regular
//! expression, and becomes one lexeme as a whole; in the others, neighbours that are regular become one lexeme together.
//! What comes out accepts nothing that the original does not. Where two lexemes meet, the first takes all it can.

mod emit;
mod parse;
#[cfg(test)]
mod tests;

pub(super) use self::emit::literal;
use super::ConstraintError;

/// Most repetitions that a `{m,n}` may ask for.
const MOST_REPEATS: u32 = 2000;

/// A grammar's rules; [`Node::Rule`] is an index into them.
struct Grammar {
    rules: Vec<Rule>,
    root: usize,
}

struct Rule {
    body: Node,
}

enum Node {
    /// A text; may be empty.
    Literal(String),
    /// One character in (or, negated, in none) of these ranges, ends included.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// One character, whichever.
    Any,
    Rule(usize),
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    Repeat {
        node: Box<Node>,
        least: u32,
        most: Option<u32>,
    },
}

/// The same grammar in Lark.
///
/// # Errors
/// [`ConstraintError::Invalid`] with the line, for what is no GBNF.
pub(super) fn to_lark(text: &str) -> Result<String, ConstraintError> {
    let grammar = parse::grammar(text)?;
    Ok(emit::lark(&grammar))
}
