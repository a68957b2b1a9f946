//! The tier's two threads, which alone touch files: one reads for waiting requests, one writes and tidies up.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::entry::Errand;
use super::error::{FetchError, PrefixFileError, io_error};
use super::folder::{Folder, WriteError};
use super::lock;
use super::store::Store;
use super::{EntryId, ModelKey};
use crate::backend::DiskTierSpec;
use crate::runner::SequenceSnapshot;

/// Who gets a snapshot.
pub(super) type Done = Box<dyn FnOnce(Result<Arc<SequenceSnapshot>, FetchError>) + Send>;

/// A request for a file's snapshot. Dropping it, wherever that happens, answers it with `Closed`.
pub(super) struct Read {
    entry: EntryId,
    name: String,
    done: Option<Done>,
}

impl Read {
    pub(super) fn new(entry: EntryId, name: String, done: Done) -> Self {
        Self { entry, name, done: Some(done) }
    }

    fn answer(mut self, result: Result<Arc<SequenceSnapshot>, FetchError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(FetchError::Closed));
        }
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").field("entry", &self.entry).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Job {
    Errand(Errand),
    /// Answered when all jobs before it are done.
    Mark(Sender<()>),
}

/// What the threads look at before each job.
#[derive(Debug, Default)]
struct Stop {
    reading: AtomicBool,
    writing: AtomicBool,
}

/// Dropping this ends both threads after what they are at, and waits for neither.
#[derive(Debug)]
pub(super) struct Threads {
    jobs: Sender<Job>,
    reads: Sender<Read>,
    stop: Arc<Stop>,
    /// Disconnected when both threads have ended.
    alive: Receiver<()>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Opens the folder and puts what it has for `key` into the store.
    pub(super) fn start(
        spec: DiskTierSpec,
        key: ModelKey,
        store: &Arc<Mutex<Store>>,
    ) -> Result<Self, PrefixFileError> {
        let stop = Arc::new(Stop::default());
        let (jobs, job_queue) = channel();
        let (reads, read_queue) = channel();
        let (opened, wait_opened) = channel();
        let (alive, wait_ended) = channel::<()>();

        let write = {
            let (store, stop, alive) = (Arc::clone(store), Arc::clone(&stop), alive.clone());
            move || {
                let folder = open_folder(&spec, key, &store);
                let usable = folder.as_ref().ok().cloned();
                if opened.send(folder).is_ok()
                    && let Some(folder) = usable
                {
                    Writer { folder, store, stop }.run(&job_queue);
                }
                drop(alive);
            }
        };
        let writer = spawn("prefix-write", write)?;
        let gone = |_| io_error("starting a thread")(io::ErrorKind::BrokenPipe.into());
        let folder = wait_opened.recv().map_err(gone)??;

        let read = {
            let (store, stop) = (Arc::clone(store), Arc::clone(&stop));
            move || {
                Reader { folder, store, stop, last: None }.run(&read_queue);
                drop(alive);
            }
        };
        let reader = spawn("prefix-read", read)?;
        lock(store).attach_disk();
        Ok(Self { jobs, reads, stop, alive: wait_ended, handles: vec![writer, reader] })
    }

    /// Queues an errand. Where the writer is gone there is nobody to run it.
    pub(super) fn run(&self, errand: Errand) {
        if self.jobs.send(Job::Errand(errand)).is_err() {
            tracing::error!("the thread that writes prefixes is gone");
        }
    }

    /// Queues a read. Where the reader is gone, it comes back with the error and is answered by being dropped.
    pub(super) fn read(&self, read: Read) {
        drop(self.reads.send(read));
    }

    /// Waits until the errands queued so far are done, or the time is over.
    pub(super) fn wait_for_writes(&self, timeout: Duration) {
        let (mark, reached) = channel();
        // An error means that the time is over or the writer is gone: what is unsaved says so.
        if self.jobs.send(Job::Mark(mark)).is_ok() {
            let _ = reached.recv_timeout(timeout);
        }
    }

    /// Lets reads that were not begun end.
    pub(super) fn stop_reading(&self) {
        self.stop.reading.store(true, Ordering::Relaxed);
    }

    /// Ends both threads and waits for that until `timeout` is over.
    pub(super) fn end(mut self, timeout: Duration) {
        self.stop();
        let handles = std::mem::take(&mut self.handles);
        // The queues end with their senders.
        (self.jobs, self.reads) = (channel().0, channel().0);
        if self.alive.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected) {
            for handle in handles {
                if handle.join().is_err() {
                    tracing::error!("a thread of the prefix tier has panicked");
                }
            }
        }
    }

    fn stop(&self) {
        self.stop.reading.store(true, Ordering::Relaxed);
        self.stop.writing.store(true, Ordering::Relaxed);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, PrefixFileError> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(io_error("starting a thread"))
}

fn open_folder(
    spec: &DiskTierSpec,
    key: ModelKey,
    store: &Mutex<Store>,
) -> Result<Arc<Folder>, PrefixFileError> {
    let (folder, found) = Folder::open(spec, key)?;
    for file in found {
        let errands =
            lock(store).add_file(&file.tokens, file.name, file.payload_bytes, file.file_bytes, file.used);
        for errand in errands {
            tidy(&folder, &errand);
        }
    }
    Ok(Arc::new(folder))
}

/// Runs an errand that writes no entry.
fn tidy(folder: &Folder, errand: &Errand) {
    match errand {
        Errand::Write(_) => {}
        Errand::Delete(name) => {
            folder.delete(name);
        }
        Errand::Touch(name, used) => folder.touch(name, *used),
    }
}

struct Writer {
    folder: Arc<Folder>,
    store: Arc<Mutex<Store>>,
    stop: Arc<Stop>,
}

impl Writer {
    fn run(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Errand(Errand::Write(entry)) => self.write(entry),
                Job::Errand(errand) => tidy(&self.folder, &errand),
                // Whoever waited may have stopped waiting.
                Job::Mark(reached) => drop(reached.send(())),
            }
        }
    }

    fn write(&self, entry: EntryId) {
        if self.stop.writing.load(Ordering::Relaxed) {
            return;
        }
        // In a statement of its own, so that the lock is free again while the file is written.
        let draft = lock(&self.store).start_writing(entry);
        let Some(draft) = draft else { return };
        match self.folder.write(&draft.tokens, &draft.snapshot, draft.used) {
            Ok(written) => {
                let errands =
                    lock(&self.store).written(entry, written.name, written.file_bytes, &written.others);
                errands.iter().for_each(|errand| tidy(&self.folder, errand));
            }
            Err(error) => {
                let text = crate::error::chain(&error);
                tracing::warn!(n_tokens = draft.tokens.len(), error = text, "a prefix could not be saved");
                let mut store = lock(&self.store);
                store.stats.n_errors += u64::from(matches!(error, WriteError::File(_)));
                store.not_written(entry);
            }
        }
    }
}

struct Reader {
    folder: Arc<Folder>,
    store: Arc<Mutex<Store>>,
    stop: Arc<Stop>,
    /// What was read last, as long as somebody has it: requests that come together want the same.
    last: Option<(EntryId, Weak<SequenceSnapshot>)>,
}

impl Reader {
    fn run(mut self, reads: &Receiver<Read>) {
        for read in reads {
            if self.stop.reading.load(Ordering::Relaxed) {
                // What is dropped is answered.
                continue;
            }
            let result = self.read(&read);
            read.answer(result);
        }
    }

    fn read(&mut self, read: &Read) -> Result<Arc<SequenceSnapshot>, FetchError> {
        let last = self.last.as_ref().filter(|(entry, _)| *entry == read.entry);
        let snapshot = match last.and_then(|(_, snapshot)| snapshot.upgrade()) {
            Some(snapshot) => snapshot,
            None => Arc::new(self.read_file(read)?),
        };
        self.last = Some((read.entry, Arc::downgrade(&snapshot)));
        lock(&self.store).stats.n_disk_fetches += 1;
        Ok(snapshot)
    }

    fn read_file(&self, read: &Read) -> Result<SequenceSnapshot, FetchError> {
        let tokens = lock(&self.store).tokens(read.entry).ok_or(FetchError::Unknown)?;
        self.folder.read(&read.name, &tokens).inspect_err(|error| {
            let mut store = lock(&self.store);
            match error {
                FetchError::Vanished => store.stats.n_files_gone += 1,
                _ => store.stats.n_errors += 1,
            }
            store.lose_file(read.entry);
        })
    }
}
