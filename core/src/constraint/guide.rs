//! A request's parser while it runs: it travels to a mask thread with each token and comes back with the next mask.
//!
//! The engine's thread never waits for it. Who holds the parser is a matter of ownership: no locks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use llguidance::{CancellationHandle, Matcher};

use super::compiler::first_line;
use super::{Constraint, Mask, pool};
use crate::text::TokenId;

/// How long a mask may take. Fuel bounds it to milliseconds; this is for what fuel does not see.
const MASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What the grammar says of the next token.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// One of these; whether the text may also end here.
    Allowed {
        /// The ids.
        mask: Mask,
        /// The text so far is whole.
        may_end: bool,
    },
    /// The text is whole and nothing can follow.
    Finished,
    /// The grammar cannot be followed any further, for this reason.
    Failed(String),
}

/// What travels.
struct Traveller {
    /// `None` once it has failed.
    matcher: Option<Box<Matcher>>,
    verdict: Verdict,
}

/// What of a request's parameters bears on its masks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    /// Never allowed: end-of-generation tokens of a request that goes on after them.
    pub(crate) forbidden: Vec<TokenId>,
    /// Allowed wherever the text may end: stop tokens of the request.
    pub(crate) stops: Vec<TokenId>,
}

/// The engine's end of it.
pub(crate) struct Guide {
    here: Option<Traveller>,
    back: Receiver<Traveller>,
    way: SyncSender<Traveller>,
    ends: Arc<Ends>,
    awaited: Arc<AtomicBool>,
    engine: Thread,
    cancel: Arc<AtomicBool>,
    /// Known once the first trip has begun.
    handle: Arc<OnceLock<CancellationHandle>>,
    left: Instant,
}

impl Guide {
    /// Sets out for the first mask. `engine` is woken when a mask comes that was asked for too early.
    pub(crate) fn start(constraint: &Constraint, ends: Ends, engine: Thread) -> Self {
        let (way, back) = sync_channel(1);
        let guide = Self {
            here: None,
            back,
            way,
            ends: Arc::new(ends),
            awaited: Arc::default(),
            engine,
            cancel: Arc::default(),
            handle: Arc::default(),
            left: Instant::now(),
        };
        let (template, handle) = (constraint.matcher.clone(), guide.handle.clone());
        guide.travel(move || {
            let mut matcher = Box::new(template.deep_clone());
            if let Some(own) = matcher.cancellation_handle() {
                let _ = handle.set(own); // nobody else sets it
            }
            let verdict = next(&mut matcher);
            (matcher, verdict)
        });
        guide
    }

    /// Sets out with the token that was chosen, for the mask of the one after it.
    pub(crate) fn advance(&mut self, id: TokenId) {
        let Some(Traveller { matcher: Some(mut matcher), .. }) = self.here.take() else { return };
        self.left = Instant::now();
        self.travel(move || {
            let verdict = match matcher.consume_token(id) {
                Ok(()) => next(&mut matcher),
                Err(error) => Verdict::Failed(first_line(&error.to_string())),
            };
            (matcher, verdict)
        });
    }

    fn travel(&self, work: impl FnOnce() -> (Box<Matcher>, Verdict) + Send + 'static) {
        let (way, ends) = (self.way.clone(), self.ends.clone());
        let (awaited, engine, cancel) = (self.awaited.clone(), self.engine.clone(), self.cancel.clone());
        let trip = move || {
            if cancel.load(Ordering::Acquire) {
                return;
            }
            let traveller = match catch_unwind(AssertUnwindSafe(work)) {
                Ok((matcher, mut verdict)) => {
                    ends.apply(&mut verdict);
                    Traveller { matcher: Some(matcher), verdict }
                }
                Err(_) => {
                    let verdict = Verdict::Failed("the grammar library failed".to_owned());
                    Traveller { matcher: None, verdict }
                }
            };
            let _ = way.try_send(traveller); // a request that is gone wants nothing
            if awaited.swap(false, Ordering::AcqRel) {
                engine.unpark();
            }
        };
        match pool::threads() {
            Some(threads) => threads.spawn_fifo(trip),
            None => trip(),
        }
    }

    /// What the grammar says of the next token, or `None` if that is not known yet: the engine's thread will be woken.
    pub(crate) fn verdict(&mut self) -> Option<&Verdict> {
        if self.here.is_none() {
            self.here = self.fetch();
        }
        self.here.as_ref().map(|traveller| &traveller.verdict)
    }

    /// When a mask that is still on its way is too late.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.here.is_none().then(|| self.left + MASK_TIMEOUT)
    }

    /// Whether the text is known to be whole already, without asking to be woken.
    pub(crate) fn is_finished(&mut self) -> bool {
        if self.here.is_none() {
            self.here = self.back.try_recv().ok();
        }
        matches!(self.here, Some(Traveller { verdict: Verdict::Finished, .. }))
    }

    fn fetch(&self) -> Option<Traveller> {
        if let Ok(traveller) = self.back.try_recv() {
            return Some(traveller);
        }
        // Flag first, then look again: one that came in between would not wake us.
        self.awaited.store(true, Ordering::Release);
        match self.back.try_recv() {
            Ok(traveller) => {
                self.awaited.store(false, Ordering::Release);
                Some(traveller)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}

impl Drop for Guide {
    /// A mask that nobody waits for any more is given up.
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Release);
        if let Some(handle) = self.handle.get() {
            handle.cancel();
        }
    }
}

impl Ends {
    fn apply(&self, verdict: &mut Verdict) {
        let Verdict::Allowed { mask, may_end } = verdict else { return };
        for &id in &self.forbidden {
            mask.forbid(id);
        }
        if *may_end {
            for &id in &self.stops {
                mask.allow(id);
            }
        }
    }
}

fn next(matcher: &mut Matcher) -> Verdict {
    if matcher.is_stopped() {
        return match matcher.get_error() {
            Some(message) => Verdict::Failed(first_line(&message)),
            None => Verdict::Finished,
        };
    }
    match matcher.compute_mask() {
        Ok(bits) => {
            Verdict::Allowed { mask: Mask::new(bits), may_end: matcher.is_accepting().unwrap_or(false) }
        }
        Err(error) => Verdict::Failed(first_line(&error.to_string())),
    }
}
