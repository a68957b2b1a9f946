//! JSON schemas: how JSON is written, and where in a schema an error is.

use llguidance::Matcher;
use serde_json::{Map, Value, json};

use super::ConstraintError;
use super::compiler::{first_line, is_about_limits};

/// Between the parts of a JSON text: at most one line break with some indentation, so that nobody can write blanks for
/// ever. The library's own rule allows any number of them.
const BLANKS: &str = r"( |\r?\n[ \t]{0,32})";
/// Most subschemas that are compiled on their own to find the one at fault.
const MOST_PROBES: usize = 256;
/// The library's settings inside a schema.
const SETTINGS: &str = "x-guidance";

/// Compiles `schema` by `build`, which gives the library's words where it refuses.
pub(super) fn compile(
    schema: &Value,
    build: impl Fn(Value) -> Result<Matcher, String>,
) -> Result<Matcher, ConstraintError> {
    if !(schema.is_object() || schema.is_boolean()) {
        return Err(ConstraintError::invalid("a JSON schema must be an object or a boolean"));
    }
    let build = |schema: &Value| build(with_settings(schema.clone()));
    let message = match build(schema) {
        Ok(matcher) => return Ok(matcher),
        Err(message) => first_line(&message),
    };
    if is_about_limits(&message) {
        return Err(ConstraintError::too_complex(message));
    }
    let mut search = Search { root: schema, build: &build, n_probes: 0 };
    let (path, message) = search.deepest(schema, String::new(), message);
    let path = match unknown_keyword(&message) {
        Some(keyword) => format!("{path}.{keyword}"),
        None => path,
    };
    Err(match is_malformed(&message) {
        true => ConstraintError::Invalid { path, message },
        false => ConstraintError::UnsupportedSchema { path, message },
    })
}

/// `schema` with duet's settings for the library inside.
pub(super) fn with_settings(schema: Value) -> Value {
    let mut schema = match schema {
        Value::Object(map) => map,
        Value::Bool(true) => Map::new(),
        // The library cannot say it with settings beside it.
        other => return other,
    };
    schema.entry(SETTINGS).or_insert_with(|| json!({"whitespace_pattern": BLANKS}));
    Value::Object(schema)
}

/// `Unimplemented keys: ["if", "then"]` names the first of them.
fn unknown_keyword(message: &str) -> Option<&str> {
    message.split_once("nimplemented keys: [\"")?.1.split('"').next()
}

fn is_malformed(message: &str) -> bool {
    ["must be", "nvalid type", "xpected", "not found", "nsatisfiable"]
        .iter()
        .any(|word| message.contains(word))
}

struct Search<'a, B> {
    root: &'a Value,
    build: &'a B,
    n_probes: usize,
}

impl<B: Fn(&Value) -> Result<Matcher, String>> Search<'_, B> {
    /// The innermost subschema that is refused on its own, and what is said of it.
    fn deepest(&mut self, schema: &Value, path: String, message: String) -> (String, String) {
        for (step, child) in children(schema) {
            if self.n_probes == MOST_PROBES {
                break;
            }
            self.n_probes += 1;
            if let Err(inner) = (self.build)(&self.alone(child)) {
                return self.deepest(child, format!("{path}{step}"), first_line(&inner));
            }
        }
        (path, message)
    }

    /// A subschema with the definitions that its references may name.
    fn alone(&self, schema: &Value) -> Value {
        let Value::Object(mut map) = schema.clone() else { return schema.clone() };
        for name in ["$defs", "definitions"] {
            if let Some(definitions) = self.root.get(name)
                && !std::ptr::eq(schema, self.root)
            {
                map.insert(name.to_owned(), definitions.clone());
            }
        }
        Value::Object(map)
    }
}

/// The subschemas directly inside, with the path that leads to each.
fn children(schema: &Value) -> Vec<(String, &Value)> {
    let Some(map) = schema.as_object() else { return Vec::new() };
    let mut found = Vec::new();
    for (keyword, value) in map {
        match (keyword.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                found.extend(named.iter().map(|(name, child)| (format!(".{keyword}.{name}"), child)));
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems" | "items", Value::Array(list)) => {
                let at = |(index, child)| (format!(".{keyword}[{index}]"), child);
                found.extend(list.iter().enumerate().map(at));
            }
            ("items" | "additionalProperties" | "additionalItems", child) => {
                found.push((format!(".{keyword}"), child));
            }
            _ => {}
        }
    }
    found
}
