//! Bounds for grammars from strangers.

use llguidance::api::ParserLimits;

use super::{ConstraintError, ConstraintSpec};

/// Most bytes of a grammar or schema, as text.
const MOST_BYTES: usize = 512 << 10;
/// Deepest nesting of brackets: parsers of grammars and expressions recurse.
const MOST_NESTING: usize = 256;
/// Most texts to choose from.
const MOST_CHOICES: usize = 4096;

/// Fuel for the library, which counts work and not time. The figures in parentheses are its own estimates.
pub(super) fn parser_limits() -> ParserLimits {
    ParserLimits {
        initial_lexer_fuel: 1_000_000, // 20 ms; the largest known schema (FHIR) takes half
        step_lexer_fuel: 100_000,      // 7 ms for one mask
        step_max_items: 50_000,        // 3 ms for one mask
        max_lexer_states: 50_000,      // 1 to 2 kB each
        max_grammar_size: 500_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Refuses what is too large to be looked at more closely.
pub(super) fn check(spec: &ConstraintSpec) -> Result<(), ConstraintError> {
    match spec {
        ConstraintSpec::JsonObject => Ok(()),
        // Its nesting is bounded by the JSON parser.
        ConstraintSpec::JsonSchema(schema) => check_bytes(schema.to_string().len()),
        ConstraintSpec::Regex(text) | ConstraintSpec::Lark(text) | ConstraintSpec::Gbnf(text) => {
            check_bytes(text.len())?;
            check_nesting(text)
        }
        ConstraintSpec::Choice(texts) if texts.len() > MOST_CHOICES => {
            Err(ConstraintError::too_complex(format!("at most {MOST_CHOICES} choices are possible")))
        }
        ConstraintSpec::Choice(texts) => check_bytes(texts.iter().map(String::len).sum()),
        ConstraintSpec::Led { rules, answer } => {
            if matches!(**answer, ConstraintSpec::Led { .. }) {
                return Err(ConstraintError::invalid("an answer has one lead"));
            }
            check_bytes(rules.len())?;
            check_nesting(rules)?;
            check(answer)
        }
    }
}

fn check_bytes(n_bytes: usize) -> Result<(), ConstraintError> {
    if n_bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(ConstraintError::too_complex(format!(
        "it has {n_bytes} bytes, more than the limit of {MOST_BYTES} bytes"
    )))
}

/// Brackets of all kinds, wherever they stand: more than are open in truth, which is the safe side.
fn check_nesting(text: &str) -> Result<(), ConstraintError> {
    let (mut depth, mut escaped) = (0usize, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST_NESTING {
            return Err(ConstraintError::too_complex(format!(
                "brackets are nested more than {MOST_NESTING} levels deep"
            )));
        }
    }
    Ok(())
}
