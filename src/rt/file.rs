//! Owns files on disk: read within a bound, replaced or created whole, and durable when that is done.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::types::cure::Cure;

/// Whether it takes more than time for the system to do it after all. A full disk, a device that fails and a
/// process in the way may be gone the next time; a path and its modes stay as they are.
pub fn cure_of(error: &io::Error) -> Cure {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound
        | Kind::PermissionDenied
        | Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::ReadOnlyFilesystem
        | Kind::InvalidFilename
        | Kind::InvalidInput
        | Kind::Unsupported => Cure::Change,
        _ if Errno::from_io_error(error) == Some(Errno::LOOP) => Cure::Change,
        _ => Cure::Time,
    }
}

/// An open file's metadata and everything in it.
pub struct Contents {
    /// Of the file that was read, not of a path looked at before or after.
    pub metadata: Metadata,
    /// The bytes; zeroized, since they may be a key.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl Contents {
    /// Bits of `rwxrwxrwx`, plus set-id and sticky.
    pub fn mode(&self) -> u32 {
        self.metadata.permissions().mode() & 0o7777
    }

    /// Whether another user owns it: a mounted Secret belongs to root and is read through its group.
    pub fn mounted(&self) -> bool {
        self.metadata.uid() != rustix::process::geteuid().as_raw()
    }

    /// Whether people may read a secret in it who should not.
    ///
    /// A file of another owner may be readable by its group: that is how Kubernetes mounts a Secret
    /// for a process that is not root (`fsGroup`, mode 0440).
    pub fn is_exposed(&self) -> bool {
        let private = if self.mounted() { 0o037 } else { 0o077 };
        self.mode() & private != 0
    }
}

/// Reads a file of at most `limit` octets.
///
/// Errors: those of the system, `IsADirectory`, and `FileTooLarge`.
pub fn read(path: &Path, limit: u64) -> io::Result<Contents> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // One octet more than expected: a buffer that need not grow leaves no copy of a key behind.
    let expected = usize::try_from(metadata.len().min(limit)).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Contents { metadata, bytes })
}

/// Replaces `path` by `bytes`: whoever looks sees the old file or the new one, also after a crash.
///
/// The bytes go to a fresh file of exactly `mode` beside it, to the disk, then over the old name.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = Temporary::beside(path)?;
    temporary.write(bytes, mode)?;
    temporary.rename(path)
}

/// Makes `path`, which must not be there: complete or not at all, also after a crash. Of two processes
/// that try, one gets `AlreadyExists`.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = Temporary::beside(path)?;
    temporary.write(bytes, mode)?;
    // Renaming would replace what another process has made meanwhile.
    std::fs::hard_link(&temporary.path, path)?;
    drop(temporary);
    sync_directory(parent(path))
}

/// A file that is not there yet under its name. Unless renamed it is removed when dropped.
#[derive(Debug)]
pub struct Temporary {
    file: File,
    path: PathBuf,
}

const TEMPORARY_SUFFIX: &str = ".tmp";

impl Temporary {
    /// Makes a new one in the directory of `path`, for the owner alone whatever the umask.
    pub fn beside(path: &Path) -> io::Result<Self> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        let random = u64::from_be_bytes(random);
        let mut name = temporary_prefix(path)?;
        name.push(format!("{random:016x}{TEMPORARY_SUFFIX}"));
        let path = path.with_file_name(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path)?;
        Ok(Self { file, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes `length` octets of the disk, so that writing as many later needs none.
    pub fn reserve(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            // NFS before 4.2 and some of FUSE: written octets take room everywhere.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill_with_zeros(length)?,
            outcome => outcome?,
        }
        self.file.sync_all()
    }

    fn fill_with_zeros(&self, length: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut at = 0;
        while at < length {
            let part = ZEROS
                .len()
                .min(usize::try_from(length - at).unwrap_or(usize::MAX));
            self.file.write_all_at(&ZEROS[..part], at)?;
            at += part as u64;
        }
        Ok(())
    }

    /// Makes `bytes` all that is in it, on the disk, and `mode` its mode.
    pub fn write(&self, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.file.write_all_at(bytes, 0)?;
        // Last, so that what was reserved is given back only when it is not needed.
        self.file.set_len(bytes.len() as u64)?;
        self.file.set_permissions(Permissions::from_mode(mode))?;
        self.file.sync_all()
    }

    /// Puts it over `path`, for good: also the directory is on the disk then.
    pub fn rename(mut self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        self.path.clear();
        sync_directory(parent(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // Best effort: the error that led here is the one worth telling.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Removes the temporaries of `path` that processes left behind which ended in the middle.
/// Only for whoever holds a lock that every writer of `path` takes: others' are not told apart.
pub fn remove_leftovers(path: &Path) -> io::Result<()> {
    let prefix = temporary_prefix(path)?;
    for entry in std::fs::read_dir(parent(path))? {
        let name = entry?.file_name();
        let random = name
            .as_encoded_bytes()
            .strip_prefix(prefix.as_encoded_bytes())
            .and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX.as_bytes()));
        if random.is_some_and(|r| r.len() == 16 && r.iter().all(u8::is_ascii_hexdigit)) {
            std::fs::remove_file(path.with_file_name(&name))?;
        }
    }
    Ok(())
}

/// `.NAME.`; sixteen hexadecimal digits and the suffix follow.
fn temporary_prefix(path: &Path) -> io::Result<OsString> {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    prefix.push(".");
    Ok(prefix)
}

/// The directory a file stands in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// Makes a directory, and those above it, for the owner alone. An existing one stays as it is.
pub fn make_private_dir(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = parent(directory);
    make_private_dir(above)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        // By another process that starts at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        outcome => outcome?,
    }
    match sync_directory(above) {
        // One that may be written but not read; there is no other way to sync it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}

/// Sees to it that names made, changed or removed in a directory outlive a crash.
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        Err(error) => match Errno::from_io_error(&error) {
            // Some file systems cannot, and say so; PostgreSQL's fsync_fname passes over the same two.
            Some(Errno::INVAL | Errno::BADF) => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 20;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        entries.map(|e| name(e).into_string().unwrap()).collect()
    }

    #[test]
    fn a_full_disk_passes_and_a_wrong_path_does_not() {
        let table = [
            (Errno::NOSPC, Cure::Time),
            (Errno::DQUOT, Cure::Time),
            (Errno::IO, Cure::Time),
            (Errno::AGAIN, Cure::Time),
            (Errno::MFILE, Cure::Time),
            (Errno::NOENT, Cure::Change),
            (Errno::ACCESS, Cure::Change),
            (Errno::PERM, Cure::Change),
            (Errno::ROFS, Cure::Change),
            (Errno::NOTDIR, Cure::Change),
            (Errno::LOOP, Cure::Change),
        ];
        for (errno, cure) in table {
            assert_eq!(cure_of(&errno.into()), cure, "{errno}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_with_exactly_the_mode_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (bytes, mode) in [(b"one".as_slice(), 0o600), (b"second", 0o644)] {
            replace(&path, bytes, mode).unwrap();
            let contents = read(&path, LIMIT).unwrap();
            assert_eq!((contents.bytes.as_slice(), contents.mode()), (bytes, mode));
        }
        assert_eq!(names(dir.path()), ["x"]);
    }

    #[test]
    fn a_failed_replacement_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let occupied = dir.path().join("x");
        std::fs::create_dir_all(occupied.join("y")).unwrap();
        assert!(replace(&occupied, b"bytes", 0o600).is_err());
        assert_eq!(names(dir.path()), ["x"]);
    }

    #[test]
    fn what_another_process_made_first_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        create(&path, b"first", 0o600).unwrap();
        let error = create(&path, b"second", 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path, LIMIT).unwrap().bytes.as_slice(), b"first");
        assert_eq!(names(dir.path()), ["x"]);
    }

    #[test]
    fn what_was_reserved_and_not_needed_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let temporary = Temporary::beside(&path).unwrap();
        temporary.reserve(100_000).unwrap();
        assert!(temporary.file.metadata().unwrap().blocks() * 512 >= 100_000);
        temporary.write(b"bytes", 0o600).unwrap();
        temporary.rename(&path).unwrap();
        assert_eq!(read(&path, LIMIT).unwrap().bytes.as_slice(), b"bytes");
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 100_000);

        let temporary = Temporary::beside(&path).unwrap();
        temporary.fill_with_zeros(10_000).unwrap();
        assert_eq!(temporary.file.metadata().unwrap().len(), 10_000);
    }

    #[test]
    fn only_temporaries_of_the_very_file_are_removed_as_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::mem::forget(Temporary::beside(&path).unwrap());
        let mut kept = [
            "x",
            ".x.tmp",
            ".x.0123.tmp",
            ".x.0123456789abcdeg.tmp",
            ".xy.0123456789abcdef.tmp",
        ];
        for name in kept {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        remove_leftovers(&path).unwrap();
        let mut names = names(dir.path());
        names.sort();
        kept.sort_unstable();
        assert_eq!(names, kept);
    }

    #[test]
    fn directories_are_made_for_the_owner_alone_and_existing_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_private_dir(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir.path().join("a"))), (0o700, 0o700));
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        make_private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o755);
        std::fs::write(path.join("file"), "").unwrap();
        assert!(make_private_dir(&path.join("file")).is_err());
    }

    #[test]
    fn endless_files_and_directories_are_refused() {
        let kind = |path| read(Path::new(path), LIMIT).err().unwrap().kind();
        assert_eq!(kind("/dev/zero"), io::ErrorKind::FileTooLarge);
        assert_eq!(kind("/"), io::ErrorKind::IsADirectory);
    }
}
