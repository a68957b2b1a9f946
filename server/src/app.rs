//! What all requests share, and the router over it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

use crate::config::HttpConfig;
use crate::drain::Drain;
use crate::envelope::Outer;
use crate::error::{ApiError, ErrorCode};
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::models::ModelTable;
use crate::replay::Replay;
use crate::wire::responses::store::ResponseStore;
use crate::{envelope, routes};

/// The state of a server.
pub(crate) struct App {
    pub(crate) http: HttpConfig,
    pub(crate) models: Arc<ModelTable>,
    pub(crate) drain: Drain,
    pub(crate) metrics: Arc<Metrics>,
    /// What `/v1/responses` has answered.
    pub(crate) responses: Arc<ResponseStore>,
    /// Says what models say, in tests of clients.
    pub(crate) replay: Option<Arc<Replay>>,
}

/// All routes. `bound`: where the server listens; without it (tests) as if on loopback.
pub(crate) fn router(app: Arc<App>, bound: Option<SocketAddr>) -> Router {
    let outer = Outer {
        guard: Guard::new(&app.http, bound),
        keys: app.http.security.keys.clone(),
        metrics: app.metrics.clone(),
    };
    let layer = from_fn_with_state(Arc::new(outer), envelope::around);
    let router =
        handlers().into_iter().fold(Router::new(), |router, (path, handler)| router.route(path, handler));
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method).with_state(app).layer(layer)
}

/// What answers where. [`api::ROUTES`](crate::api::ROUTES) says what each of them takes, gives and wants.
fn handlers() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/v1/models", get(routes::models::list)),
        ("/v1/models/{*id}", get(routes::models::one)),
        ("/v1/chat/completions", post(routes::completions::chat)),
        ("/v1/completions", post(routes::completions::text)),
        ("/v1/messages", post(routes::messages::create)),
        ("/v1/messages/count_tokens", post(routes::messages::count)),
        ("/v1/responses", post(routes::responses::create)),
        ("/v1/responses/{id}", get(routes::responses::fetch).delete(routes::responses::delete)),
        ("/v1/responses/{id}/input_items", get(routes::responses::input_items)),
        ("/v1/responses/{id}/cancel", post(routes::responses::cancel)),
        ("/v1/embeddings", post(routes::embeddings::create)),
        ("/v1/rerank", post(routes::rerank::create)),
        ("/tokenize", post(routes::tokens::tokenize)),
        ("/detokenize", post(routes::tokens::detokenize)),
        ("/apply-template", post(routes::tokens::apply_template)),
        ("/tokenizer_info", get(routes::tokens::info)),
        ("/health", get(routes::health::health)),
        ("/livez", get(routes::health::live)),
        ("/readyz", get(routes::health::ready)),
        ("/metrics", get(routes::metrics::metrics)),
        ("/openapi.json", get(routes::openapi::document)),
        ("/", get(routes::page::page)),
    ]
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is nothing at `{}`", uri.path()))
}

/// axum adds the `Allow` header.
async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, format!("`{}` does not take {method}", uri.path()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_routes_are_those_of_the_table() {
        let routed: BTreeSet<_> = super::handlers().into_iter().map(|(path, _)| path).collect();
        let declared: BTreeSet<_> = crate::api::ROUTES.iter().map(|route| route.path).collect();
        assert_eq!(routed, declared);
    }
}
