//! Every answer that a test gets is held against the server's own OpenAPI document: its status, its type, its shape.

use std::collections::HashMap;
use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use jsonschema::Validator;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::Answer;

static DOCUMENT: OnceLock<Document> = OnceLock::new();

struct Document {
    whole: Value,
    /// By the name of the schema.
    validators: HashMap<String, Validator>,
}

impl Document {
    async fn of(router: &Router) -> &'static Self {
        if let Some(document) = DOCUMENT.get() {
            return document;
        }
        let request = Request::get("/openapi.json").body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("the router never fails");
        let bytes = response.into_body().collect().await.expect("bodies never fail").to_bytes();
        let whole: Value = serde_json::from_slice(&bytes).expect("JSON");
        let names = whole["components"]["schemas"].as_object().expect("schemas").keys();
        let validator = |name: &String| {
            let schema =
                json!({"$ref": format!("#/components/schemas/{name}"), "components": whole["components"]});
            (
                name.clone(),
                jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{name}: {error}")),
            )
        };
        let validators = names.map(validator).collect();
        DOCUMENT.get_or_init(|| Self { whole, validators })
    }

    /// What is said of this path and method.
    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let fits = |template: &str| {
            let (mut parts, mut there) = (template.split('/'), path.split('/'));
            loop {
                match (parts.next(), there.next()) {
                    (None, None) => return true,
                    // A model's name may have slashes; it comes last.
                    (Some("{id}"), Some(_)) if template == "/v1/models/{id}" => return true,
                    (Some("{id}"), Some(part)) if !part.is_empty() => {}
                    (Some(part), Some(other)) if part == other => {}
                    _ => return false,
                }
            }
        };
        let paths = self.whole["paths"].as_object()?;
        let (_, entry) = paths.iter().find(|(template, _)| fits(template))?;
        entry.get(method.as_str().to_lowercase())
    }

    #[track_caller]
    fn check(&self, schema: &Value, value: &Value, what: &str) {
        let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()).expect("a reference");
        let errors: Vec<String> = self.validators[name]
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{what} is no {name}: {errors:?}: {value}");
    }
}

/// Fails where the answer is not what the document says of this path and method.
pub(super) async fn check(router: &Router, method: &Method, path: &str, answer: &Answer) {
    let document = Document::of(router).await;
    let what = format!("{method} {path} {}", answer.status.as_u16());
    let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let Some(operation) = document.operation(method, path) else {
        // No such path or method: an error in one of the two shapes.
        assert!(matches!(answer.status.as_u16(), 401 | 403 | 404 | 405), "{what}");
        return;
    };
    let said = &operation["responses"][answer.status.as_u16().to_string()];
    assert!(said.is_object(), "{what} is not documented: {}", answer.text());
    let schema = &said["content"][kind];
    assert!(schema.is_object(), "{what} has the undocumented type {kind:?}");
    match kind {
        "application/json" => document.check(&schema["schema"], &answer.json(), &what),
        "text/event-stream" => {
            let data = answer.text().lines().filter_map(|line| line.strip_prefix("data: "));
            for event in data.filter(|event| *event != "[DONE]") {
                let event: Value =
                    serde_json::from_str(event).unwrap_or_else(|error| panic!("{what}: {error}"));
                let is_failure =
                    event.get("error").is_some_and(Value::is_object) && event.get("type").is_none();
                let schema = if is_failure {
                    json!({"$ref": "#/components/schemas/Error"})
                } else {
                    schema["x-duet-event"].clone()
                };
                document.check(&schema, &event, &what);
            }
        }
        _ => {}
    }
}
