//! Everything that can go wrong with a request, as clients see it. The one place with status codes.
//!
//! The public message and the diagnostic (an error with its sources) are two fields: the message goes to the client, the
//! diagnostic to the log only.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use duet_core::BackendError;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// What happened, by the `code` that clients read. The whole table is [`ErrorCode::row`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the codes of the table below")]
pub enum ErrorCode {
    InvalidJson,
    InvalidType,
    InvalidValue,
    MissingParameter,
    UnknownParameter,
    UnsupportedParameter,
    UnsupportedJsonSchema,
    ContextLengthExceeded,
    InvalidApiKey,
    KeyScope,
    HostNotAllowed,
    OriginNotAllowed,
    ModelNotFound,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedMediaType,
    QueueFull,
    EngineError,
    ModelLoading,
    InsufficientMemory,
    EngineCrashed,
    ShuttingDown,
    DeadlineExceeded,
    ModelLoadFailed,
    EngineNotCompiled,
    UnsupportedArchitecture,
}

/// Whether a client should try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// The status says it all.
    Unsaid,
    /// After so many seconds, unless the error knows better.
    After(u32),
    /// The same request would fail again; SDKs retry 5xx otherwise.
    Never,
}

impl ErrorCode {
    /// Status, `type`, `code`, and what is said about trying again.
    fn row(self) -> (StatusCode, &'static str, &'static str, Retry) {
        use Retry::{After, Never, Unsaid};
        const INVALID: &str = "invalid_request_error";
        const DENIED: &str = "permission_error";
        const UNAVAILABLE: &str = "unavailable_error";
        match self {
            Self::InvalidJson => (StatusCode::BAD_REQUEST, INVALID, "invalid_json", Unsaid),
            Self::InvalidType => (StatusCode::BAD_REQUEST, INVALID, "invalid_type", Unsaid),
            Self::InvalidValue => (StatusCode::BAD_REQUEST, INVALID, "invalid_value", Unsaid),
            Self::MissingParameter => (StatusCode::BAD_REQUEST, INVALID, "missing_parameter", Unsaid),
            Self::UnknownParameter => (StatusCode::BAD_REQUEST, INVALID, "unknown_parameter", Unsaid),
            Self::UnsupportedParameter => (StatusCode::BAD_REQUEST, INVALID, "unsupported_parameter", Unsaid),
            Self::UnsupportedJsonSchema => {
                (StatusCode::BAD_REQUEST, INVALID, "unsupported_json_schema", Unsaid)
            }
            Self::ContextLengthExceeded => {
                (StatusCode::BAD_REQUEST, INVALID, "context_length_exceeded", Unsaid)
            }
            Self::InvalidApiKey => {
                (StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", Unsaid)
            }
            Self::KeyScope => (StatusCode::FORBIDDEN, DENIED, "key_scope", Unsaid),
            Self::HostNotAllowed => (StatusCode::FORBIDDEN, DENIED, "host_not_allowed", Unsaid),
            Self::OriginNotAllowed => (StatusCode::FORBIDDEN, DENIED, "origin_not_allowed", Unsaid),
            Self::ModelNotFound => (StatusCode::NOT_FOUND, INVALID, "model_not_found", Unsaid),
            Self::NotFound => (StatusCode::NOT_FOUND, INVALID, "not_found", Unsaid),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed", Unsaid),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, INVALID, "request_timeout", Unsaid),
            Self::RequestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "request_too_large", Unsaid),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_media_type", Unsaid)
            }
            Self::QueueFull => (StatusCode::TOO_MANY_REQUESTS, "overloaded_error", "queue_full", After(1)),
            Self::EngineError => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "engine_error", Unsaid),
            Self::ModelLoading => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "model_loading", After(5)),
            Self::InsufficientMemory => {
                (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "insufficient_memory", After(30))
            }
            Self::EngineCrashed => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "engine_crashed", After(2)),
            Self::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "shutting_down", After(10)),
            Self::DeadlineExceeded => {
                (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "deadline_exceeded", After(5))
            }
            Self::ModelLoadFailed => {
                (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "model_load_failed", Never)
            }
            Self::EngineNotCompiled => {
                (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "engine_not_compiled", Never)
            }
            Self::UnsupportedArchitecture => {
                (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "unsupported_architecture", Never)
            }
        }
    }

    /// As in the error's `code`.
    pub fn as_str(self) -> &'static str {
        self.row().2
    }

    /// The status line.
    pub fn status(self) -> StatusCode {
        self.row().0
    }

    /// Whether it says when to try again.
    pub(crate) fn has_retry_after(self) -> bool {
        matches!(self.row().3, Retry::After(_))
    }

    /// The `type` that Anthropic's clients know it by.
    fn anthropic_type(self) -> &'static str {
        match (self.status().as_u16(), self.row().3) {
            (401, _) => "authentication_error",
            (403, _) => "permission_error",
            (404, _) => "not_found_error",
            (413, _) => "request_too_large",
            (429, _) => "rate_limit_error",
            (503, Retry::After(_)) => "overloaded_error",
            (500.., _) => "api_error",
            _ => "invalid_request_error",
        }
    }
}

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// What happened.
    pub code: ErrorCode,
    /// For the client; nothing private.
    pub message: String,
    /// The JSON path of the parameter at fault.
    pub param: Option<String>,
    /// Numbers that programs read, beside the message.
    pub figures: Vec<(&'static str, u64)>,
    /// Seconds until trying again makes sense, where something better than the code's own is known.
    pub retry_after_s: Option<u32>,
    /// For the log only.
    pub diagnostic: Option<Arc<str>>,
}

impl ApiError {
    /// Without a parameter.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, param: None, figures: Vec::new(), retry_after_s: None, diagnostic: None }
    }

    /// About a parameter.
    pub fn param(code: ErrorCode, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(code, message) }
    }

    /// 400: a parameter that has to be there is not; `param` is its path.
    pub fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("missing required parameter `{param}`");
        Self::param(ErrorCode::MissingParameter, param, message)
    }

    /// 400 `invalid_value`.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::param(ErrorCode::InvalidValue, param, message)
    }

    /// 400 `unsupported_parameter`.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::param(ErrorCode::UnsupportedParameter, param, message)
    }

    /// 503 `shutting_down`.
    pub fn shutting_down() -> Self {
        Self::new(ErrorCode::ShuttingDown, "the server is shutting down")
    }

    /// With another time to try again: in whole seconds, rounded up, kept to 1–60 s, since SDKs ignore longer waits.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        self.retry_after_s = Some(seconds.clamp(1, 60) as u32);
        self
    }

    /// With something for the log.
    #[must_use]
    pub fn diagnostic(mut self, text: impl Into<Arc<str>>) -> Self {
        self.diagnostic = Some(text.into());
        self
    }

    /// The JSON body of OpenAI's routes.
    pub fn openai_body(&self) -> Vec<u8> {
        #[derive(serde::Serialize)]
        struct Envelope<'a> {
            error: &'a ApiError,
        }
        // Strings and numbers only: cannot fail.
        serde_json::to_vec(&Envelope { error: self }).unwrap_or_default()
    }

    /// The JSON body of Anthropic's routes; without `request_id` the data of `event: error` in a stream.
    pub fn anthropic_body(&self, request_id: Option<&str>) -> Vec<u8> {
        let kind = self.code.anthropic_type();
        let error = serde_json::json!({"type": kind, "message": self.message});
        let mut body = serde_json::json!({"type": "error", "error": error});
        if let Some(id) = request_id {
            body["request_id"] = id.into();
        }
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (_, kind, code, _) = self.code.row();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("message", &self.message)?;
        map.serialize_entry("type", kind)?;
        map.serialize_entry("param", &self.param)?;
        map.serialize_entry("code", code)?;
        for (name, figure) in &self.figures {
            map.serialize_entry(name, figure)?;
        }
        map.end()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, _, _, retry) = self.code.row();
        let mut response = (status, self.openai_body()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.code == ErrorCode::InvalidApiKey {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"duet\""));
        }
        match (retry, self.retry_after_s) {
            (Retry::Never, _) => {
                headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
            }
            (Retry::After(seconds), None) | (_, Some(seconds)) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            (Retry::Unsaid, None) => {}
        }
        response.extensions_mut().insert(self); // for the request's log line
        response
    }
}

impl From<&BackendError> for ApiError {
    fn from(error: &BackendError) -> Self {
        let plain = |code| Self::new(code, error.to_string());
        match error {
            BackendError::InvalidRequest { param, .. } => {
                Self { param: param.as_deref().map(str::to_owned), ..plain(ErrorCode::InvalidValue) }
            }
            BackendError::Unsupported { feature, .. } => {
                Self { param: Some(feature.to_string()), ..plain(ErrorCode::UnsupportedParameter) }
            }
            BackendError::ContextLengthExceeded { n_prompt_tokens, context_length } => Self {
                param: Some("messages".into()),
                figures: vec![
                    ("n_prompt_tokens", *n_prompt_tokens as u64),
                    ("n_ctx", *context_length as u64),
                ],
                ..plain(ErrorCode::ContextLengthExceeded)
            },
            BackendError::ModelFile(file) => {
                // The client need not know the directories of this machine.
                let path = file.path();
                let name = path.file_name().unwrap_or(path.as_os_str()).display().to_string();
                let message = file.to_string().replace(&path.display().to_string(), &name);
                Self::new(ErrorCode::ModelLoadFailed, message).diagnostic(error.chain())
            }
            BackendError::NotCompiledIn { .. } => plain(ErrorCode::EngineNotCompiled),
            BackendError::UnsupportedArchitecture { .. } => plain(ErrorCode::UnsupportedArchitecture),
            BackendError::LoadFailed { .. } => {
                Self::new(ErrorCode::ModelLoadFailed, "loading the model failed; the server's log says why")
                    .diagnostic(error.chain())
            }
            BackendError::InsufficientMemory { need_bytes, available_bytes, .. } => Self {
                figures: vec![("need_bytes", *need_bytes), ("budget_bytes", *available_bytes)],
                ..plain(ErrorCode::InsufficientMemory)
            },
            BackendError::Overloaded { retry_after, .. } => {
                plain(ErrorCode::QueueFull).retry_after(*retry_after)
            }
            BackendError::DeadlineExceeded => plain(ErrorCode::DeadlineExceeded),
            BackendError::StalledReader => plain(ErrorCode::RequestTimeout),
            BackendError::ShuttingDown | BackendError::LoadCancelled => Self::shutting_down(),
            BackendError::EngineCrashed { .. } => {
                Self::new(ErrorCode::EngineCrashed, "the engine stopped").diagnostic(error.chain())
            }
            _ => Self::new(
                ErrorCode::EngineError,
                "the engine failed; the server's log says why under this request's id",
            )
            .diagnostic(error.chain()),
        }
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_500_tells_nothing_private() {
        let secret = "cannot map /home/somebody/model.gguf";
        for error in [
            BackendError::engine("decode", secret),
            BackendError::load_failed("/home/somebody/model.gguf", secret),
            BackendError::EngineCrashed { detail: secret.into() },
            BackendError::ModelFile(duet_core::model::ModelFileError::NotFound {
                path: "/home/somebody/model.gguf".into(),
            }),
        ] {
            let api = ApiError::from(error);
            assert!(!String::from_utf8(api.openai_body()).unwrap().contains("somebody"), "{api:?}");
            assert!(api.diagnostic.as_deref().is_some_and(|text| text.contains("somebody")), "{api:?}");
        }
    }

    #[test]
    fn all_four_fields_are_always_there() {
        let body = ApiError::new(ErrorCode::NotFound, "no").openai_body();
        let text =
            r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"not_found"}}"#;
        assert_eq!(String::from_utf8(body).unwrap(), text);
    }

    #[test]
    fn retry_after_is_whole_seconds_up_to_a_minute() {
        let header = |error: ApiError| {
            error.into_response().headers().get(RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned())
        };
        for (ms, expected) in
            [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_001, "60"), (60_000, "60"), (900_000, "60")]
        {
            let retry_after = Duration::from_millis(ms);
            let full = BackendError::Overloaded { queue_length: 3, retry_after };
            assert_eq!(header(full.into()).as_deref(), Some(expected), "{ms} ms");
        }
        let forever = BackendError::Overloaded { queue_length: 3, retry_after: Duration::MAX };
        assert_eq!(header(forever.into()).as_deref(), Some("60"));
        assert_eq!(header(ApiError::shutting_down()).as_deref(), Some("10"));
        assert_eq!(header(ApiError::new(ErrorCode::InvalidValue, "")), None);
        let never = ApiError::new(ErrorCode::ModelLoadFailed, "").into_response();
        assert_eq!(never.headers()["x-should-retry"], "false");
        assert!(!never.headers().contains_key(RETRY_AFTER));
    }
}
