//! What axum alone does: the same events and bodies without a server around them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, Sse};
use axum::routing::post;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// The streams that wait for their events.
pub(crate) type Readers = Arc<Mutex<Vec<UnboundedSender<String>>>>;

/// `POST /stream`: server-sent events from whoever holds the senders. `POST /`: this body, once the request's is read.
pub(crate) fn router(readers: Readers, body: Bytes) -> Router {
    let streamed = move || {
        let (sender, mut receiver) = unbounded_channel();
        readers.lock().expect("no panic").push(sender);
        let texts = stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let events = texts.map(|text: String| Ok::<_, Infallible>(Event::default().data(text)));
        async move { Sse::new(events) }
    };
    let whole = move |_: Bytes| {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    Router::new().route("/stream", post(streamed)).route("/", post(whole))
}
