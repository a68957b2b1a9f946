//! Python's methods on strings, lists and dicts, metered where their result can be much larger than their input.

use std::fmt::{self, Write};

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Bytes for one unit of fuel, as the engine itself charges them.
const BYTES_PER_FUEL: u64 = 64;

/// Calls `method` of a value that has no such method itself.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), method) {
        (Some(text), "join") => return join(state, text, args),
        (Some(text), "replace") => reserve_replace(state, text, args)?,
        (Some(text), "split") => {
            let separator = args.first().and_then(Value::as_str).filter(|separator| !separator.is_empty());
            reserve_items(state, separator.map_or(text.len(), |separator| text.matches(separator).count()))?;
        }
        (Some(text), "splitlines") => reserve_items(state, text.matches('\n').count())?,
        (Some(text), "format") => reserve_format(state, text, args)?,
        (Some(_), "startswith" | "endswith") => reserve_argument(state, args)?,
        (None, "count") => reserve_items(state, value.len().unwrap_or(0))?,
        _ => {}
    }
    unknown_method_callback(state, value, method, args)
}

/// Pays for bytes before they are made; the engine pays once more for the result, which is cheap to forgive.
fn reserve_bytes(state: &State, n_bytes: usize) -> Result<(), Error> {
    state.consume_fuel(n_bytes as u64 / BYTES_PER_FUEL)
}

fn reserve_items(state: &State, n_items: usize) -> Result<(), Error> {
    state.consume_fuel(n_items as u64)
}

fn reserve_argument(state: &State, args: &[Value]) -> Result<(), Error> {
    reserve_items(state, args.first().and_then(Value::len).unwrap_or(0))
}

fn reserve_replace(state: &State, text: &str, args: &[Value]) -> Result<(), Error> {
    let (Some(old), Some(new)) = (args.first().and_then(Value::as_str), args.get(1).and_then(Value::as_str))
    else {
        return Ok(());
    };
    reserve_bytes(state, text.matches(old).count().saturating_mul(new.len()).saturating_add(text.len()))
}

/// `str.format`: each field may show any argument, as wide as its format asks.
fn reserve_format(state: &State, text: &str, args: &[Value]) -> Result<(), Error> {
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widest = numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).max().unwrap_or(0);
    let mut longest = 0;
    for value in args {
        match (value.kind(), value.as_str()) {
            (_, Some(text)) => longest = longest.max(text.len()),
            (ValueKind::Number | ValueKind::Bool | ValueKind::None | ValueKind::Undefined, _) => {}
            (kind, _) => {
                let message = format!("format() is not supported for values of type {kind}");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
    }
    // A number takes up to some 310 digits.
    let per_field = longest.saturating_add(widest).saturating_add(512);
    reserve_bytes(state, text.matches('{').count().saturating_mul(per_field))
}

fn join(state: &State, separator: &str, args: &[Value]) -> Result<Value, Error> {
    let (values,): (&Value,) = from_args(args)?;
    let mut result = String::new();
    for (index, value) in values.try_iter()?.checked().enumerate() {
        let value = value?;
        if index > 0 {
            reserve_bytes(state, separator.len())?;
            result.push_str(separator);
        }
        reserve_items(state, 1)?;
        match value.as_str() {
            Some(text) => {
                reserve_bytes(state, text.len())?;
                result.push_str(text);
            }
            None => result.push_str(&printed(state, &value)?),
        }
    }
    Ok(Value::from(result))
}

/// `value | string`.
pub(super) fn string(state: &State, value: &Value) -> Result<Value, Error> {
    if value.as_str().is_some() { Ok(value.clone()) } else { printed(state, value).map(Value::from) }
}

/// How a value prints, paid for while it is printed: containers can be far larger than the memory they take.
fn printed(state: &State, value: &Value) -> Result<String, Error> {
    let mut output = Metered { state, text: String::new(), refused: None };
    let result = write!(output, "{value}");
    match output.refused {
        Some(refused) => Err(refused),
        None => result
            .map(|()| output.text)
            .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string())),
    }
}

struct Metered<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    text: String,
    refused: Option<Error>,
}

impl Write for Metered<'_, '_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.state.consume_fuel(1 + text.len() as u64 / BYTES_PER_FUEL).map_err(|error| {
            self.refused = Some(error);
            fmt::Error
        })?;
        self.text.push_str(text);
        Ok(())
    }
}
