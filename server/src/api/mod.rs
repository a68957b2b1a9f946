//! Every route, declared once: who may call it, what it takes, what it answers. From [`ROUTES`] come the OpenAPI document
//! and the scope of the key that a route wants; a test holds that the router has these routes and no others.

mod document;
mod schemas;

pub(crate) use document::document;

use crate::error::ErrorCode;
use crate::params::Endpoint;

/// What a key has to be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Models are used.
    Infer,
    /// Models come and go.
    Admin,
    /// Figures are read.
    Metrics,
}

/// What comes back with 200.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    /// JSON of a schema of this name.
    Json(&'static str),
    /// The first name as JSON; with `stream: true` events of the second.
    JsonOrEvents(&'static str, &'static str),
    /// Text of this media type.
    Text(&'static str),
}

/// One route.
#[derive(Debug)]
pub(crate) struct Route {
    /// "get", "post" or "delete".
    pub(crate) method: &'static str,
    /// As axum writes it.
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    /// `None`: no key is asked for.
    pub(crate) scope: Option<Scope>,
    /// Whose parameters its body has.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) answer: Body,
    /// Beside those that every route has.
    pub(crate) errors: &'static [ErrorCode],
}

const fn get(
    path: &'static str,
    scope: Option<Scope>,
    answer: Body,
    errors: &'static [ErrorCode],
    summary: &'static str,
) -> Route {
    Route { method: "get", path, summary, scope, endpoint: None, answer, errors }
}

const fn post(
    endpoint: Endpoint,
    answer: Body,
    errors: &'static [ErrorCode],
    summary: &'static str,
) -> Route {
    let scope = Some(Scope::Infer);
    Route { method: "post", path: endpoint.path(), summary, scope, endpoint: Some(endpoint), answer, errors }
}

/// What a request to a model can meet.
pub(crate) const MODEL_ERRORS: &[ErrorCode] = &[
    ErrorCode::ContextLengthExceeded,
    ErrorCode::ModelNotFound,
    ErrorCode::QueueFull,
    ErrorCode::ModelLoading,
    ErrorCode::InsufficientMemory,
    ErrorCode::EngineCrashed,
    ErrorCode::ShuttingDown,
    ErrorCode::DeadlineExceeded,
    ErrorCode::ModelLoadFailed,
    ErrorCode::EngineNotCompiled,
    ErrorCode::UnsupportedArchitecture,
];

/// The same, and a conversation that is gone.
const RESPONSE_ERRORS: &[ErrorCode] = &{
    let mut all = [ErrorCode::NotFound; MODEL_ERRORS.len() + 1];
    let (_, rest) = all.split_at_mut(1);
    rest.copy_from_slice(MODEL_ERRORS);
    all
};
const STORED: &str = "/v1/responses/{id}";

/// All of them.
pub(crate) const ROUTES: &[Route] = &[
    post(
        Endpoint::Chat,
        Body::JsonOrEvents("ChatCompletion", "ChatCompletionChunk"),
        MODEL_ERRORS,
        "The next message of a conversation",
    ),
    post(
        Endpoint::Text,
        Body::JsonOrEvents("Completion", "CompletionChunk"),
        MODEL_ERRORS,
        "The continuation of a text",
    ),
    post(
        Endpoint::Messages,
        Body::JsonOrEvents("AnthropicMessage", "AnthropicEvent"),
        MODEL_ERRORS,
        "The next message, in Anthropic's words",
    ),
    post(Endpoint::CountTokens, Body::Json("TokenCount"), MODEL_ERRORS, "How many tokens a prompt has"),
    post(
        Endpoint::Responses,
        Body::JsonOrEvents("Response", "ResponseEvent"),
        RESPONSE_ERRORS,
        "The next items of a conversation",
    ),
    get(
        STORED,
        Some(Scope::Infer),
        Body::Json("Response"),
        &[ErrorCode::NotFound],
        "A response that was kept",
    ),
    Route {
        method: "delete",
        ..get(STORED, Some(Scope::Infer), Body::Json("Deleted"), &[ErrorCode::NotFound], "Forgets it")
    },
    get(
        "/v1/responses/{id}/input_items",
        Some(Scope::Infer),
        Body::Json("ItemList"),
        &[ErrorCode::NotFound],
        "What it was asked",
    ),
    Route {
        method: "post",
        ..get(
            "/v1/responses/{id}/cancel",
            Some(Scope::Infer),
            Body::Json("Response"),
            &[ErrorCode::NotFound, ErrorCode::InvalidValue],
            "Ends a response in the background",
        )
    },
    get(
        "/v1/models",
        Some(Scope::Infer),
        Body::Json("ModelList"),
        &[],
        "All configured models, loaded or not",
    ),
    get(
        "/v1/models/{*id}",
        Some(Scope::Infer),
        Body::Json("Model"),
        &[ErrorCode::ModelNotFound],
        "One model, by name or alias",
    ),
    post(Endpoint::Embeddings, Body::Json("Embeddings"), MODEL_ERRORS, "Vectors of texts"),
    post(
        Endpoint::Rerank,
        Body::Json("Ranking"),
        MODEL_ERRORS,
        "Texts in the order of how well they answer a query",
    ),
    post(Endpoint::Tokenize, Body::Json("Tokenized"), MODEL_ERRORS, "The tokens of a text"),
    post(Endpoint::Detokenize, Body::Json("Detokenized"), MODEL_ERRORS, "The text of tokens"),
    post(Endpoint::ApplyTemplate, Body::Json("Templated"), MODEL_ERRORS, "The prompt that messages become"),
    get(
        "/tokenizer_info",
        Some(Scope::Infer),
        Body::Json("TokenizerInfo"),
        &[
            ErrorCode::MissingParameter,
            ErrorCode::InvalidValue,
            ErrorCode::ModelNotFound,
            ErrorCode::ModelLoadFailed,
        ],
        "Special tokens and chat template of a model (`?model=`)",
    ),
    get("/health", None, Body::Json("Health"), &[], "How each model does; 200 at once"),
    get("/livez", None, Body::Json("Status"), &[], "The process answers"),
    get(
        "/readyz",
        None,
        Body::Json("Status"),
        &[ErrorCode::ModelLoading, ErrorCode::EngineCrashed, ErrorCode::ShuttingDown],
        "Requests are taken",
    ),
    get(
        "/metrics",
        Some(Scope::Metrics),
        Body::Text("text/plain"),
        &[],
        "Figures in Prometheus' text format",
    ),
    get("/openapi.json", None, Body::Json("OpenApi"), &[], "This document"),
    get("/", None, Body::Text("text/html"), &[], "A page to try the models on"),
];

/// The scope of a route, by the path as axum writes it. Where nothing is, a key is asked for as well: what is there and
/// what is not is nobody else's business.
pub(crate) fn scope(path: Option<&str>) -> Option<Scope> {
    match path.and_then(|path| ROUTES.iter().find(|route| route.path == path)) {
        Some(route) => route.scope,
        None => Some(Scope::Infer),
    }
}
