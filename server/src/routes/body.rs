//! Reading a JSON body within its limits, before anything is parsed.

use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};

use crate::config::HttpConfig;
use crate::error::{ApiError, ErrorCode};

/// The bytes of a JSON body.
///
/// # Errors
/// 415 for another media type or a compressed body, 413 beyond the limit, 408 for a client that sends too slowly, 400 if
/// it breaks off.
pub(super) async fn read(request: Request, http: &HttpConfig) -> Result<Bytes, ApiError> {
    check_type(request.headers())?;
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > http.max_body_bytes as u64) {
        return Err(too_large(http.max_body_bytes));
    }
    let read = to_bytes(request.into_body(), http.max_body_bytes);
    match tokio::time::timeout(http.body_timeout, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large(http.max_body_bytes)),
        Ok(Err(_)) => Err(ApiError::new(ErrorCode::InvalidJson, "the body broke off")),
        Err(_) => Err(too_slow(http.body_timeout)),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let wrong = |message: &str| Err(ApiError::new(ErrorCode::UnsupportedMediaType, message));
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
        return wrong("the body must be JSON with the header `content-type: application/json`");
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => wrong("compressed bodies are not supported"),
        _ => Ok(()),
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(ErrorCode::RequestTooLarge, format!("the body is longer than the limit of {limit} bytes"))
}

fn too_slow(timeout: Duration) -> ApiError {
    let message = format!("the body did not come within {} seconds", timeout.as_secs_f64());
    ApiError::new(ErrorCode::RequestTimeout, message)
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        next = error.source();
    }
    false
}
