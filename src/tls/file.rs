//! Owns files on disk: read within a bound, replaced whole, created by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use rustix::fs::FlockOperation;
use zeroize::Zeroizing;

/// Far above any certificate bundle (Mozilla's is 220 KiB) and below any accident (`/dev/zero`).
const READ_LIMIT: u64 = 4 << 20;

/// The permission bits of an open file and everything in it.
pub(super) struct Contents {
    /// Bits of `rwxrwxrwx`, plus set-id and sticky.
    pub(super) mode: u32,
    /// Whether another user owns it: a mounted Secret belongs to root and is read through its group.
    pub(super) mounted: bool,
    /// The bytes; zeroized, since they may be a key.
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

/// Reads a file. The mode is that of the file that was read, not of a path looked at before or after.
pub(super) fn read(path: &Path) -> io::Result<Contents> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // One octet more than expected: a buffer that need not grow leaves no copy of a key behind.
    let expected = usize::try_from(metadata.len().min(READ_LIMIT)).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected));
    file.take(READ_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > READ_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Contents {
        mode: metadata.permissions().mode() & 0o7777,
        mounted: metadata.uid() != rustix::process::geteuid().as_raw(),
        bytes,
    })
}

/// Replaces `path` by `bytes`: whoever looks sees the old file or the new one, also after a crash.
///
/// The bytes go to a fresh file of exactly `mode` beside it, to the disk, then over the old name.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = parent(path);
    let temporary = temporary_beside(path)?;
    let written = write_new(&temporary, bytes, mode)
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all());
    if written.is_err() {
        // Best effort: the first error is the one worth telling.
        drop(std::fs::remove_file(&temporary));
    }
    written
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // Opened for the owner alone whatever the umask; widened only when that was asked for.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut random = [0; 8];
    aws_lc_rs::rand::SecureRandom::fill(&SystemRandom::new(), &mut random)
        .map_err(|_| io::Error::other("no random numbers"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}.tmp", u64::from_be_bytes(random)));
    Ok(path.with_file_name(temporary))
}

/// The directory a file stands in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// Makes a directory, and those above it, for the owner alone. An existing one stays as it is.
pub(super) fn make_private_dir(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Held while files of a directory are checked and made; dropping it lets the next process in.
#[must_use]
pub(super) struct DirectoryLock(#[expect(dead_code, reason = "closing it unlocks")] File);

impl DirectoryLock {
    /// Waits until no other process holds the directory.
    pub(super) fn acquire(directory: &Path) -> io::Result<Self> {
        let handle = File::open(directory)?;
        rustix::fs::flock(&handle, FlockOperation::LockExclusive)?;
        Ok(Self(handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_exactly_the_mode_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (bytes, mode) in [(b"one".as_slice(), 0o600), (b"second", 0o644)] {
            replace(&path, bytes, mode).unwrap();
            let contents = read(&path).unwrap();
            assert_eq!((contents.bytes.as_slice(), contents.mode), (bytes, mode));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let occupied = dir.path().join("x");
        std::fs::create_dir_all(occupied.join("y")).unwrap();
        assert!(replace(&occupied, b"bytes", 0o600).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn endless_files_and_directories_are_refused() {
        assert_eq!(
            read(Path::new("/dev/zero")).err().unwrap().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert_eq!(
            read(Path::new("/")).err().unwrap().kind(),
            io::ErrorKind::IsADirectory
        );
    }
}
