//! The OS thread that runners live on.
//!
//! An engine library wants its objects on one thread for life (a llama.cpp context is not `Sync`, MLX streams are bound
//! to their thread). GGUF takes a thread per model, MLX one per process, on which its models take turns: each turn is
//! one [`Worker::tick`]. Between ticks the thread sleeps until somebody wakes it; nothing polls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::Thread;
use std::time::Instant;

use crate::error::BackendError;

/// What a worker says after a turn.
pub(crate) enum Tick {
    /// There is more to do: come back soon.
    Busy,
    /// Nothing to do until somebody wakes the thread, or until this instant.
    Idle(Option<Instant>),
    /// Drop this worker.
    Done,
}

/// Something that lives on an engine thread.
pub(crate) trait Worker {
    /// One turn: at most one forward pass.
    fn tick(&mut self) -> Tick;
    /// A tick panicked; the worker is dropped after this.
    fn crashed(&mut self, message: &str);
}

type Install = Box<dyn FnOnce() -> Option<Box<dyn Worker>> + Send>;

struct Handle {
    installs: Option<mpsc::Sender<Install>>,
    thread: Thread,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.installs = None; // the thread sees the hang-up when it wakes
        self.thread.unpark();
    }
}

/// A handle to an engine's thread. The thread ends when all handles are gone and its last model is unloaded.
#[derive(Clone)]
pub struct EngineThread(Arc<Handle>);

impl std::fmt::Debug for EngineThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EngineThread").field(&self.0.thread.name()).finish()
    }
}

impl EngineThread {
    /// Starts a thread of this name (at most 15 bytes are visible in `ps`).
    ///
    /// # Errors
    /// [`BackendError::Engine`] if the system gives no thread.
    pub fn spawn(name: &str) -> Result<Self, BackendError> {
        let (installs, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(8 << 20) // graph builders of the engines recurse
            .spawn(move || run(&inbox))
            .map_err(|error| BackendError::engine("starting the engine's thread", error))?
            .thread()
            .clone();
        Ok(Self(Arc::new(Handle { installs: Some(installs), thread })))
    }

    /// Runs `build` on the thread, which may give a worker that stays.
    pub(crate) fn install(&self, build: Install) -> Result<(), BackendError> {
        let sent = self.0.installs.as_ref().is_some_and(|installs| installs.send(build).is_ok());
        self.wake();
        if sent { Ok(()) } else { Err(BackendError::EngineCrashed { detail: "its thread ended".into() }) }
    }

    /// Makes the thread look at its workers' inboxes.
    pub(crate) fn wake(&self) {
        self.0.thread.unpark();
    }

    /// A handle that only wakes and does not keep the thread alive.
    pub(crate) fn waker(&self) -> Thread {
        self.0.thread.clone()
    }
}

fn run(inbox: &mpsc::Receiver<Install>) {
    let mut workers: Vec<Box<dyn Worker>> = Vec::new();
    loop {
        let mut busy = false;
        let mut wake_at: Option<Instant> = None;
        let mut closed = false;
        loop {
            match inbox.try_recv() {
                Ok(build) => {
                    busy = true;
                    // A panic while loading drops the sender of the answer, which the waiting load reports.
                    if let Ok(Some(worker)) = catch_unwind(AssertUnwindSafe(build)) {
                        workers.push(worker);
                    }
                }
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => {
                    closed = true;
                    break;
                }
            }
        }
        workers.retain_mut(|worker| match turn(worker.as_mut()) {
            Tick::Busy => {
                busy = true;
                true
            }
            Tick::Idle(until) => {
                wake_at = earliest(wake_at, until);
                true
            }
            Tick::Done => false,
        });
        if busy {
            continue;
        }
        if closed && workers.is_empty() {
            return;
        }
        match wake_at {
            None => std::thread::park(),
            Some(at) => std::thread::park_timeout(at.saturating_duration_since(Instant::now())),
        }
    }
}

fn turn(worker: &mut dyn Worker) -> Tick {
    match catch_unwind(AssertUnwindSafe(|| worker.tick())) {
        Ok(tick) => tick,
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a message".to_owned());
            worker.crashed(&message);
            Tick::Done
        }
    }
}

/// The earlier of two optional instants.
pub(crate) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, None) => a,
        (None, b) => b,
    }
}
