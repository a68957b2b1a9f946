//! What can go wrong between a client and the server that it measures.

use std::net::SocketAddr;

/// Why a request has no answer, or not a whole one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Nobody listens there.
    #[error("cannot connect to {address}")]
    Connect {
        /// The server's address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("the exchange with {address} broke off")]
    Exchange {
        /// The server's address.
        address: SocketAddr,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
    /// The request cannot be written as HTTP.
    #[error("cannot write the request")]
    Request(#[from] hyper::http::Error),
    /// The server refused.
    #[error("the server answered {status}: {body}")]
    Status {
        /// The status code.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The body broke off in the middle, or is not UTF-8.
    #[error("the stream of events broke")]
    Stream(#[from] sse_stream::Error),
    /// An event is not what the completions format has.
    #[error("an event is malformed ({reason}): {event}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
        /// Its beginning.
        event: String,
    },
    /// The server told of a failure in the stream.
    #[error("the server ended the stream with an error: {event}")]
    ErrorEvent {
        /// The event.
        event: String,
    },
    /// The stream ended without its end mark.
    #[error("the stream ended after {n_tokens} tokens without its end mark")]
    EndedEarly {
        /// Tokens that had come.
        n_tokens: u64,
    },
}

/// At most 300 characters of something for a message.
pub(super) fn beginning(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
