//! Errors as Anthropic's clients read them.

use axum::http::StatusCode;
use serde_json::json;

use crate::error::{ApiError, ErrorCode};

/// Anthropic's word for what happened.
fn kind(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ModelLoadFailed | ErrorCode::EngineNotCompiled | ErrorCode::UnsupportedArchitecture => {
            "api_error"
        }
        code => match code.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            StatusCode::INTERNAL_SERVER_ERROR => "api_error",
            _ => "invalid_request_error",
        },
    }
}

/// The body of an error; `request_id` is left out in streams.
pub(crate) fn body(error: &ApiError, request_id: Option<&str>) -> Vec<u8> {
    let mut body = json!({"type": "error", "error": {"type": kind(error.code), "message": error.message}});
    if let Some(id) = request_id {
        body["request_id"] = id.into();
    }
    body.to_string().into_bytes()
}
