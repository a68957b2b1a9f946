//! Types and ranges of a whole body, before anything of it is read.

use serde_json::{Map, Value};

use super::{Endpoint, Rule, find};
use crate::error::ApiError;

/// Fields that no row names pass: they are reported as ignored, or denied, later on.
///
/// # Errors
/// `invalid_type`, `invalid_value`, or `unsupported_parameter` for a value that asks for what is refused.
pub(crate) fn check(endpoint: Endpoint, body: &Map<String, Value>) -> Result<(), ApiError> {
    for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        let Some(row) = find(endpoint, name) else { continue };
        match row.rule {
            Rule::Refused { asks_nothing, why } if !asks_nothing(value) => {
                let message = format!("`{name}` is not supported by any engine of this server: {why}");
                return Err(ApiError::unsupported(name, message));
            }
            Rule::Refused { .. } => {}
            Rule::Honoured | Rule::NoEffect => row.kind.check(name, value)?,
        }
    }
    Ok(())
}
