//! Who is in: a bound for all requests together, and stopping: no new ones, running ones may end, at a deadline they are
//! cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::error::{ApiError, ErrorCode};

/// The state that all requests share.
#[derive(Debug, Clone)]
pub(crate) struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    stopping: AtomicBool,
    cut: CancellationToken,
    /// Set before the token is cancelled, so that it can be looked at without the token's lock.
    is_cut: AtomicBool,
    n_active: watch::Sender<usize>,
    /// Moving mean of how long a request is in, in microseconds; 0: none has ended yet.
    mean_us: AtomicU64,
}

/// A request that is in, and that a shutdown waits for; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Active {
    drain: Drain,
    since: Instant,
}

impl Drain {
    /// For so many requests at once.
    pub(crate) fn new(most: usize) -> Self {
        let (stopping, cut) = (AtomicBool::new(false), CancellationToken::new());
        let (n_active, mean_us) = (watch::Sender::new(0), AtomicU64::new(0));
        let is_cut = AtomicBool::new(false);
        Self(Arc::new(Inner { most, stopping, cut, is_cut, n_active, mean_us }))
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// 503 `shutting_down`; 429 `queue_full` if there are as many as may be.
    pub(crate) fn admit(&self) -> Result<Active, ApiError> {
        // Counted if there is room, and before the look at the flag: a stop in between would overlook it otherwise.
        let admitted = self.0.n_active.send_if_modified(|n| {
            let fits = *n < self.0.most;
            *n += usize::from(fits);
            fits
        });
        let active = admitted.then(|| Active { drain: self.clone(), since: Instant::now() });
        match active {
            _ if self.is_stopping() => Err(ApiError::shutting_down()),
            Some(active) => Ok(active),
            None => Err(self.full()),
        }
    }

    /// One place comes free in the time of a request divided by the places.
    fn full(&self) -> ApiError {
        let most = self.0.most;
        let message =
            format!("the server has {most} requests already, the most that `server.max_requests` allows");
        let wait = Duration::from_micros(self.0.mean_us.load(Ordering::Relaxed) / most.max(1) as u64);
        ApiError::new(ErrorCode::QueueFull, message).retry_after(wait)
    }

    fn left(&self, was_in: Duration) {
        let sample = u64::try_from(was_in.as_micros()).unwrap_or(u64::MAX).max(1);
        let mean = self.0.mean_us.load(Ordering::Relaxed);
        // A lost update between two threads does no harm to an estimate.
        let next = if mean == 0 { sample } else { mean - mean / 8 + sample / 8 };
        self.0.mean_us.store(next.max(1), Ordering::Relaxed);
        self.0.n_active.send_modify(|n| *n -= 1);
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
        self.0.is_cut.store(true, Ordering::SeqCst);
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
    /// Whether the request has to end. Takes no lock.
    pub(crate) fn is_cut(&self) -> bool {
        self.drain.0.is_cut.load(Ordering::SeqCst)
    }

    /// Resolves when the request has to end.
    pub(crate) fn cut(&self) -> WaitForCancellationFutureOwned {
        self.drain.0.cut.clone().cancelled_owned()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.drain.left(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_may_be_are_in_and_a_place_that_is_left_is_free() {
        let drain = Drain::new(2);
        let (first, second) = (drain.admit().unwrap(), drain.admit().unwrap());
        let refused = drain.admit().unwrap_err();
        assert_eq!((refused.code, refused.retry_after_s), (ErrorCode::QueueFull, Some(1)));
        assert_eq!(drain.n_active(), 2, "a refused one is not in");
        drop(first);
        let third = drain.admit().unwrap();
        drain.stop();
        assert_eq!(drain.admit().unwrap_err().code, ErrorCode::ShuttingDown, "full or not");
        drop((second, third));
        assert_eq!(drain.n_active(), 0);
        assert_eq!(drain.admit().unwrap_err().code, ErrorCode::ShuttingDown);
        assert_eq!(drain.n_active(), 0);
    }

    #[test]
    fn the_time_to_wait_is_that_of_one_place() {
        let drain = Drain::new(4);
        for _ in 0..100 {
            drain.0.n_active.send_modify(|n| *n += 1);
            drain.left(Duration::from_secs(40));
        }
        let places: Vec<_> = (0..4).map(|_| drain.admit().unwrap()).collect();
        assert_eq!(drain.admit().unwrap_err().retry_after_s, Some(10));
        drop(places);
    }
}
