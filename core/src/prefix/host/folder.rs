//! The folder of the tier: one file an entry, shared with other models and other processes.
//!
//! What holds whoever else is at work there: a file with a final name is complete; all files together, those being written
//! included, stay within the cap; a file may be gone at any time. Looking round, making room and giving final names happen
//! under an advisory lock that is held for moments, never while a payload is written.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::{Errno, retry_on_intr};
use tempfile::NamedTempFile;

use super::ModelKey;
use super::error::{FetchError, PrefixFileError, io_error};
use super::format;
use super::survey::{self, Listed};
use crate::backend::DiskTierSpec;
use crate::runner::SequenceSnapshot;
use crate::text::TokenId;

/// Ends the names of complete files.
pub(super) const SUFFIX: &str = ".duetkv";
/// Follows [`SUFFIX`] while a file is being written.
pub(super) const UNFINISHED: &str = ".tmp";
/// The file that is locked. It stays, and stays empty.
const LOCK: &str = ".duetkv-lock";

/// A folder, as one model sees it. The tier's own threads call its methods; all of them may block.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    max_bytes: u64,
    key: ModelKey,
}

/// A usable file of this model that was there before.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) tokens: Vec<TokenId>,
    pub(super) payload_bytes: u64,
    pub(super) file_bytes: u64,
    pub(super) used: SystemTime,
}

/// A file just written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) file_bytes: u64,
    /// The complete files beside it, of all models.
    pub(super) others: BTreeSet<String>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// It is longer than the cap, or all that would have to go for it was used later.
    #[error("there is no room for it")]
    NoRoom,
    #[error(transparent)]
    File(#[from] PrefixFileError),
}

impl Folder {
    /// The folder, made if it is not there, without what crashed writers left and within the cap; and the files of this
    /// model, least recently used first. Damaged ones are deleted.
    pub(super) fn open(spec: &DiskTierSpec, key: ModelKey) -> Result<(Self, Vec<Found>), PrefixFileError> {
        let folder = Self { dir: spec.dir.clone(), max_bytes: spec.max_bytes, key };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&folder.dir).map_err(io_error("making the folder"))?;
        let listed = {
            let _lock = folder.lock()?;
            let listed = folder.list()?;
            let surplus = survey::bytes(&listed).saturating_sub(folder.max_bytes);
            folder.evict(listed, surplus)
        };
        let own = format!("{}-", key.short());
        let own = listed.into_iter().filter(|file| file.is_finished() && file.name.starts_with(&own));
        let found = own.filter_map(|file| folder.read_head(file)).collect();
        Ok((folder, found))
    }

    /// Whether a file of that size could be here at all.
    pub(super) fn may_hold(&self, file_bytes: u64) -> bool {
        file_bytes <= self.max_bytes
    }

    /// Writes an entry that was last used at `used`; what was used before that makes room.
    pub(super) fn write(
        &self,
        tokens: &[TokenId],
        snapshot: &SequenceSnapshot,
        used: SystemTime,
    ) -> Result<Written, WriteError> {
        let head = format::head(&self.key, tokens, &snapshot.bytes);
        let file_bytes = (head.len() + snapshot.bytes.len()) as u64;
        let (mut file, listed) = self.reserve(file_bytes, used)?;
        let mut fill = || {
            file.write_all(&head)?;
            file.write_all(&snapshot.bytes)?;
            file.as_file().set_modified(used)?;
            file.as_file().sync_all()
        };
        fill().map_err(io_error("write"))?;
        let name = self.finish(file)?;
        let others = listed.into_iter().filter(Listed::is_finished).map(|file| file.name).collect();
        Ok(Written { name, file_bytes, others })
    }

    /// Reads the entry of `tokens` and notes that it was used. A damaged file is deleted.
    pub(super) fn read(&self, name: &str, tokens: &[TokenId]) -> Result<SequenceSnapshot, FetchError> {
        let read = || {
            let (mut file, n_bytes) = self.open_file(name)?;
            let header = format::read_header(&mut file, &self.key, n_bytes)?;
            if header.read_tokens(&mut file)? != tokens {
                return Err(PrefixFileError::OtherTokens);
            }
            header.read_payload(&mut file)
        };
        match read() {
            Ok(snapshot) => {
                self.touch(name, SystemTime::now());
                Ok(snapshot)
            }
            Err(PrefixFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(FetchError::Vanished)
            }
            Err(error) => {
                self.reject(name, &error);
                Err(FetchError::File(error))
            }
        }
    }

    /// Notes when an entry was used, for whoever makes room next. It may be gone.
    pub(super) fn touch(&self, name: &str, used: SystemTime) {
        if let Err(error) = self.open_file(name).map(|(file, _)| file.set_modified(used)) {
            tracing::debug!(file = name, %error, "the use of a prefix could not be noted");
        }
    }

    /// Deletes a file, and says whether it is gone.
    pub(super) fn delete(&self, name: &str) -> bool {
        match fs::remove_file(self.dir.join(name)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(file = name, %error, "the file of a prefix could not be deleted");
                false
            }
        }
    }

    /// A temporary file that has its final size already, so that others count it, and what lies beside it.
    fn reserve(&self, file_bytes: u64, used: SystemTime) -> Result<(NamedTempFile, Vec<Listed>), WriteError> {
        let Some(room) = self.max_bytes.checked_sub(file_bytes) else { return Err(WriteError::NoRoom) };
        let _lock = self.lock()?;
        let listed = self.list()?;
        let surplus = survey::bytes(&listed).saturating_sub(room);
        if survey::bytes_evictable(&listed, used) < surplus {
            return Err(WriteError::NoRoom);
        }
        let listed = self.evict(listed, surplus);
        if survey::bytes(&listed) > room {
            return Err(WriteError::NoRoom);
        }
        let make = || {
            let file = tempfile::Builder::new()
                .prefix(&format!("{}-", self.key.short()))
                .rand_bytes(16)
                .suffix(&format!("{SUFFIX}{UNFINISHED}"))
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(&self.dir)?;
            // Held until the file is closed: it tells a writer at work from one that crashed.
            match flock(file.as_file(), FlockOperation::NonBlockingLockExclusive) {
                Err(error) if !has_no_locks(error) => return Err(error.into()),
                _ => {}
            }
            file.as_file().set_len(file_bytes)?;
            Ok(file)
        };
        Ok((make().map_err(io_error("making a file"))?, listed))
    }

    /// Gives a written file its final name.
    fn finish(&self, file: NamedTempFile) -> Result<String, PrefixFileError> {
        let name = file.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_suffix(UNFINISHED).unwrap_or(name).to_owned();
        // So that nobody who is counting sees neither name.
        let _lock = self.lock()?;
        file.persist_noclobber(self.dir.join(&name)).map_err(|error| io_error("rename")(error.error))?;
        // Without it the name may be lost when the power fails; the file would be a leftover then and nothing worse.
        if let Err(error) = File::open(&self.dir).and_then(|dir| dir.sync_all()) {
            tracing::debug!(%error, "the folder of prefixes could not be synchronised");
        }
        Ok(name)
    }

    /// Deletes the least recently used files until `surplus` bytes have gone, if as many can; what is left comes back.
    fn evict(&self, listed: Vec<Listed>, surplus: u64) -> Vec<Listed> {
        let mut freed = 0;
        let mut left = Vec::new();
        for file in listed {
            if freed < surplus && file.is_finished() && self.delete(&file.name) {
                freed += file.n_bytes;
            } else {
                left.push(file);
            }
        }
        left
    }

    /// What lies in the folder, least recently used first; what crashed writers left is deleted. Under the lock.
    fn list(&self) -> Result<Vec<Listed>, PrefixFileError> {
        let mut listed = survey::list(&self.dir).map_err(io_error("listing the folder"))?;
        listed.retain(|file| {
            let abandoned = !file.is_finished() && self.is_abandoned(file);
            !(abandoned && self.delete(&file.name))
        });
        Ok(listed)
    }

    /// Whether whoever wrote a temporary file is no more. Under the folder's lock, so that nobody has just made it.
    fn is_abandoned(&self, file: &Listed) -> bool {
        let Ok(open) = open_no_follow(&self.dir.join(&file.name)) else { return false };
        match flock(&open, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(error) if has_no_locks(error) => file.is_old(),
            Err(_) => false,
        }
    }

    /// Waits for the folder's lock, which goes with what comes back. A file system without locks is used without.
    fn lock(&self) -> Result<File, PrefixFileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600).custom_flags(NO_FOLLOW);
        let file = options.open(self.dir.join(LOCK)).map_err(io_error("opening the folder's lock"))?;
        match retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)) {
            Err(error) if !has_no_locks(error) => Err(io_error("locking the folder")(error.into())),
            _ => Ok(file),
        }
    }

    fn read_head(&self, file: Listed) -> Option<Found> {
        let read = || {
            let (mut open, file_bytes) = self.open_file(&file.name)?;
            let header = format::read_header(&mut open, &self.key, file_bytes)?;
            Ok((header.read_tokens(&mut open)?, header.payload_bytes, file_bytes))
        };
        match read() {
            Ok((tokens, payload_bytes, file_bytes)) => {
                Some(Found { name: file.name, tokens, payload_bytes, file_bytes, used: file.used })
            }
            Err(error) => {
                self.reject(&file.name, &error);
                None
            }
        }
    }

    fn reject(&self, name: &str, error: &PrefixFileError) {
        tracing::warn!(file = name, error = %crate::error::chain(error), "the file of a prefix cannot be used");
        if error.is_damage() {
            self.delete(name);
        }
    }

    /// A regular file of this user within the cap, and its size.
    fn open_file(&self, name: &str) -> Result<(File, u64), PrefixFileError> {
        let file = open_no_follow(&self.dir.join(name)).map_err(|error| {
            if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
                PrefixFileError::NotOurs
            } else {
                io_error("open")(error)
            }
        })?;
        let metadata = file.metadata().map_err(io_error("open"))?;
        if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(PrefixFileError::NotOurs);
        }
        if !self.may_hold(metadata.len()) {
            return Err(PrefixFileError::TooBig { n_bytes: metadata.len() });
        }
        Ok((file, metadata.len()))
    }
}

/// Neither follows a symbolic link nor waits for the other end of a pipe.
const NO_FOLLOW: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;

fn open_no_follow(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path)
}

/// The file system knows no advisory locks (some network file systems).
fn has_no_locks(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL)
}
