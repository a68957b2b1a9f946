//! From a checked request to an answer, whole or streamed.

pub(crate) mod choices;
pub(crate) mod chunks;
pub(crate) mod conversation;
pub(crate) mod job;
pub(crate) mod prepare;
pub(crate) mod spoken;
pub(crate) mod stream;
pub(crate) mod whole;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use duet_core::BackendError;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::drain::Active;
use crate::error::{ApiError, ErrorCode};
use crate::metrics::Measure;
use crate::models::{ModelEntry, Resident, blocking};
use crate::record::{Record, Stage};
use crate::wire::openai::chat::Voice;
use crate::wire::responses::ask::Ask;
use choices::Choices;
use job::Job;
use prepare::{ForModel, Work, prepare};
use stream::{KEEP_ALIVE, Started, Starting, StreamBody};

/// Bodies up to this size are templated and tokenized at once: handing them over would cost more.
const SHORT_BODY_BYTES: usize = 4 << 10;
/// The server's own time until the engine had the request, in microseconds.
const OVERHEAD: HeaderName = HeaderName::from_static("x-duet-overhead-us");

/// One request on its way to a model.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) record: Arc<Record>,
    pub(crate) entry: Arc<ModelEntry>,
    pub(crate) active: Active,
    pub(crate) work: Work,
    pub(crate) n_body_bytes: usize,
}

impl Call {
    /// The answer.
    ///
    /// # Errors
    /// Whatever came up before the first byte. Later failures are in the stream.
    ///
    /// # Cancel safety
    /// Dropping the future or the response's body cancels the request wherever it stands.
    pub(crate) async fn answer(self) -> Result<Response, ApiError> {
        if let Voice::Responses(ask) = self.work.voice()
            && ask.background
        {
            return Ok(self.in_background(&ask));
        }
        if self.work.params().stream { self.streamed().await } else { self.in_one_piece().await }
    }

    /// Says that it has begun; whoever asked comes back for the rest.
    fn in_background(self, ask: &Arc<Ask>) -> Response {
        let (created, model) = (job::unix_seconds(), self.work.params().model.clone());
        let unwanted = CancellationToken::new();
        let body = ask.begun(created, &model, unwanted.clone().drop_guard());
        let (ask, record) = (ask.clone(), self.record.clone());
        tokio::spawn(async move {
            let ended = unwanted.run_until_cancelled(self.in_one_piece()).await;
            if let Some(Err(error)) = ended {
                record.failed(&error);
                ask.failed_in_background(created, &model, &error);
            }
        });
        let mut response = Response::new(Body::from(body.to_string()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    async fn in_one_piece(self) -> Result<Response, ApiError> {
        let Self { app, record, entry, active, work, n_body_bytes } = self;
        let cut = active.cut();
        let noted = record.clone();
        let run = async move {
            let Job { form, requests } = ready_job(&app, &record, &entry, work, n_body_bytes).await?;
            record.prompt(&form.model, form.n_prompt_tokens());
            let choices = submit(&form.resident, requests, &record)?;
            whole::whole(&form, choices).await
        };
        let (body, tally) = tokio::select! {
            result = run => result?,
            () = cut => return Err(ApiError::shutting_down()),
        };
        noted.finished(&tally);
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        put_overhead(response.headers_mut(), &noted);
        Ok(response)
    }

    async fn streamed(self) -> Result<Response, ApiError> {
        let Self { app, record, entry, active, work, n_body_bytes } = self;
        let noted = record.clone();
        let voice = work.voice();
        let mut starting: Starting = Box::pin(async move {
            let Job { form, requests } = ready_job(&app, &record, &entry, work, n_body_bytes).await?;
            let mut choices = submit(&form.resident, requests, &record)?;
            // What fails before the first token still gets a status of its own.
            let first = match choices.next().await {
                Some((_, Err(error))) => return Err(error.into()),
                Some(first) => first,
                None => return Err(ApiError::new(ErrorCode::EngineCrashed, "the engine stopped")),
            };
            Ok(Started { form: Arc::new(form), choices, first })
        });
        let body = tokio::select! {
            started = tokio::time::timeout(KEEP_ALIVE, &mut starting) => match started {
                Ok(started) => StreamBody::begun(started?, voice, noted.clone(), active),
                // Clients and proxies want to see something by now.
                Err(_) => StreamBody::waiting(starting, voice, noted.clone(), active),
            },
            () = active.cut() => return Err(ApiError::shutting_down()),
        };
        let mut response = Response::new(Body::new(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        put_overhead(headers, &noted);
        Ok(response)
    }
}

/// Left out where the engine has not got the request yet.
fn put_overhead(headers: &mut HeaderMap, record: &Record) {
    if let Some(us) = record.overhead_us() {
        headers.insert(OVERHEAD, HeaderValue::from(us));
    }
}

/// Waits for the model and prepares its requests.
async fn ready_job(
    app: &Arc<App>,
    record: &Record,
    entry: &Arc<ModelEntry>,
    work: Work,
    n_body_bytes: usize,
) -> Result<Job, ApiError> {
    let deadline = app.http.request_timeout.map(|timeout| record.started + timeout);
    let began = Instant::now();
    record.stage(Stage::Loading);
    let ready = app.models.ready(entry);
    let resident = match deadline {
        None => ready.await?,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), ready).await.map_err(|_| {
            let message =
                format!("model `{}` was not loaded within the time of the request", entry.config.name);
            ApiError::new(ErrorCode::ModelLoading, message)
        })??,
    };
    record.waited(began.elapsed());
    record.stage(Stage::Preparing);
    let replay = app.replay.clone();
    let for_model = ForModel { resident, request_id: record.id.clone(), deadline, replay };
    if n_body_bytes <= SHORT_BODY_BYTES && !work.params().sampling.has_dry() && !work.has_grammar() {
        prepare(work, for_model)
    } else {
        blocking(move || prepare(work, for_model)).await?
    }
}

fn submit(
    resident: &Arc<Resident>,
    requests: Vec<duet_core::GenerateRequest>,
    record: &Arc<Record>,
) -> Result<Choices, ApiError> {
    let choices =
        Choices::start(resident.clone(), requests, record.clone()).map_err(|error| match &error {
            BackendError::Overloaded { queue_length, .. } => {
                let name = &resident.config.name;
                let message = format!("model `{name}` has {queue_length} requests waiting already");
                ApiError { message, ..ApiError::from(&error) }
            }
            _ => error.into(),
        })?;
    resident.metrics.observe(Measure::Overhead, record.handed_over());
    Ok(choices)
}
