//! `POST /v1/chat/completions` and `POST /v1/completions`.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use super::body;
use crate::app::App;
use crate::error::{ApiError, ErrorCode};
use crate::generate::Call;
use crate::generate::prepare::Work;
use crate::params::Endpoint;
use crate::record::{Record, Stage};
use crate::wire::fields::Fields;
use crate::wire::openai::chat::ChatRequest;
use crate::wire::openai::completion::CompletionRequest;
use crate::wire::rename::in_words_of;

const IGNORED: HeaderName = HeaderName::from_static("x-duet-ignored");
/// Names beyond this many bytes are left out of the header: it has to pass proxies.
const MOST_IGNORED_BYTES: usize = 1024;

pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(app, record, request, Endpoint::Chat, |fields| ChatRequest::take(fields).map(Work::Chat)).await
}

pub(crate) async fn text(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(app, record, request, Endpoint::Text, |fields| CompletionRequest::take(fields).map(Work::Text))
        .await
}

pub(super) async fn answer(
    app: Arc<App>,
    record: Arc<Record>,
    request: Request,
    endpoint: Endpoint,
    take: impl Fn(&mut Fields) -> Result<Work, ApiError>,
) -> Result<Response, ApiError> {
    let active = app.drain.admit()?;
    let began = Instant::now();
    let body = tokio::select! {
        body = body::read(request, &app.http) => body?,
        () = active.cut() => return Err(ApiError::shutting_down()),
    };
    record.waited(began.elapsed());
    record.stage(Stage::Preparing);
    let mut fields = Fields::of(endpoint, &body)?;
    let work = take(&mut fields)?;
    let ignored = left_over(&app, fields)?;
    let entry = app.models.find(&work.params().model)?.clone();
    let n_body_bytes = body.len();
    drop(body);
    let call = Call { app, record, entry, active, work, n_body_bytes };
    let mut response = call.answer().await.map_err(|error| in_words_of(endpoint, error))?;
    tell_ignored(&mut response, &ignored);
    Ok(response)
}

/// The fields that nobody reads: counted, and refused where the settings say so.
pub(super) fn left_over(app: &App, fields: Fields) -> Result<Vec<String>, ApiError> {
    let ignored = fields.left_over();
    app.metrics.ignored_fields(ignored.len());
    match ignored.first() {
        Some(first) if app.http.deny_unknown_fields => {
            let message = format!("unknown parameter `{first}`");
            Err(ApiError::param(ErrorCode::UnknownParameter, first.clone(), message))
        }
        _ => Ok(ignored),
    }
}

/// Names them in the answer.
pub(super) fn tell_ignored(response: &mut Response, ignored: &[String]) {
    if !ignored.is_empty() {
        response.headers_mut().insert(IGNORED, header(ignored));
    }
}

/// The names in a header: what cannot stand in one becomes `?`.
fn header(names: &[String]) -> HeaderValue {
    let all = names.join(", ");
    let visible = all.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    let visible: String = visible.take(MOST_IGNORED_BYTES).collect();
    HeaderValue::from_str(&visible).unwrap_or(HeaderValue::from_static("?"))
}
