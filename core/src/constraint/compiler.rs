//! From a specification to something that a request can carry.

use std::fmt;
use std::sync::Arc;
use std::thread;

use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::{Matcher, ParserFactory};
use toktrie::InferenceCapabilities;

use super::{ConstraintError, ConstraintSpec, gbnf, limits, schema, vocabulary};
use crate::text::Tokenizer;

/// Stack for compiling: parsers of grammars recurse, and a caller's thread may be a small one.
const STACK_BYTES: usize = 64 << 20;

/// A compiled constraint. Cheap to clone; each request that carries one starts at its beginning.
#[derive(Clone)]
pub struct Constraint {
    pub(super) matcher: Arc<Matcher>,
    spec: Arc<ConstraintSpec>,
}

impl Constraint {
    /// What it was compiled from.
    #[must_use]
    pub fn spec(&self) -> &ConstraintSpec {
        &self.spec
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Constraint").field(&self.spec).finish()
    }
}

/// Compiles constraints for one tokenizer; built once per model, since it holds a trie of the whole vocabulary.
pub struct ConstraintCompiler {
    factory: ParserFactory,
}

impl fmt::Debug for ConstraintCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConstraintCompiler").finish_non_exhaustive()
    }
}

impl ConstraintCompiler {
    /// For the tokens of `tokenizer`; tens of milliseconds, more for large vocabularies.
    ///
    /// # Errors
    /// [`ConstraintError::Unavailable`] for a vocabulary that nothing can end.
    pub fn new(tokenizer: &dyn Tokenizer) -> Result<Self, ConstraintError> {
        let environment = vocabulary::environment(tokenizer)?;
        // Parts of the vocabulary whose masks are known beforehand: what JSON strings allow.
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| ConstraintError::Unavailable { message: error.to_string() })?;
        factory.quiet();
        *factory.limits_mut() = limits::parser_limits();
        Ok(Self { factory })
    }

    /// Compiles `spec`; on the caller's side, microseconds for most, tens of milliseconds at the limits. Any thread.
    ///
    /// # Errors
    /// [`ConstraintError`]: malformed, not enforceable, or too complex.
    pub fn compile(&self, spec: ConstraintSpec) -> Result<Constraint, ConstraintError> {
        limits::check(&spec)?;
        let matcher = thread::scope(|scope| {
            thread::Builder::new()
                .name("duet-grammar".into())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || self.matcher(&spec))
                .map_err(|error| ConstraintError::Unavailable { message: error.to_string() })?
                .join()
                .unwrap_or_else(|_| Err(ConstraintError::invalid("the grammar library failed on it")))
        })?;
        Ok(Constraint { matcher: Arc::new(matcher), spec: Arc::new(spec) })
    }

    fn matcher(&self, spec: &ConstraintSpec) -> Result<Matcher, ConstraintError> {
        match spec {
            ConstraintSpec::Led { rules, answer } => self.after(Some(rules), answer),
            answer => self.after(None, answer),
        }
    }

    /// The matcher of `answer`, after what the rule `lead` of these rules describes.
    fn after(&self, rules: Option<&str>, answer: &ConstraintSpec) -> Result<Matcher, ConstraintError> {
        let any_object = serde_json::json!({"type": "object"});
        let grammar = match answer {
            ConstraintSpec::JsonObject => return self.json(rules, &any_object),
            ConstraintSpec::JsonSchema(value) => return self.json(rules, value),
            ConstraintSpec::Regex(text) => TopLevelGrammar::from_regex(whole(text)?),
            ConstraintSpec::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
            ConstraintSpec::Gbnf(text) => TopLevelGrammar::from_lark(gbnf::to_lark(text)?),
            ConstraintSpec::Choice(texts) => TopLevelGrammar::from_lark(choice(texts)?),
            ConstraintSpec::Led { .. } => return Err(ConstraintError::invalid("an answer has one lead")),
        };
        self.grammar(led(rules, grammar))
    }

    fn json(&self, rules: Option<&str>, value: &serde_json::Value) -> Result<Matcher, ConstraintError> {
        schema::compile(value, |value| self.build(led(rules, TopLevelGrammar::from_json_schema(value))))
    }

    fn grammar(&self, grammar: TopLevelGrammar) -> Result<Matcher, ConstraintError> {
        self.build(grammar).map_err(|message| {
            let message = first_line(&message);
            if is_about_limits(&message) {
                ConstraintError::too_complex(message)
            } else {
                ConstraintError::invalid(message)
            }
        })
    }

    /// The library's own words where it refuses.
    fn build(&self, grammar: TopLevelGrammar) -> Result<Matcher, String> {
        let parser = self.factory.create_parser(grammar).map_err(|error| format!("{error:#}"))?;
        let matcher = Matcher::new(Ok(parser)).into_cancellable();
        // The first mask too: a grammar that nothing can begin with is found here, and so is one whose masks take too long.
        let mut first = matcher.clone();
        match matcher.get_error() {
            Some(message) => Err(message),
            None if first.is_stopped() => Ok(matcher),
            None => first.compute_mask().map(|_| matcher).map_err(|error| error.to_string()),
        }
    }
}

/// `grammar` after what the rule `lead` of these rules describes.
fn led(rules: Option<&str>, mut grammar: TopLevelGrammar) -> TopLevelGrammar {
    let Some(rules) = rules else { return grammar };
    if let Some(answer) = grammar.grammars.first_mut() {
        answer.name = Some("answer".to_owned());
    }
    let mut whole = TopLevelGrammar::from_lark(format!("start: lead @answer\n{rules}"));
    whole.grammars.append(&mut grammar.grammars);
    whole
}

/// Whether the library's message says that a limit was reached.
pub(super) fn is_about_limits(message: &str) -> bool {
    ["too complex", "fuel", "too large", "too big", "limit", "exceeded"]
        .iter()
        .any(|word| message.contains(word))
}

/// The library's messages go on with its state, which is nobody's business.
pub(super) fn first_line(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("it is malformed");
    line.trim().chars().take(300).collect()
}

/// Without anchors at the ends, which a match of the whole text has anyway.
///
/// # Errors
/// For a backslash at the end: the library would take its own end mark for what is escaped.
fn whole(regex: &str) -> Result<&str, ConstraintError> {
    let ends_escaped = |text: &str| text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
    if ends_escaped(regex) {
        return Err(ConstraintError::invalid("the regular expression ends with a backslash"));
    }
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    Ok(regex.strip_suffix('$').filter(|rest| !ends_escaped(rest)).unwrap_or(regex))
}

fn choice(texts: &[String]) -> Result<String, ConstraintError> {
    if texts.is_empty() {
        return Err(ConstraintError::invalid("there is nothing to choose from"));
    }
    let alternatives: Vec<String> = texts.iter().map(|text| gbnf::literal(text)).collect();
    Ok(format!("start: CHOICE\nCHOICE: {}\n", alternatives.join(" | ")))
}
