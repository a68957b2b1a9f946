//! What lies in the folder, and what of it may go.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::folder::{SUFFIX, UNFINISHED};

/// No write takes as long: where the file system has no locks, an older temporary file was left by a crash.
const OLD: Duration = Duration::from_secs(3600);

/// A file of the tier, of whichever model and process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) n_bytes: u64,
    /// When it was last used, by its modification time. The beginning of time if that lies in the future: the clock was
    /// put back, and a file that nothing could outdate would take its room for ever.
    pub(super) used: SystemTime,
}

impl Listed {
    /// It has its final name.
    pub(super) fn is_finished(&self) -> bool {
        self.name.ends_with(SUFFIX)
    }

    pub(super) fn is_old(&self) -> bool {
        self.used.elapsed().is_ok_and(|age| age > OLD)
    }
}

/// The tier's regular files in `dir`, least recently used first. Other files are left alone and not counted.
pub(super) fn list(dir: &Path) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for entry in fs::read_dir(dir)? {
        listed.extend(look_at(&entry?));
    }
    // After the last file was looked at, so that none of them is newer because of the time that took.
    let now = SystemTime::now();
    for file in &mut listed {
        if file.used > now {
            file.used = SystemTime::UNIX_EPOCH;
        }
    }
    listed.sort_by(|a, b| (a.used, &a.name).cmp(&(b.used, &b.name)));
    Ok(listed)
}

fn look_at(entry: &DirEntry) -> Option<Listed> {
    let name = entry.file_name().into_string().ok()?;
    if !name.ends_with(SUFFIX) && !name.strip_suffix(UNFINISHED).is_some_and(|name| name.ends_with(SUFFIX)) {
        return None;
    }
    // Nothing comes back for what went meanwhile, and symbolic links are not followed.
    let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
    Some(Listed { name, n_bytes: metadata.len(), used: metadata.modified().ok()? })
}

/// Bytes of all files, those being written included.
pub(super) fn bytes(listed: &[Listed]) -> u64 {
    listed.iter().fold(0, |sum, file| sum.saturating_add(file.n_bytes))
}

/// Bytes of the complete files that were not used after `used`.
pub(super) fn bytes_evictable(listed: &[Listed], used: SystemTime) -> u64 {
    let evictable = listed.iter().filter(|file| file.is_finished() && file.used <= used);
    evictable.fold(0, |sum, file| sum.saturating_add(file.n_bytes))
}
