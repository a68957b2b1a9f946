//! Connections: accepted up to a limit, encrypted where the settings say so, and closed on clients that hold them without
//! doing anything.
//!
//! axum's own loop has no timeout for a request's head, none for a client that does not read, and no limit.

mod tls;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use crate::config::SecurityConfig;
pub(crate) use tls::Tls;

/// Of a request's head.
const MOST_HEAD_BYTES: usize = 64 << 10;
const MOST_HEADERS: usize = 128;
/// Before the system is asked again for a connection that it could not give (no descriptors left, mostly).
const BREATH: Duration = Duration::from_millis(50);

/// Answers connections until `stop` resolves, then lets those that are open end their requests.
pub(crate) async fn listen(
    listener: TcpListener,
    router: Router,
    security: &SecurityConfig,
    tls: Option<Tls>,
    stop: impl Future<Output = ()>,
) {
    let seats = Arc::new(Semaphore::new(security.max_connections.min(Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    let door = Door {
        http: http(security.header_timeout),
        service: TowerToHyperService::new(router),
        header_timeout: security.header_timeout,
        write_timeout: security.write_timeout,
    };
    let mut stop = pin!(stop);
    loop {
        let (stream, seat) = tokio::select! {
            next = next(&listener, &seats) => next,
            () = &mut stop => break,
        };
        let acceptor = tls.as_ref().map(Tls::acceptor);
        tokio::spawn(door.clone().through(stream, acceptor, graceful.watcher(), seat));
    }
    drop(listener);
    graceful.shutdown().await;
}

fn http(header_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD_BYTES);
    http
}

/// The next connection, once there is a seat for it.
async fn next(listener: &TcpListener, seats: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        let Ok(seat) = seats.clone().acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, seat),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// How connections are spoken with.
#[derive(Clone)]
struct Door {
    http: http1::Builder,
    service: TowerToHyperService<Router>,
    header_timeout: Duration,
    write_timeout: Duration,
}

impl Door {
    async fn through(
        self,
        stream: TcpStream,
        acceptor: Option<TlsAcceptor>,
        watcher: Watcher,
        seat: OwnedSemaphorePermit,
    ) {
        // Tokens are small packets: they must not wait for one another.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.write_timeout));
        let stream: Pin<Box<TimeoutStream<TcpStream>>> = Box::pin(stream);
        match acceptor {
            None => self.speak(stream, watcher).await,
            Some(acceptor) => {
                match tokio::time::timeout(self.header_timeout, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => self.speak(stream, watcher).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            }
        }
        drop(seat);
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, watcher: Watcher) {
        let connection = self.http.serve_connection(TokioIo::new(stream), self.service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
