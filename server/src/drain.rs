//! Stopping: no new requests, running ones may end, at a deadline they are cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::error::ApiError;

/// The state that all requests share.
#[derive(Debug, Clone)]
pub(crate) struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stopping: AtomicBool,
    cut: CancellationToken,
    n_active: watch::Sender<usize>,
}

/// A request that a shutdown waits for; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Active(Drain);

impl Drain {
    pub(crate) fn new() -> Self {
        let (stopping, cut) = (AtomicBool::new(false), CancellationToken::new());
        Self(Arc::new(Inner { stopping, cut, n_active: watch::Sender::new(0) }))
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// 503 `shutting_down`.
    pub(crate) fn admit(&self) -> Result<Active, ApiError> {
        // Counted first: a stop between the two lines would overlook it otherwise.
        self.0.n_active.send_modify(|n| *n += 1);
        let active = Active(self.clone());
        if self.is_stopping() { Err(ApiError::shutting_down()) } else { Ok(active) }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
    }

    /// Waits until nothing is active, for so long at most; `true` if that is so.
    pub(crate) async fn idle(&self, most: Duration) -> bool {
        let mut n_active = self.0.n_active.subscribe();
        tokio::time::timeout(most, n_active.wait_for(|n| *n == 0)).await.is_ok()
    }

    /// Ends what is still active.
    pub(crate) fn cut(&self) {
        self.0.cut.cancel();
    }

    /// Resolves when [`Drain::cut`] was called.
    pub(crate) async fn cut_begun(&self) {
        self.0.cut.cancelled().await;
    }

    pub(crate) fn n_active(&self) -> usize {
        *self.0.n_active.borrow()
    }
}

impl Active {
    /// Resolves when the request has to end.
    pub(crate) fn cut(&self) -> WaitForCancellationFutureOwned {
        self.0.0.cut.clone().cancelled_owned()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.0.n_active.send_modify(|n| *n -= 1);
    }
}
