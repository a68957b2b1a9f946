//! What a request may ask of its output's form.

use serde_json::Value;

/// The form that a text has to have, before it is compiled against a vocabulary.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ConstraintSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema accepts. Keywords that cannot be enforced are an error, never dropped.
    JsonSchema(Value),
    /// The whole text matches this regular expression, in the syntax of Rust's `regex` crate without look-around; `^` in
    /// front and `$` at the end are allowed and change nothing.
    Regex(String),
    /// A grammar in llguidance's variant of Lark, whose rule `start` is the whole text.
    Lark(String),
    /// A grammar in llama.cpp's GBNF, whose rule `root` is the whole text.
    Gbnf(String),
    /// One of these texts, word for word.
    Choice(Vec<String>),
    /// Something else first: what the rule `lead` of `rules` describes, in Lark, and then what `answer` describes, which is
    /// none of these itself.
    Led {
        /// Lark with a rule `lead` and without `start`.
        rules: String,
        /// What follows.
        answer: Box<ConstraintSpec>,
    },
}

impl ConstraintSpec {
    /// `schema` as the rule `%json` of a Lark grammar takes it, with the bounds on blanks that [`Self::JsonSchema`] has.
    #[must_use]
    pub fn schema_in_lark(schema: &Value) -> Value {
        super::schema::with_settings(schema.clone())
    }

    /// A grammar of whichever kind its text is in: with a rule written `name ::= ...` it is GBNF, otherwise Lark. A line
    /// `%llguidance {}` in front says Lark in any case.
    #[must_use]
    pub fn grammar(text: String) -> Self {
        let is_lark = text.trim_start().starts_with("%llguidance") || !text.contains("::=");
        if is_lark { Self::Lark(text) } else { Self::Gbnf(text) }
    }
}
