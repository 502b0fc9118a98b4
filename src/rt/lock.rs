//! Owns the lock that keeps processes of one machine apart.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

/// One process at a time: held by flock(2), so that it ends with the process. Dropping it lets the next in.
#[must_use]
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits until no other process holds the directory. Its own descriptor is the lock.
    pub fn directory(directory: &Path) -> io::Result<Self> {
        let handle = File::open(directory)?;
        rustix::fs::flock(&handle, FlockOperation::LockExclusive)?;
        Ok(Self(handle))
    }

    /// Takes the lock file at `path`, making it if need be, or returns nothing if another process has it.
    ///
    /// The file is never removed: whoever waits for a removed one would be let in beside
    /// whoever makes the next.
    pub fn try_file(path: &Path) -> io::Result<Option<Self>> {
        let handle = OpenOptions::new()
            .read(true)
            .write(true) // NFS locks exclusively only what is open for writing
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(
                OFlags::NOFOLLOW
                    .union(OFlags::NONBLOCK)
                    .bits()
                    .cast_signed(),
            )
            .open(path)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            outcome => outcome?,
        }
        let lock = Self(handle);
        Ok(lock.is_at(path)?.then_some(lock))
    }

    /// Whether `path` still is the file that is locked. If somebody removed it, another process may
    /// hold a lock on the next one.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (ours, there) = (self.0.metadata()?, std::fs::symlink_metadata(path));
        match there {
            Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing unlocks too, but not while a program that is just being started still has a copy of
        // the descriptor.
        rustix::fs::flock(&self.0, FlockOperation::Unlock).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_lets_one_in_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        let first = Lock::try_file(&path).unwrap().unwrap();
        assert!(Lock::try_file(&path).unwrap().is_none());
        drop(first);
        let second = Lock::try_file(&path).unwrap().unwrap();
        assert!(second.is_at(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!second.is_at(&path).unwrap());
        let _third = Lock::try_file(&path).unwrap().unwrap();
        assert!(!second.is_at(&path).unwrap());
    }
}
