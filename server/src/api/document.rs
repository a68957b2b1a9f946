//! The OpenAPI 3.1 document, from the tables of routes and parameters.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Body, ROUTES, Route, schemas};
use crate::error::ErrorCode;
use crate::params::{self, Endpoint, Parameter, Rule};

/// The whole document. Made once per process, in about a millisecond.
pub(crate) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[route.method] = operation(route);
    }
    let mut components = schemas::components();
    for endpoint in Endpoint::ALL.into_iter().filter(|endpoint| params::of(*endpoint).next().is_some()) {
        components[endpoint.request_name()] = request(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "duet",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "One server, two engines: GGUF models through llama.cpp, MLX models through MLX.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "responses": responses(route),
    });
    if let Some(scope) = route.scope {
        operation["security"] = json!([{}, {"bearer": []}, {"x-api-key": []}]);
        operation["x-duet-scope"] = json!(format!("{scope:?}").to_lowercase());
    }
    if let Some(endpoint) = route.endpoint {
        operation["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": reference(endpoint.request_name())}},
        });
    }
    let mut parameters = Vec::new();
    if route.path.contains("{*id}") || route.path.contains("{id}") {
        parameters.push(json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}));
    }
    if route.path == "/tokenizer_info" {
        parameters.push(json!({"name": "model", "in": "query", "schema": {"type": "string"},
            "description": "may be left out where one model is configured"}));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(route.method).chain(words).collect::<Vec<_>>().join("_")
}

fn responses(route: &Route) -> Value {
    let mut all = json!({"200": {
        "description": "the answer",
        "headers": {
            "x-request-id": {"description": "the client's own id or a new one", "schema": {"type": "string"}},
        },
        "content": content(route.answer),
    }});
    if route.endpoint.is_some() {
        all["200"]["headers"]["x-duet-ignored"] = json!({"description": "fields that no API documents and nobody read", "schema": {"type": "string"}});
    }
    let anthropic = route.path.starts_with("/v1/messages");
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in common_errors(route).iter().chain(route.errors) {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    for (status, codes) in by_status {
        all[status.to_string()] = error(&codes, if anthropic { "AnthropicError" } else { "Error" });
    }
    all
}

fn content(answer: Body) -> Value {
    match answer {
        Body::Json(name) => json!({"application/json": {"schema": reference(name)}}),
        Body::JsonOrEvents(whole, event) => json!({
            "application/json": {"schema": reference(whole)},
            // No type: some readers hold the body against a schema of it, others each event as an object.
            "text/event-stream": {
                "schema": {"description": "server-sent events; `x-duet-event` is the schema of each one's data but `[DONE]`"},
                "x-duet-event": reference(event),
            },
        }),
        Body::Text(kind) => json!({kind: {"schema": {"type": "string"}}}),
    }
}

/// What any route, or any with a body, can meet.
fn common_errors(route: &Route) -> Vec<ErrorCode> {
    let mut codes = vec![ErrorCode::HostNotAllowed, ErrorCode::OriginNotAllowed, ErrorCode::EngineError];
    if route.scope.is_some() {
        codes.extend([ErrorCode::InvalidApiKey, ErrorCode::KeyScope]);
    }
    if route.endpoint.is_some() {
        codes.extend([
            ErrorCode::InvalidJson,
            ErrorCode::InvalidType,
            ErrorCode::InvalidValue,
            ErrorCode::MissingParameter,
            ErrorCode::UnknownParameter,
            ErrorCode::UnsupportedParameter,
            ErrorCode::RequestTimeout,
            ErrorCode::RequestTooLarge,
            ErrorCode::UnsupportedMediaType,
        ]);
    }
    codes
}

fn error(codes: &[ErrorCode], schema: &str) -> Value {
    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let mut response = json!({
        "description": names.join(", "),
        "content": {"application/json": {"schema": reference(schema)}},
    });
    let header = |text: &str| json!({"description": text, "schema": {"type": "string"}});
    if codes.iter().any(|code| code.has_retry_after()) {
        response["headers"] = json!({"Retry-After": header("whole seconds, 1 to 60")});
    }
    if codes.contains(&ErrorCode::InvalidApiKey) {
        response["headers"] = json!({"WWW-Authenticate": header("Bearer")});
    }
    response
}

fn request(endpoint: Endpoint) -> Value {
    let rows = || params::of(endpoint).filter(|row| !matches!(row.rule, Rule::Refused { .. }));
    let properties: Map<String, Value> = rows().map(|row| (row.name.to_owned(), property(row))).collect();
    let required: Vec<_> = rows().filter(|row| row.is_required()).map(|row| row.name).collect();
    let refused: Vec<_> = params::of(endpoint)
        .filter(|row| matches!(row.rule, Rule::Refused { .. }))
        .map(|row| row.name)
        .collect();
    let mut schema = json!({"type": "object", "properties": properties, "required": required});
    if !refused.is_empty() {
        schema["x-duet-refused"] = json!(refused);
    }
    schema
}

/// `null` is the default of what is not required.
fn property(row: &Parameter) -> Value {
    let mut schema = row.kind.schema();
    if !row.is_required() && schema.as_object().is_some_and(|schema| !schema.is_empty()) {
        schema = match schema["type"].as_str().map(str::to_owned) {
            Some(kind) if schema.get("enum").is_none() => {
                schema["type"] = json!([kind, "null"]);
                schema
            }
            _ => json!({"anyOf": [schema, {"type": "null"}]}),
        };
    }
    let about = if row.is_required() {
        row.about.to_owned()
    } else {
        format!("{}. Default: {}", row.about, row.default)
    };
    schema["description"] = about.into();
    schema
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(name)) = map.get("$ref") {
                    found.push(name.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere_and_operations_have_names_of_their_own() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for name in found {
            let pointer = name.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{name}");
        }
        let mut ids = std::collections::HashSet::new();
        for route in ROUTES {
            assert!(ids.insert(operation_id(route)), "{}", operation_id(route));
        }
    }

    #[test]
    fn every_row_of_an_endpoint_is_in_its_request() {
        let document = document();
        for route in ROUTES {
            let Some(endpoint) = route.endpoint else { continue };
            let request = &document["components"]["schemas"][endpoint.request_name()];
            for row in params::of(endpoint) {
                let listed = request["properties"].get(row.name).is_some();
                assert_eq!(
                    listed,
                    !matches!(row.rule, Rule::Refused { .. }),
                    "{} {}",
                    endpoint.path(),
                    row.name
                );
            }
        }
    }
}
