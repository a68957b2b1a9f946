//! What surrounds every request: its id, its span, its record, the guard, and an answer even if a handler panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use crate::api;
use crate::auth::{self, Keys, Owner};
use crate::error::{ApiError, ErrorCode};
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::record::Record;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids are replaced: they are for log lines.
const MOST_ID_BYTES: usize = 128;

/// Errors beneath it have the shape that Anthropic's clients read.
const ANTHROPIC: &str = "/v1/messages";
/// Of paths that nothing is at.
const NO_ROUTE: &str = "other";

/// What the layer needs.
pub(crate) struct Outer {
    pub(crate) guard: Guard,
    pub(crate) keys: Option<Arc<Keys>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Outer {
    /// What is wrong before anybody looks at what is wanted.
    fn check(&self, route: Option<&str>, request: &Request) -> Result<(), ApiError> {
        self.guard.check(request.uri(), request.headers())?;
        match (&self.keys, api::scope(route)) {
            (Some(keys), Some(scope)) => auth::check(keys, request.headers(), scope),
            _ => Ok(()),
        }
    }
}

/// The outermost layer.
pub(crate) async fn around(State(outer): State<Arc<Outer>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let speaks_anthropic = request.uri().path().starts_with(ANTHROPIC);
    let id = request_id(request.headers());
    // Visible ASCII, checked or made.
    let header = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static(""));
    let record = Arc::new(Record::new(id, request.method(), request.uri().path(), outer.metrics.clone()));
    let mut response = match outer.check(route, &request) {
        Err(error) => error.into_response(),
        Ok(()) => {
            let owner = Owner::of(outer.keys.as_deref(), request.headers());
            request.extensions_mut().insert(record.clone());
            request.extensions_mut().insert(owner);
            let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(record.span().clone());
            answer.await.unwrap_or_else(|panic| panicked(panic.as_ref()).into_response())
        }
    };
    if let Some(error) = response.extensions().get::<ApiError>() {
        record.failed(error);
        if speaks_anthropic {
            let body = error.anthropic_body(Some(&record.id));
            response.headers_mut().remove(CONTENT_LENGTH);
            *response.body_mut() = Body::from(body);
        }
    }
    record.answered(response.status());
    outer.metrics.answered(route.unwrap_or(NO_ROUTE), response.status(), record.started.elapsed());
    response.headers_mut().insert(REQUEST_ID, header);
    response
}

/// The client's own id if it can stand in a log line, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let fits =
        |id: &&str| (1..=MOST_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(fits).map_or_else(|| format!("req_{:032x}", rand::random::<u128>()), str::to_owned)
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> ApiError {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = "an internal error; the server's log says more under this request's id";
    ApiError::new(ErrorCode::EngineError, message)
        .diagnostic(format!("panic: {}", text.unwrap_or("no message")))
}
