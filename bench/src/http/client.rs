//! HTTP/1.1 over TCP, one connection per request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::answer::AnswerStream;
use super::error::{HttpError, beginning};
use super::request::CompletionRequest;
use crate::clock::Clock;

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    clock: Arc<dyn Clock>,
}

/// An answer that is not streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// Times come from `clock`; nothing is connected yet.
    pub fn new(address: SocketAddr, clock: Arc<dyn Clock>) -> Self {
        Self { address, clock }
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The time on the clock that answers are stamped with.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Asks for a path, whatever the status.
    ///
    /// # Errors
    /// `Connect`, `Exchange`.
    pub async fn get(&self, path: &str) -> Result<Whole, HttpError> {
        let (connection, response) = self.send(Method::GET, path, Bytes::new()).await?;
        let status = response.status().as_u16();
        let body = self.collect(response).await?;
        drop(connection);
        Ok(Whole { status, body })
    }

    /// Sends a completion; the stream begins when the response's head is there.
    ///
    /// # Errors
    /// `Connect`, `Exchange`, `Status` for anything but 200, `Malformed` for a body that is no stream of events.
    pub async fn complete(&self, request: &CompletionRequest) -> Result<AnswerStream, HttpError> {
        let body = serde_json::to_vec(request).map(Bytes::from).map_err(|error| HttpError::Malformed {
            reason: error.to_string(),
            event: "the request itself".into(),
        })?;
        let sent = self.clock.now();
        let (connection, response) = self.send(Method::POST, "/v1/completions", body).await?;
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let is_stream = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
        if status == 200 && is_stream {
            return Ok(AnswerStream::new(sent, response.into_body(), connection, &self.clock));
        }
        let body = self.collect(response).await?;
        let body = beginning(&String::from_utf8_lossy(&body));
        Err(match status {
            200 => HttpError::Malformed { reason: "not a stream of events".into(), event: body },
            _ => HttpError::Status { status, body },
        })
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, HttpError> {
        let body = response.into_body().collect().await;
        Ok(body.map_err(|source| self.broken(source))?.to_bytes())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(Connection, Response<Incoming>), HttpError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let connect = |source| HttpError::Connect { address: self.address, source };
        let stream = TcpStream::connect(self.address).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(source))?;
        let connection = Connection(tokio::spawn(async move {
            // A failure reaches whoever reads the response.
            let _ = connection.await;
        }));
        let response = sender.send_request(request).await.map_err(|source| self.broken(source))?;
        Ok((connection, response))
    }

    fn broken(&self, source: hyper::Error) -> HttpError {
        HttpError::Exchange { address: self.address, source }
    }
}

/// The task that moves a connection's bytes; the connection closes with it.
pub(super) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}
