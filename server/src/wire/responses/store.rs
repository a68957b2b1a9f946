//! Responses that clients may come back to: bounded by bytes and by time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::DropGuard;

use crate::auth::Owner;

/// One response and the conversation that led to it, its own part included.
#[derive(Debug)]
pub(crate) struct Stored {
    /// As it was answered.
    pub(crate) body: Value,
    /// What it was asked, as items.
    pub(crate) input: Value,
    /// In chat's form, without instructions: those hold for one response only.
    pub(crate) messages: Vec<Value>,
}

impl Stored {
    fn n_bytes(&self) -> usize {
        let messages: usize = self.messages.iter().map(|message| message.to_string().len()).sum();
        self.body.to_string().len() + self.input.to_string().len() + messages
    }
}

/// What bounds a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) age: Duration,
}

impl Bounds {
    /// Conversations of a few hundred turns, for a working day.
    pub(crate) const USUAL: Self = Self { bytes: 64 << 20, age: Duration::from_secs(8 * 3600) };
}

/// All stored responses; the oldest go first.
#[derive(Debug)]
pub(crate) struct ResponseStore {
    bounds: Bounds,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<String, Entry>,
    /// Ids by age; some may be gone already.
    order: VecDeque<(Instant, String)>,
    n_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    stored: Arc<Stored>,
    n_bytes: usize,
    /// While it is being made in the background: dropped, it ends that.
    running: Option<DropGuard>,
}

/// What became of the wish to cancel a response.
#[derive(Debug)]
pub(crate) enum Cancelled {
    /// It is not there.
    Gone,
    /// It was not asked for in the background.
    Foreground,
    /// It has ended, now or before.
    Ended(Arc<Stored>),
}

impl ResponseStore {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, inner: Mutex::default() }
    }

    fn inner(&self, now: Instant) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((kept_at, id)) = inner.order.front() {
            let is_old = now.saturating_duration_since(*kept_at) > self.bounds.age;
            if !is_old && inner.n_bytes <= self.bounds.bytes {
                break;
            }
            let id = id.clone();
            inner.order.pop_front();
            inner.drop_entry(&id);
        }
        inner
    }

    /// Keeps a response; one that is larger than the whole store is not kept.
    fn put(&self, owner: Owner, id: &str, stored: Stored, running: Option<DropGuard>, now: Instant) {
        let n_bytes = stored.n_bytes();
        if n_bytes > self.bounds.bytes {
            return;
        }
        self.inner(now).put(id, Entry { owner, stored: Arc::new(stored), n_bytes, running }, now);
        drop(self.inner(now)); // whoever has to go for it
    }

    /// Keeps the end of what was begun in the background, unless somebody has cancelled or deleted it.
    fn end(&self, owner: Owner, id: &str, stored: Stored, now: Instant) {
        let n_bytes = stored.n_bytes();
        {
            // One lock for both: whoever is told that it is cancelled finds it so.
            let mut inner = self.inner(now);
            if inner.entries.get(id).is_none_or(|entry| entry.running.is_none()) {
                return;
            }
            match n_bytes > self.bounds.bytes {
                true => drop(inner.remove(id)),
                false => {
                    inner.put(id, Entry { owner, stored: Arc::new(stored), n_bytes, running: None }, now)
                }
            }
        }
        drop(self.inner(now)); // whoever has to go for it
    }

    fn cancel(&self, owner: Owner, id: &str, now: Instant) -> Cancelled {
        let mut inner = self.inner(now);
        let Some(entry) = inner.entries.get_mut(id).filter(|entry| entry.owner == owner) else {
            return Cancelled::Gone;
        };
        if entry.stored.body["background"] != true {
            return Cancelled::Foreground;
        }
        if entry.running.take().is_some() {
            let Stored { body, input, messages } = entry.stored.as_ref();
            let mut body = body.clone();
            body["status"] = "cancelled".into();
            entry.stored = Arc::new(Stored { body, input: input.clone(), messages: messages.clone() });
        }
        Cancelled::Ended(entry.stored.clone())
    }

    fn get(&self, owner: Owner, id: &str, now: Instant) -> Option<Arc<Stored>> {
        let inner = self.inner(now);
        inner.entries.get(id).filter(|entry| entry.owner == owner).map(|entry| entry.stored.clone())
    }

    /// Whether it was there.
    fn delete(&self, owner: Owner, id: &str, now: Instant) -> bool {
        let mut inner = self.inner(now);
        let is_theirs = inner.entries.get(id).is_some_and(|entry| entry.owner == owner);
        is_theirs && inner.remove(id)
    }
}

/// The responses of one owner; nobody sees another's.
#[derive(Debug, Clone)]
pub(crate) struct Responses {
    pub(crate) store: Arc<ResponseStore>,
    pub(crate) owner: Owner,
}

impl Responses {
    /// Keeps a response; one that is larger than the whole store is not kept.
    pub(crate) fn put(&self, id: &str, stored: Stored, now: Instant) {
        self.store.put(self.owner, id, stored, None, now);
    }

    /// Keeps a response that is being made; `running` is dropped when nobody wants it any more.
    pub(crate) fn begin(&self, id: &str, stored: Stored, running: DropGuard, now: Instant) {
        self.store.put(self.owner, id, stored, Some(running), now);
    }

    /// Keeps the end of one that was begun so, unless it was cancelled or deleted meanwhile.
    pub(crate) fn end(&self, id: &str, stored: Stored, now: Instant) {
        self.store.end(self.owner, id, stored, now);
    }

    pub(crate) fn cancel(&self, id: &str, now: Instant) -> Cancelled {
        self.store.cancel(self.owner, id, now)
    }

    pub(crate) fn get(&self, id: &str, now: Instant) -> Option<Arc<Stored>> {
        self.store.get(self.owner, id, now)
    }

    /// Whether it was there.
    pub(crate) fn delete(&self, id: &str, now: Instant) -> bool {
        self.store.delete(self.owner, id, now)
    }
}

impl Inner {
    /// In place of what has this id.
    fn put(&mut self, id: &str, entry: Entry, now: Instant) {
        self.remove(id);
        self.n_bytes += entry.n_bytes;
        self.order.push_back((now, id.to_owned()));
        self.entries.insert(id.to_owned(), entry);
    }

    /// Whether it was there. Looks through all of the order for it.
    fn remove(&mut self, id: &str) -> bool {
        let was_there = self.drop_entry(id);
        if was_there {
            self.order.retain(|(_, other)| other != id);
        }
        was_there
    }

    /// The same for one whose place in the order is gone already.
    fn drop_entry(&mut self, id: &str) -> bool {
        let entry = self.entries.remove(id);
        self.n_bytes -= entry.as_ref().map_or(0, |entry| entry.n_bytes);
        entry.is_some()
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    const ANYBODY: Owner = Owner::EVERYBODY;

    fn stored(n_bytes: usize) -> Stored {
        Stored { body: Value::from("x".repeat(n_bytes)), input: Value::Null, messages: Vec::new() }
    }

    #[test]
    fn the_oldest_go_when_bytes_run_out() {
        let store = ResponseStore::new(Bounds { bytes: 300, age: Duration::from_secs(10) });
        let now = Instant::now();
        for id in ["a", "b", "c"] {
            store.put(ANYBODY, id, stored(94), None, now); // with quotes and `null` 100
        }
        assert!(store.get(ANYBODY, "a", now).is_some());
        store.put(ANYBODY, "d", stored(94), None, now);
        assert!(
            store.get(ANYBODY, "a", now).is_none()
                && store.get(ANYBODY, "b", now).is_some()
                && store.get(ANYBODY, "d", now).is_some()
        );
        store.put(ANYBODY, "e", stored(500), None, now);
        assert!(store.get(ANYBODY, "e", now).is_none() && store.get(ANYBODY, "d", now).is_some());
        assert!(store.delete(ANYBODY, "b", now) && !store.delete(ANYBODY, "b", now));
        store.put(ANYBODY, "d", stored(10), None, now);
        assert_eq!(store.inner(now).n_bytes, 100 + 16);
    }

    #[test]
    fn nothing_outlives_its_time() {
        let store = ResponseStore::new(Bounds { bytes: 300, age: Duration::from_secs(10) });
        let now = Instant::now();
        store.put(ANYBODY, "a", stored(10), None, now);
        assert!(store.get(ANYBODY, "a", now + Duration::from_secs(10)).is_some());
        assert!(store.get(ANYBODY, "a", now + Duration::from_secs(11)).is_none());
        assert_eq!(store.inner(now).n_bytes, 0);
    }

    fn in_background(store: &ResponseStore, id: &str, now: Instant) -> CancellationToken {
        let token = CancellationToken::new();
        let body = serde_json::json!({"background": true, "status": "in_progress"});
        let stored = Stored { body, input: Value::Null, messages: Vec::new() };
        store.put(ANYBODY, id, stored, Some(token.clone().drop_guard()), now);
        token
    }

    #[test]
    fn what_is_cancelled_deleted_or_too_old_is_stopped_and_stays_so() {
        let store = ResponseStore::new(Bounds { bytes: 1000, age: Duration::from_secs(10) });
        let now = Instant::now();
        let [cancelled, deleted, old] = ["a", "b", "c"].map(|id| in_background(&store, id, now));
        assert!(
            matches!(store.cancel(ANYBODY, "a", now), Cancelled::Ended(stored) if stored.body["status"] == "cancelled")
        );
        assert!(store.delete(ANYBODY, "b", now));
        assert!(cancelled.is_cancelled() && deleted.is_cancelled() && !old.is_cancelled());
        for id in ["a", "b"] {
            store.end(ANYBODY, id, stored(10), now);
        }
        assert!(
            matches!(store.cancel(ANYBODY, "a", now), Cancelled::Ended(stored) if stored.body["status"] == "cancelled")
        );
        assert!(store.get(ANYBODY, "b", now).is_none());
        assert!(store.get(ANYBODY, "c", now + Duration::from_secs(11)).is_none());
        assert!(old.is_cancelled());
    }

    #[test]
    fn what_becomes_too_large_in_the_background_is_gone() {
        let store = ResponseStore::new(Bounds { bytes: 300, age: Duration::from_secs(10) });
        let now = Instant::now();
        let _token = in_background(&store, "a", now);
        store.end(ANYBODY, "a", stored(500), now);
        assert!(store.get(ANYBODY, "a", now).is_none(), "and not in progress for ever");
        assert_eq!(store.inner(now).n_bytes, 0);
    }

    #[test]
    fn what_has_ended_cannot_be_cancelled_any_more() {
        let store = ResponseStore::new(Bounds { bytes: 1000, age: Duration::from_secs(10) });
        let now = Instant::now();
        let token = in_background(&store, "a", now);
        let body = serde_json::json!({"background": true, "status": "completed"});
        store.end(ANYBODY, "a", Stored { body, input: Value::Null, messages: Vec::new() }, now);
        assert!(token.is_cancelled(), "nobody listens any more");
        assert!(
            matches!(store.cancel(ANYBODY, "a", now), Cancelled::Ended(stored) if stored.body["status"] == "completed")
        );
        store.put(ANYBODY, "b", stored(10), None, now);
        assert!(matches!(store.cancel(ANYBODY, "b", now), Cancelled::Foreground));
        assert!(matches!(store.cancel(ANYBODY, "c", now), Cancelled::Gone));
    }
}
