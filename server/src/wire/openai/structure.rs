//! What the answer has to look like: `response_format`, and the names that other servers have for it.

use duet_core::constraint::{Constraint, ConstraintError, ConstraintSpec};
use serde_json::{Map, Value};

use crate::error::{ApiError, ErrorCode};
use crate::models::Resident;
use crate::reasoning::Tags;
use crate::tools::grammar::thought;
use crate::wire::fields::{Fields, kind};

/// A constraint as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Structure {
    /// What is to hold.
    pub(crate) spec: ConstraintSpec,
    /// The parameter that says so, down to the schema or grammar.
    pub(crate) param: String,
}

impl Structure {
    fn new(param: impl Into<String>, spec: ConstraintSpec) -> Self {
        Self { spec, param: param.into() }
    }

    /// Takes all parameters that ask for a form; there may be one of them.
    ///
    /// # Errors
    /// By type, value and name; `invalid_value` for two of them.
    pub(crate) fn take(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let mut asked = Vec::new();
        if let Some(format) = fields.take::<Map<String, Value>>("response_format")? {
            asked.extend(response_format(format)?);
        }
        if let Some(text) = fields.take::<String>("grammar")?.filter(|text| !text.is_empty()) {
            asked.push(Self::new("grammar", ConstraintSpec::grammar(text)));
        }
        if let Some(schema) = fields.take::<Value>("json_schema")? {
            asked.push(Self::new("json_schema", schema_of("json_schema", schema)?));
        }
        for (name, form) in GUIDED {
            if let Some(value) = fields.take::<Value>(name)? {
                asked.push(Self::new(*name, form(name, value)?));
            }
        }
        if let Some(options) = fields.take::<Map<String, Value>>("structured_outputs")? {
            asked.extend(structured_outputs(options)?);
        }
        if let [first, second, ..] = asked.as_slice() {
            let message = format!("`{}` and `{}` exclude each other", first.param, second.param);
            return Err(ApiError::invalid(second.param.clone(), message));
        }
        Ok(asked.pop())
    }

    /// For the vocabulary of a model; milliseconds for most. `thinking`: the prompt has opened it, so that it comes first and
    /// the form is that of the answer behind it.
    ///
    /// # Errors
    /// `unsupported_json_schema` or `invalid_value` with the path inside of the parameter.
    pub(crate) fn compile(
        &self,
        resident: &Resident,
        thinking: Option<Tags>,
    ) -> Result<Constraint, ApiError> {
        let spec = match thinking {
            None => self.spec.clone(),
            Some(tags) => ConstraintSpec::Led {
                rules: thought("lead", tags, resident.assets.tokenizer.as_ref()),
                answer: Box::new(self.spec.clone()),
            },
        };
        resident.model.constraint(spec).map_err(|error| {
            let path = format!("{}{}", self.param, error.path());
            let code = match &error {
                ConstraintError::UnsupportedSchema { .. } => ErrorCode::UnsupportedJsonSchema,
                ConstraintError::Unavailable { .. } => ErrorCode::UnsupportedParameter,
                _ => ErrorCode::InvalidValue,
            };
            let message = format!("`{path}` cannot be used: {error}");
            ApiError::param(code, path, message)
        })
    }
}

type Form = fn(&str, Value) -> Result<ConstraintSpec, ApiError>;

/// vLLM's older names.
const GUIDED: &[(&str, Form)] = &[
    ("guided_json", schema_of),
    ("guided_regex", regex_of),
    ("guided_choice", choice_of),
    ("guided_grammar", grammar_of),
];

fn response_format(mut format: Map<String, Value>) -> Result<Option<Structure>, ApiError> {
    const NAME: &str = "response_format";
    let word = format.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    // llama.cpp's clients put the schema beside the type.
    let beside = format.remove("schema").filter(|schema| !schema.is_null());
    match word.as_str() {
        "text" => Ok(None),
        "json_object" | "json_schema" if beside.is_some() => {
            let param = format!("{NAME}.schema");
            let spec = schema_of(&param, beside.unwrap_or_default())?;
            Ok(Some(Structure::new(param, spec)))
        }
        "json_object" => Ok(Some(Structure::new(NAME, ConstraintSpec::JsonObject))),
        "json_schema" => {
            let param = format!("{NAME}.json_schema");
            let mut named = match format.remove("json_schema") {
                Some(Value::Object(named)) => named,
                None | Some(Value::Null) => return Err(ApiError::missing(&param)),
                Some(other) => return Err(wrong_type(&param, "an object", &other)),
            };
            let param = format!("{param}.schema");
            match named.remove("schema") {
                None | Some(Value::Null) => Err(ApiError::missing(&param)),
                Some(schema) => {
                    let spec = schema_of(&param, schema)?;
                    Ok(Some(Structure::new(param, spec)))
                }
            }
        }
        "grammar" => {
            let param = format!("{NAME}.grammar");
            let Some(grammar) = format.remove("grammar") else { return Err(ApiError::missing(&param)) };
            let spec = grammar_of(&param, grammar)?;
            Ok(Some(Structure::new(param, spec)))
        }
        "structural_tag" => {
            let message =
                "`response_format` of type `structural_tag` is not supported by any engine of this server";
            Err(ApiError::unsupported("response_format.type", message))
        }
        _ => Err(ApiError::invalid(
            "response_format.type",
            "`response_format.type` must be \"text\", \"json_object\", \"json_schema\" or \"grammar\"",
        )),
    }
}

/// vLLM's newer name: an object with one of several keys.
fn structured_outputs(options: Map<String, Value>) -> Result<Option<Structure>, ApiError> {
    let mut asked: Vec<Structure> = Vec::new();
    for (key, value) in options.into_iter().filter(|(_, value)| !value.is_null()) {
        let param = format!("structured_outputs.{key}");
        let form: Form = match key.as_str() {
            "json" => schema_of,
            "regex" => regex_of,
            "choice" => choice_of,
            "grammar" => grammar_of,
            "json_object" => match value {
                Value::Bool(false) => continue,
                Value::Bool(true) => |_, _| Ok(ConstraintSpec::JsonObject),
                other => return Err(wrong_type(&param, "a boolean", &other)),
            },
            _ => {
                let message = format!("`{param}` is not supported by any engine of this server");
                return Err(ApiError::unsupported(param, message));
            }
        };
        let spec = form(&param, value)?;
        if let Some(first) = asked.first() {
            let message = format!("`{}` and `{param}` exclude each other", first.param);
            return Err(ApiError::invalid(param, message));
        }
        asked.push(Structure::new(param, spec));
    }
    Ok(asked.pop())
}

/// A schema, or the text of one.
fn schema_of(param: &str, value: Value) -> Result<ConstraintSpec, ApiError> {
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(ConstraintSpec::JsonSchema(value)),
        Value::String(text) => serde_json::from_str(&text)
            .map(ConstraintSpec::JsonSchema)
            .map_err(|error| ApiError::invalid(param, format!("`{param}` is no JSON: {error}"))),
        other => Err(wrong_type(param, "a JSON schema", &other)),
    }
}

fn regex_of(param: &str, value: Value) -> Result<ConstraintSpec, ApiError> {
    text_of(param, value).map(ConstraintSpec::Regex)
}

fn grammar_of(param: &str, value: Value) -> Result<ConstraintSpec, ApiError> {
    text_of(param, value).map(ConstraintSpec::grammar)
}

fn text_of(param: &str, value: Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(param, "a string", &other)),
    }
}

fn choice_of(param: &str, value: Value) -> Result<ConstraintSpec, ApiError> {
    let Value::Array(items) = value else { return Err(wrong_type(param, "a list of strings", &value)) };
    let text = |(index, item)| text_of(&format!("{param}[{index}]"), item);
    let texts = items.into_iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(ConstraintSpec::Choice(texts))
}

fn wrong_type(param: &str, wanted: &str, got: &Value) -> ApiError {
    let message = format!("`{param}` must be {wanted}, not {}", kind(got));
    ApiError::param(ErrorCode::InvalidType, param, message)
}
