//! Owns a grant's file on disk: what may be taken for one, and how it is locked, read and replaced.
//! Everything here blocks.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::file_trouble::{Action, Scene, Trouble};
use super::record::GrantRecord;
use super::sealing::{self, SealingKey};
use super::store::StoreError;
use crate::rt::file::{self, Contents, Temporary};
use crate::rt::lock::Lock;
use crate::rt::mounts;

/// A grant is a few kilobytes; a file this large is something else.
const MAX_RECORD: u64 = 1 << 20;
/// What is reserved besides twice the last record: a first login writes more than was there.
const ROOM: u64 = 16 << 10;
const MODE: u32 = 0o600;

/// Where a grant's file is, and what it is sealed with.
#[derive(Debug)]
pub(super) struct GrantFile {
    path: PathBuf,
    key_file: Option<PathBuf>,
}

impl GrantFile {
    pub(super) fn new(path: PathBuf, key_file: Option<PathBuf>) -> Self {
        Self { path, key_file }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at what surrounds the file and says what is wrong, and what to do.
    pub(super) fn explain(&self, trouble: &Trouble) -> StoreError {
        Scene::look(&self.path).explain(trouble)
    }

    /// What is kept now, without waiting for whoever holds the lock.
    pub(super) fn read(&self) -> Result<Option<GrantRecord>, Trouble> {
        let target = match resolve(&self.path) {
            Err(Trouble::System(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            outcome => outcome?,
        };
        let Some(contents) = contents(&target)? else {
            return Ok(None);
        };
        let key = match sealing::is_sealed(&contents.bytes) {
            true => self.key()?,
            false => None,
        };
        self.decode(&contents, key.as_ref()).map(Some)
    }

    /// Takes the lock unless another process has it. The key is read now: should it go away during
    /// a redeem, the new tokens can still be written.
    pub(super) fn try_lock(self: &Arc<Self>) -> Result<Option<Held>, Trouble> {
        let directory = file::parent(&self.path);
        file::make_private_dir(directory).map_err(system(Action::Write))?;
        let target = resolve(&self.path)?;
        refuse_foreign(&target)?;
        let lock_path = beside(&target, ".lock");
        let Some(lock) = Lock::try_file(&lock_path).map_err(system(Action::Lock))? else {
            return Ok(None);
        };
        file::remove_leftovers(&target).map_err(system(Action::Write))?;
        Ok(Some(Held {
            file: self.clone(),
            key: self.key()?,
            target,
            reserved: None,
            lock_path,
            lock,
        }))
    }

    /// Writes, syncs and renames beside the record without touching it. Another process that takes the lock
    /// meanwhile may clear the attempt away; it has then proved the same.
    pub(super) fn rehearse(&self) -> Result<(), Trouble> {
        match rehearse(&resolve(&self.path)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(system(Action::Write)),
        }
    }

    /// Finds what no attempt at writing beside the file would find.
    pub(super) fn inspect(&self) -> Result<(), Trouble> {
        let target = match resolve(&self.path) {
            Err(Trouble::System(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            outcome => outcome?,
        };
        match mounts::of(&target) {
            Some(mount) if mount.point == target => Err(Trouble::SingleFile),
            _ => Ok(()),
        }
    }

    fn key(&self) -> Result<Option<SealingKey>, Trouble> {
        let key = self.key_file.as_deref().map(SealingKey::load);
        key.transpose().map_err(Trouble::KeyFile)
    }

    fn decode(
        &self,
        contents: &Contents,
        key: Option<&SealingKey>,
    ) -> Result<GrantRecord, Trouble> {
        let opened;
        let plain = if sealing::is_sealed(&contents.bytes) {
            let key = key.ok_or(Trouble::KeyMissing)?;
            let key_file = || self.key_file.clone().unwrap_or_default();
            opened = key
                .open(&contents.bytes)
                .map_err(|error| Trouble::Sealed(key_file(), error))?;
            &opened
        } else {
            // Also with a key: so it was before there was one, and the next write seals it.
            &contents.bytes
        };
        GrantRecord::decode(plain).map_err(Trouble::Record)
    }
}

/// A grant's file while this process alone may write it. Dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Held {
    file: Arc<GrantFile>,
    key: Option<SealingKey>,
    /// The file itself, were the configured path a link.
    target: PathBuf,
    /// Dropped before the lock: it is removed while nobody else can be looking for leftovers.
    reserved: Option<Temporary>,
    lock_path: PathBuf,
    lock: Lock,
}

impl Held {
    pub(super) fn read(&self) -> Result<Option<GrantRecord>, Trouble> {
        let contents = contents(&self.target)?;
        let decode = |contents: Contents| self.file.decode(&contents, self.key.as_ref());
        contents.map(decode).transpose()
    }

    /// Takes the room that the next write needs.
    pub(super) fn reserve(&mut self) -> Result<(), Trouble> {
        if self.reserved.is_none() {
            self.reserved = Some(reserve(&self.target).map_err(system(Action::Write))?);
        }
        Ok(())
    }

    /// Replaces what is kept.
    pub(super) fn write(&mut self, plain: &Zeroizing<Vec<u8>>) -> Result<(), Trouble> {
        let sealed;
        let bytes = match &self.key {
            Some(key) => {
                sealed = key.seal(plain).map_err(|_| Trouble::Sealing)?;
                &sealed
            }
            None => plain,
        };
        if bytes.len() as u64 > MAX_RECORD {
            return Err(Trouble::TooLarge);
        }
        let locked = self.lock.is_at(&self.lock_path);
        if !locked.map_err(system(Action::Lock))? {
            return Err(Trouble::LockLost);
        }
        let put = |temporary: Temporary| {
            temporary.write(bytes, MODE)?;
            temporary.rename(&self.target)
        };
        // Somebody may have cleared the reserved one away; then there is the usual way still.
        if self
            .reserved
            .take()
            .is_some_and(|reserved| put(reserved).is_ok())
        {
            return Ok(());
        }
        let fresh = Temporary::beside(&self.target);
        fresh.and_then(put).map_err(system(Action::Write))
    }

    /// Proves that a record could be written, and takes back rights that a mount gave away.
    pub(super) fn rehearse(&self) -> Result<(), Trouble> {
        rehearse(&self.target).map_err(system(Action::Write))?;
        if let Some(contents) = contents(&self.target)?
            && contents.mode() & 0o077 != 0
        {
            let private = fs::Permissions::from_mode(MODE);
            fs::set_permissions(&self.target, private).map_err(system(Action::Write))?;
        }
        Ok(())
    }
}

fn system(action: Action) -> impl FnOnce(io::Error) -> Trouble {
    move |error| Trouble::System(action, error)
}

/// The file behind the path, which need not be there yet, but its directory must.
fn resolve(path: &Path) -> Result<PathBuf, Trouble> {
    let read = system(Action::Read);
    match fs::canonicalize(path) {
        Ok(target) => {
            let kind = fs::metadata(&target).map_err(read)?.file_type();
            match (kind.is_file(), kind.is_dir()) {
                (true, _) => Ok(target),
                (_, true) => Err(Trouble::Directory),
                _ => Err(Trouble::NotAFile),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Ok(target) = fs::read_link(path) {
                return Err(Trouble::Dangling(target));
            }
            let name = path.file_name().ok_or(Trouble::Directory)?;
            let directory = fs::canonicalize(file::parent(path)).map_err(read)?;
            Ok(directory.join(name))
        }
        Err(error) => Err(read(error)),
    }
}

fn contents(target: &Path) -> Result<Option<Contents>, Trouble> {
    let contents = match file::read(target, MAX_RECORD) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(Trouble::TooLarge),
        outcome => outcome.map_err(system(Action::Read))?,
    };
    let mode = contents.mode();
    match mode & 0o007 != 0 || mode & 0o070 != 0 && !opened_by_fs_group(&contents, target) {
        true => Err(Trouble::Exposed(mode)),
        false => Ok(Some(contents)),
    }
}

/// Whether Kubernetes gave the group its rights: with `fsGroup` the kubelet adds 0660 to every file of a
/// volume whenever it mounts it, and the set-group-id bit to every directory
/// (`SetVolumeOwnership` in pkg/volume/volume_linux.go). A restarted pod would else refuse its own file.
fn opened_by_fs_group(contents: &Contents, target: &Path) -> bool {
    const SET_GROUP_ID: u32 = 0o2000;
    fs::metadata(file::parent(target)).is_ok_and(|directory| {
        directory.mode() & SET_GROUP_ID != 0 && directory.gid() == contents.metadata.gid()
    })
}

fn refuse_foreign(target: &Path) -> Result<(), Trouble> {
    match fs::metadata(target) {
        Ok(metadata) if metadata.uid() != rustix::process::geteuid().as_raw() => {
            Err(Trouble::Foreign(metadata.uid()))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Trouble::System(Action::Read, error))
        }
        _ => Ok(()),
    }
}

fn reserve(target: &Path) -> io::Result<Temporary> {
    let kept = match fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        outcome => outcome?.len(),
    };
    let temporary = Temporary::beside(target)?;
    temporary.reserve(2 * kept + ROOM)?;
    Ok(temporary)
}

fn rehearse(target: &Path) -> io::Result<()> {
    let (source, over) = (reserve(target)?, Temporary::beside(target)?);
    source.write(b"Tollgate tries whether it can write here.\n", MODE)?;
    source.rename(over.path())
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(target.file_name().unwrap_or_default());
    name.push(suffix);
    target.with_file_name(name)
}
