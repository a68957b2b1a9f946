//! Types and ranges: checked, written as JSON Schema, and said in words.

use serde_json::{Value, json};

use crate::error::{ApiError, ErrorCode};
use crate::wire::fields::kind as word_for;

/// Type and range of a parameter. `null` is allowed everywhere and is the default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// true or false.
    Bool,
    /// An integer in a range, both ends included.
    Integer(i128, i128),
    /// A number in a range, both ends included; `f64::MAX`: no upper end.
    Number(f64, f64),
    /// A number above zero.
    Positive,
    /// A text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text or a list of at most so many.
    Texts(usize),
    /// At most so many token ids.
    Ids(usize),
    /// An object.
    Object,
    /// What the reader of the parameter checks itself: its JSON Schema, and that in words.
    Other {
        /// JSON.
        schema: &'static str,
        /// For people.
        words: &'static str,
    },
}

/// The highest number of 32 bits: lengths, counts, token ids.
pub(super) const U32: i128 = u32::MAX as i128;
/// The highest signed number of 32 bits: windows.
pub(super) const I32: i128 = i32::MAX as i128;

impl Kind {
    /// What nobody looks into.
    pub(super) const ANYTHING: Self = Self::Other { schema: "{}", words: "anything" };
    /// A share.
    pub(super) const UNIT: Self = Self::Number(0.0, 1.0);
    /// As OpenAI has it; Anthropic's range is a part of it.
    pub(super) const TEMPERATURE: Self = Self::Number(0.0, 2.0);
    /// How many tokens may be kept to, or -1.
    pub(super) const TOP_K: Self = Self::Integer(-1, U32);

    /// Whether a value that is not null may stand there.
    ///
    /// # Errors
    /// `invalid_type` or `invalid_value` with the name, or the path of what is wrong inside.
    pub(super) fn check(self, name: &str, value: &Value) -> Result<(), ApiError> {
        match self {
            Self::Bool => typed(name, value, value.is_boolean(), "a boolean"),
            Self::Integer(low, high) => {
                let whole = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
                match whole {
                    Some(number) if (low..=high).contains(&number) => Ok(()),
                    Some(number) => Err(out_of_range(name, &self, number)),
                    None => Err(whole_number(name, value, &self)),
                }
            }
            Self::Number(..) | Self::Positive => match value.as_f64() {
                Some(number) if self.spans(number) => Ok(()),
                Some(number) => Err(out_of_range(name, &self, number)),
                None => typed(name, value, false, "a number"),
            },
            Self::Text => typed(name, value, value.is_string(), "a string"),
            Self::Word(words) => {
                typed(name, value, value.is_string(), "a string")?;
                let known = value.as_str().is_some_and(|word| words.contains(&word));
                if known { Ok(()) } else { Err(out_of_range(name, &self, value)) }
            }
            Self::Texts(_) => match value {
                Value::String(_) => Ok(()),
                Value::Array(items) => each(name, items, Value::is_string, "a string"),
                _ => typed(name, value, false, "a string or a list of strings"),
            },
            Self::Ids(_) => match value {
                Value::Array(items) => each(name, items, |item| item.as_i64().is_some(), "a token id"),
                _ => typed(name, value, false, "a list of token ids"),
            },
            Self::Object => typed(name, value, value.is_object(), "an object"),
            Self::Other { .. } => Ok(()),
        }
    }

    fn spans(self, number: f64) -> bool {
        // Parameters are single floats: what is infinite as one is no number here.
        let finite = number.abs() <= f64::from(f32::MAX);
        match self {
            Self::Number(low, high) => finite && (low..=high).contains(&number),
            _ => finite && number > 0.0,
        }
    }

    /// As JSON Schema (draft 2020-12), `null` left out.
    #[must_use]
    pub fn schema(self) -> Value {
        match self {
            Self::Bool => json!({"type": "boolean"}),
            Self::Integer(low, high) => {
                json!({"type": "integer", "minimum": edge(low), "maximum": edge(high)})
            }
            Self::Number(low, f64::MAX) => json!({"type": "number", "minimum": low}),
            Self::Number(low, high) => json!({"type": "number", "minimum": low, "maximum": high}),
            Self::Positive => json!({"type": "number", "exclusiveMinimum": 0}),
            Self::Text => json!({"type": "string"}),
            Self::Word(words) => json!({"type": "string", "enum": words}),
            Self::Texts(most) => json!({"anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "maxItems": most},
            ]}),
            Self::Ids(most) => json!({
                "type": "array", "maxItems": most,
                "items": {"type": "integer", "minimum": 0, "maximum": u32::MAX},
            }),
            Self::Object => json!({"type": "object"}),
            // Constants of this program; a test parses them all.
            Self::Other { schema, .. } => serde_json::from_str(schema).unwrap_or_default(),
        }
    }

    /// As people say it: "a number from 0 to 2".
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Bool => "boolean".into(),
            Self::Integer(low, high) if low <= i128::from(i64::MIN) || high >= i128::from(u64::MAX) => {
                "an integer of 64 bits".into()
            }
            Self::Integer(low, U32 | I32) => format!("an integer of at least {low}"),
            Self::Integer(low, high) => format!("an integer from {low} to {high}"),
            Self::Number(low, f64::MAX) => format!("a number of at least {low}"),
            Self::Number(low, high) => format!("a number from {low} to {high}"),
            Self::Positive => "a number above 0".into(),
            Self::Text => "text".into(),
            Self::Word(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
            }
            Self::Texts(most) => format!("text, or a list of at most {most}"),
            Self::Ids(most) => format!("a list of at most {most} token ids"),
            Self::Object => "an object".into(),
            Self::Other { words, .. } => words.into(),
        }
    }
}

fn edge(number: i128) -> Value {
    i64::try_from(number)
        .map_or_else(|_| json!(u64::try_from(number).unwrap_or(u64::MAX)), |number| json!(number))
}

fn typed(name: &str, value: &Value, fits: bool, wanted: &str) -> Result<(), ApiError> {
    if fits {
        return Ok(());
    }
    let message = format!("`{name}` must be {wanted}, not {}", word_for(value));
    Err(ApiError::param(ErrorCode::InvalidType, name, message))
}

fn each(name: &str, items: &[Value], fits: fn(&Value) -> bool, wanted: &str) -> Result<(), ApiError> {
    match items.iter().position(|item| !fits(item)) {
        Some(index) => typed(&format!("{name}[{index}]"), &items[index], false, wanted),
        None => Ok(()),
    }
}

fn whole_number(name: &str, value: &Value, kind: &Kind) -> ApiError {
    let got = if value.is_number() { value.to_string() } else { word_for(value).to_owned() };
    let message = format!("`{name}` must be {}, not {got}", kind.words());
    ApiError::param(ErrorCode::InvalidType, name, message)
}

fn out_of_range(name: &str, kind: &Kind, got: impl std::fmt::Display) -> ApiError {
    let got = got.to_string();
    // A client's own text is repeated only as far as it helps.
    let shown: String = got.chars().take(64).collect();
    ApiError::invalid(name, format!("`{name}` must be {}, got {shown}", kind.words()))
}
