//! Responses that clients may come back to: bounded by bytes and by time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

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
    fn put(&self, owner: Owner, id: &str, stored: Stored, now: Instant) {
        let n_bytes = stored.n_bytes();
        if n_bytes > self.bounds.bytes {
            return;
        }
        {
            let mut inner = self.inner(now);
            inner.remove(id);
            inner.n_bytes += n_bytes;
            inner.order.push_back((now, id.to_owned()));
            inner.entries.insert(id.to_owned(), Entry { owner, stored: Arc::new(stored), n_bytes });
        }
        drop(self.inner(now)); // whoever has to go for it
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
        self.store.put(self.owner, id, stored, now);
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
            store.put(ANYBODY, id, stored(94), now); // with quotes and `null` 100
        }
        assert!(store.get(ANYBODY, "a", now).is_some());
        store.put(ANYBODY, "d", stored(94), now);
        assert!(
            store.get(ANYBODY, "a", now).is_none()
                && store.get(ANYBODY, "b", now).is_some()
                && store.get(ANYBODY, "d", now).is_some()
        );
        store.put(ANYBODY, "e", stored(500), now);
        assert!(store.get(ANYBODY, "e", now).is_none() && store.get(ANYBODY, "d", now).is_some());
        assert!(store.delete(ANYBODY, "b", now) && !store.delete(ANYBODY, "b", now));
        store.put(ANYBODY, "d", stored(10), now);
        assert_eq!(store.inner(now).n_bytes, 100 + 16);
    }

    #[test]
    fn nothing_outlives_its_time() {
        let store = ResponseStore::new(Bounds { bytes: 300, age: Duration::from_secs(10) });
        let now = Instant::now();
        store.put(ANYBODY, "a", stored(10), now);
        assert!(store.get(ANYBODY, "a", now + Duration::from_secs(10)).is_some());
        assert!(store.get(ANYBODY, "a", now + Duration::from_secs(11)).is_none());
        assert_eq!(store.inner(now).n_bytes, 0);
    }
}
