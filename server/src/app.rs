//! What all requests share, and the router over it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::config::HttpConfig;
use crate::drain::Drain;
use crate::envelope::Outer;
use crate::error::{ApiError, ErrorCode};
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::models::ModelTable;
use crate::{envelope, routes};

/// The state of a server.
pub(crate) struct App {
    pub(crate) http: HttpConfig,
    pub(crate) models: Arc<ModelTable>,
    pub(crate) drain: Drain,
    pub(crate) metrics: Arc<Metrics>,
}

/// All routes. `bound`: where the server listens; without it (tests) as if on loopback.
pub(crate) fn router(app: Arc<App>, bound: Option<SocketAddr>) -> Router {
    let outer = Outer { guard: Guard::new(&app.http, bound), metrics: app.metrics.clone() };
    let layer = from_fn_with_state(Arc::new(outer), envelope::around);
    Router::new()
        .route("/v1/models", get(routes::models::list))
        .route("/v1/models/{*id}", get(routes::models::one))
        .route("/v1/chat/completions", post(routes::completions::chat))
        .route("/v1/completions", post(routes::completions::text))
        .route("/health", get(routes::health::health))
        .route("/livez", get(routes::health::live))
        .route("/readyz", get(routes::health::ready))
        .route("/metrics", get(routes::metrics::metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
        .layer(layer)
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is nothing at `{}`", uri.path()))
}

/// axum adds the `Allow` header.
async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, format!("`{}` does not take {method}", uri.path()))
}
