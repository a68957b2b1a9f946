//! A request body as a set of named fields, from which each parameter is taken once.
//!
//! What is left at the end was asked for by the client and read by nobody: it is reported, never dropped in silence.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ApiError, ErrorCode};
use crate::params::{self, Endpoint, Rule};
use crate::wire::json;

/// The fields of a JSON object that have not been read yet.
#[derive(Debug)]
pub(crate) struct Fields {
    rest: Map<String, Value>,
    ignored: Vec<String>,
    /// Whose rows in [`params`] the fields are; only checked in debug builds.
    endpoint: Option<Endpoint>,
}

impl Fields {
    /// Parses an endpoint's body and checks it against the table of parameters. What has no effect by definition is
    /// taken out.
    ///
    /// # Errors
    /// As [`Fields::parse`], and `invalid_type`, `invalid_value`, `unsupported_parameter` as the table says.
    pub(crate) fn of(endpoint: Endpoint, body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Self::parse(body)?;
        params::check(endpoint, &fields.rest)?;
        fields.rest.retain(|name, _| {
            let rule = params::find(endpoint, name).map(|row| row.rule);
            matches!(rule, None | Some(Rule::Honoured))
        });
        fields.endpoint = Some(endpoint);
        Ok(fields)
    }

    /// A chat body that was made of another API's; checked as one that a client sends.
    ///
    /// # Errors
    /// As [`Fields::of`].
    pub(crate) fn translated(rest: Map<String, Value>) -> Result<Self, ApiError> {
        params::check(Endpoint::Chat, &rest)?;
        Ok(Self { rest, ignored: Vec::new(), endpoint: Some(Endpoint::Chat) })
    }

    /// Parses a body. Nesting beyond 128 levels and names that stand twice are refused.
    ///
    /// # Errors
    /// `invalid_json`, or `invalid_type` for JSON that is no object.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let value = json::parse(body).map_err(|error| {
            ApiError::new(ErrorCode::InvalidJson, format!("the body is not valid JSON: {error}"))
        })?;
        match value {
            Value::Object(rest) => Ok(Self { rest, ignored: Vec::new(), endpoint: None }),
            other => {
                let message = format!("the body must be a JSON object, not {}", kind(&other));
                Err(ApiError::new(ErrorCode::InvalidType, message))
            }
        }
    }

    /// Takes a field out; `None` if it is absent or null.
    ///
    /// # Errors
    /// `invalid_type`, `invalid_value` or `missing_parameter` (of something inside), with the JSON path.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        self.expect_row(name);
        match self.rest.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => typed(name, value).map(Some),
        }
    }

    /// As [`Fields::take`], for a field that has to be there.
    ///
    /// # Errors
    /// As [`Fields::take`], and `missing_parameter`.
    pub(crate) fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ApiError> {
        self.take(name)?.ok_or_else(|| ApiError::missing(name))
    }

    /// Every parameter has a row: without one it would be neither documented nor tested.
    fn expect_row(&self, name: &str) {
        debug_assert!(
            self.endpoint.is_none_or(|endpoint| params::find(endpoint, name).is_some()),
            "`{name}` has no row in server/src/params for {:?}",
            self.endpoint
        );
    }

    /// Notes a nested field that nobody reads.
    pub(crate) fn ignore(&mut self, path: String) {
        self.ignored.push(path);
    }

    /// The names of everything that was not read, in alphabetical order.
    pub(crate) fn left_over(self) -> Vec<String> {
        let mut names = self.ignored;
        names.extend(self.rest.into_iter().map(|(name, _)| name));
        names.sort_unstable();
        names
    }
}

/// Deserialises one field; errors carry the path inside of it.
fn typed<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let path = match inner.as_str() {
            "." => name.to_owned(),
            index if index.starts_with('[') => format!("{name}{index}"),
            field => format!("{name}.{field}"),
        };
        let text = error.into_inner().to_string();
        let code = if text.starts_with("missing field") {
            ErrorCode::MissingParameter
        } else if text.starts_with("invalid type") {
            ErrorCode::InvalidType
        } else {
            ErrorCode::InvalidValue
        };
        let message = format!("`{path}`: {text}");
        ApiError::param(code, path, message)
    })
}

/// The word for a JSON value's type.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).unwrap()
    }

    #[track_caller]
    fn check_refused(body: &str, code: ErrorCode) {
        assert_eq!(Fields::parse(body.as_bytes()).unwrap_err().code, code, "{body}");
    }

    #[test]
    fn bodies_that_are_no_objects() {
        for body in ["", " ", "{", "{]", "{'a':1}", "{\"a\":1,}", "nul", "\u{feff}{}", "{\"a\":NaN}", "{} {}"]
        {
            check_refused(body, ErrorCode::InvalidJson);
        }
        check_refused(&"[".repeat(100_000), ErrorCode::InvalidJson);
        check_refused(&format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200)), ErrorCode::InvalidJson);
        for body in ["[]", "1", "\"text\"", "null", "true"] {
            check_refused(body, ErrorCode::InvalidType);
        }
        assert_eq!(Fields::parse(b"{\"a\":\"\xff\"}").unwrap_err().code, ErrorCode::InvalidJson);
    }

    #[track_caller]
    fn check_typed<T: DeserializeOwned + std::fmt::Debug>(value: &str, code: ErrorCode, path: &str) {
        let error = fields(&format!("{{\"a\":{value}}}")).take::<T>("a").unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (code, Some(path)), "{value}");
    }

    #[test]
    fn errors_name_the_path() {
        check_typed::<u32>("\"1\"", ErrorCode::InvalidType, "a");
        check_typed::<u32>("1.5", ErrorCode::InvalidType, "a");
        check_typed::<u32>("-1", ErrorCode::InvalidValue, "a");
        check_typed::<u32>("5000000000", ErrorCode::InvalidValue, "a");
        check_typed::<Vec<u32>>("[1,2,\"3\"]", ErrorCode::InvalidType, "a[2]");
        check_typed::<std::collections::BTreeMap<String, Vec<bool>>>(
            "{\"x\":[true,0]}",
            ErrorCode::InvalidType,
            "a.x[1]",
        );
    }

    #[test]
    fn null_is_the_default_and_what_nobody_reads_is_left_over() {
        let mut fields = fields(r#"{"z":1,"a":null,"b":2,"c":[]}"#);
        assert_eq!(fields.take::<u32>("a").unwrap(), None);
        assert_eq!(fields.take::<u32>("b").unwrap(), Some(2));
        assert_eq!(fields.need::<u32>("a").unwrap_err().code, ErrorCode::MissingParameter);
        assert_eq!(fields.take::<Vec<u32>>("c").unwrap(), Some(vec![]));
        fields.ignore("messages[].name".into());
        assert_eq!(fields.left_over(), ["messages[].name", "z"]);
    }

    #[test]
    #[should_panic(expected = "has no row")]
    #[cfg(debug_assertions)]
    fn a_parameter_without_a_row_is_noticed() {
        let _ = Fields::of(Endpoint::Chat, b"{}").unwrap().take::<u32>("no_such_parameter");
    }
}
