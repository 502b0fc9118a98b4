//! Owns the words in which a file store says what is wrong: which store, which mount, and what to do.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::record::RecordError;
use super::sealing::{KeyFileError, OpenError};
use super::store::StoreError;
use crate::rt::file;
use crate::rt::mounts::{self, Mount};

/// What went wrong, before anybody has looked where.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The system refused.
    System(Action, io::Error),
    /// The path names a directory.
    Directory,
    /// It names a device, a pipe or a socket.
    NotAFile,
    /// It is a symbolic link to nothing.
    Dangling(PathBuf),
    /// The file itself is a mount point; nothing can be renamed over it.
    SingleFile,
    /// Others may read it; its permission bits.
    Exposed(u32),
    /// Another user owns it; replacing it would lock that user out.
    Foreign(u32),
    /// It is larger than any record.
    TooLarge,
    /// It is no record.
    Record(RecordError),
    /// The key file cannot be used.
    KeyFile(KeyFileError),
    /// It is sealed and no key file is set.
    KeyMissing,
    /// The key file does not open it.
    Sealed(PathBuf, OpenError),
    /// What should be written is no record.
    Encoding(RecordError),
    /// It could not be sealed.
    Sealing,
    /// Somebody removed the lock file.
    LockLost,
}

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Lock,
    Write,
}

/// What surrounds a store when something is wrong.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    /// The store's path as configured.
    path: PathBuf,
    /// The directory it really stands in, or the nearest one above it that is there.
    directory: PathBuf,
    /// Who owns that directory, and its permission bits.
    owner: Option<(u32, u32)>,
    /// Who this process is.
    user: u32,
    mount: Option<Mount>,
    /// Kubernetes keeps a Secret's files behind a link named `..data`.
    secret_volume: bool,
}

impl Scene {
    /// Looks at what surrounds `path`.
    pub(super) fn look(path: &Path) -> Self {
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let existing = |directory: &&Path| directory.is_dir();
        let directory = file::parent(&target).ancestors().find(existing);
        let directory = std::fs::canonicalize(directory.unwrap_or(Path::new("/")));
        let directory = directory.unwrap_or_else(|_| PathBuf::from("/"));
        let metadata = std::fs::metadata(&directory).ok();
        Self {
            path: path.to_owned(),
            owner: metadata.map(|m| (m.uid(), m.mode() & 0o7777)),
            user: rustix::process::geteuid().as_raw(),
            mount: mounts::of(&directory),
            secret_volume: file::parent(path).join("..data").is_symlink(),
            directory,
        }
    }

    /// What to tell people, and which kind of failure it is.
    pub(super) fn explain(&self, trouble: &Trouble) -> StoreError {
        let path = self.path.display();
        match trouble {
            Trouble::System(action, error) => self.explain_system(*action, error),
            Trouble::Directory => StoreError::Unreadable(format!(
                "{self} is a directory: set store.file.path to a file in it, such as {}",
                self.path.join("grant.json").display()
            )),
            Trouble::NotAFile => StoreError::Unreadable(format!("{self} is no regular file")),
            Trouble::Dangling(target) => StoreError::Unreadable(format!(
                "{self} is a symbolic link to {}, which is not there: remove the link, or set store.file.path \
                 to the file itself",
                target.display()
            )),
            Trouble::SingleFile => StoreError::ReadOnly(format!(
                "{self} is mounted as a single file (subPath, docker -v FILE:FILE) and can therefore not be \
                 replaced by a new one: mount its directory instead"
            )),
            Trouble::Exposed(mode) => StoreError::Unreadable(format!(
                "{self} is readable by others (mode {mode:04o}): chmod 600 {path}"
            )),
            Trouble::Foreign(owner) => StoreError::ReadOnly(format!(
                "{self} belongs to user {owner}, and this process is user {}: run it as that user, or chown \
                 the file",
                self.user
            )),
            Trouble::TooLarge => {
                StoreError::Unreadable(format!("{self} is larger than 1 MiB: no grant record is"))
            }
            Trouble::Record(error @ RecordError::Malformed(_)) => StoreError::Unreadable(format!(
                "{self} cannot be used: {error}; restore it, or move it away and log in again"
            )),
            Trouble::Record(error) => {
                StoreError::Unreadable(format!("{self} cannot be used: {error}"))
            }
            Trouble::KeyFile(error) => {
                StoreError::Unreadable(format!("{self} cannot be used: {error}"))
            }
            Trouble::KeyMissing => StoreError::Unreadable(format!(
                "{self} is encrypted: set store.file.keyFile to the key file it was encrypted with"
            )),
            Trouble::Sealed(key_file, error) => StoreError::Unreadable(format!(
                "the key file {} does not open {self}: {error}",
                key_file.display()
            )),
            Trouble::Encoding(error) => {
                StoreError::Unavailable(format!("{self} cannot be written: {error}"))
            }
            Trouble::Sealing => StoreError::Unavailable(format!("{self} cannot be encrypted")),
            Trouble::LockLost => {
                StoreError::LockLost(format!("{self} (its lock file was removed)"))
            }
        }
    }

    fn explain_system(&self, action: Action, error: &io::Error) -> StoreError {
        let (on, at) = (self.on(), self.at());
        match Errno::from_io_error(error) {
            Some(Errno::ROFS) => StoreError::ReadOnly(format!(
                "{self} is on a read-only mount{at}: {}",
                self.remedy_read_only()
            )),
            Some(Errno::ACCESS | Errno::PERM) if action == Action::Read => {
                let path = self.path.display();
                let user = self.user;
                StoreError::Unreadable(format!(
                    "{self} cannot be read by user {user}, who runs this process: chown {user} {path}"
                ))
            }
            Some(Errno::ACCESS | Errno::PERM) => StoreError::ReadOnly(format!(
                "{self} cannot be {action}: {error}{}: {}",
                self.whose(),
                self.remedy_permission()
            )),
            Some(Errno::NOSPC | Errno::DQUOT) => StoreError::Full(format!(
                "there is no room for {self}{on}: free space or inodes, or mount a larger volume; what is \
                 stored there stays as it is"
            )),
            Some(Errno::BUSY) => self.explain(&Trouble::SingleFile),
            Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL)
                if action == Action::Lock =>
            {
                StoreError::ReadOnly(format!(
                    "{self} cannot be locked{on}: this mount has no flock(2), and without it two processes \
                     would redeem one token; set store.file.path to a file on a local disk"
                ))
            }
            _ => StoreError::Unavailable(format!("{self} cannot be {action}{on}: {error}")),
        }
    }

    fn remedy_read_only(&self) -> &'static str {
        match &self.mount {
            mount if self.secret_volume || mount.as_ref().is_some_and(|m| m.kind == "tmpfs") => {
                "a Secret volume is always read-only; mount a PersistentVolumeClaim or use \
                 store.kubernetesSecret"
            }
            Some(mount) if mount.point == Path::new("/") => {
                "the root file system of a container often is; mount a volume and set store.file.path to a \
                 file on it"
            }
            _ => {
                "mount it for writing, or set store.file.path to a file on a mount that is; the kernel also \
                 makes a disk with errors read-only (see dmesg)"
            }
        }
    }

    fn remedy_permission(&self) -> String {
        if self.secret_volume {
            return "a Secret volume cannot be written; mount a PersistentVolumeClaim or use \
                    store.kubernetesSecret"
                .to_owned();
        }
        let (user, directory) = (self.user, self.directory.display());
        format!("chown {user} {directory}, or set securityContext.fsGroup of the pod")
    }

    fn whose(&self) -> String {
        let Some((owner, mode)) = self.owner else {
            return String::new();
        };
        let (directory, user) = (self.directory.display(), self.user);
        format!(
            " ({directory} belongs to user {owner}, mode {mode:04o}; this process is user {user})"
        )
    }

    /// ` on /data (ext4)`
    fn on(&self) -> String {
        let on = |m: &Mount| format!(" on {} ({})", m.point.display(), kind(m));
        self.mount.as_ref().map(on).unwrap_or_default()
    }

    /// ` (/data, ext4)`
    fn at(&self) -> String {
        let at = |m: &Mount| format!(" ({}, {})", m.point.display(), kind(m));
        self.mount.as_ref().map(at).unwrap_or_default()
    }

    /// Why what is written there would not be there later, if that can be told from the mount. A
    /// Kubernetes `emptyDir` on disk cannot be told from any other volume.
    pub(super) fn durability_warning(&self) -> Option<String> {
        let mount = self.mount.as_ref()?;
        let (what, whose) = match mount.kind.as_str() {
            "tmpfs" | "ramfs" => ("in memory", "the machine or the pod"),
            "overlay" | "fuse-overlayfs" | "aufs" => {
                ("in a container's own layer", "the container")
            }
            _ => return None,
        };
        Some(format!(
            "{self} is {what}{} and is lost when {whose} ends; set store.file.path to a file on a disk or a \
             PersistentVolumeClaim, or use store.kubernetesSecret",
            self.at()
        ))
    }
}

/// `nfs4 from server:/export`; the source only where it means something.
fn kind(mount: &Mount) -> String {
    match mount.source.contains(['/', ':']) {
        true => format!("{} from {}", mount.kind, mount.source),
        false => mount.kind.clone(),
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token store {}", self.path.display())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Lock => "locked",
            Self::Write => "written",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(point: &str, kind: &str, source: &str) -> Scene {
        Scene {
            path: PathBuf::from("/data/grant.json"),
            directory: PathBuf::from("/data"),
            owner: Some((0, 0o755)),
            user: 65532,
            mount: Some(Mount {
                point: PathBuf::from(point),
                kind: kind.to_owned(),
                source: source.to_owned(),
            }),
            secret_volume: false,
        }
    }

    fn system(action: Action, errno: Errno) -> Trouble {
        Trouble::System(action, errno.into())
    }

    #[test]
    fn troubles_name_the_mount_and_what_to_do() {
        let disk = scene("/data", "ext4", "/dev/sda1");
        let secret = Scene {
            path: PathBuf::from("/var/run/secrets/x/grant.json"),
            secret_volume: true,
            ..scene("/run/secrets/x", "tmpfs", "tmpfs")
        };
        let config_map = Scene {
            secret_volume: true,
            ..disk.clone()
        };
        let root = scene("/", "overlay", "overlay");
        let network = scene("/data", "nfs4", "server:/export");
        let unknown = Scene {
            mount: None,
            owner: None,
            ..disk.clone()
        };
        let write = |errno| system(Action::Write, errno);
        let read_only = |text: &str| StoreError::ReadOnly(text.to_owned());
        let unreadable = |text: &str| StoreError::Unreadable(text.to_owned());
        let full = |text: &str| StoreError::Full(text.to_owned());
        let unavailable = |text: &str| StoreError::Unavailable(text.to_owned());
        let cases = [
            (
                &secret,
                system(Action::Lock, Errno::ROFS),
                read_only(
                    "the token store /var/run/secrets/x/grant.json is on a read-only mount (/run/secrets/x, tmpfs): \
                 a Secret volume is always read-only; mount a PersistentVolumeClaim or use \
                 store.kubernetesSecret",
                ),
            ),
            (
                &root,
                write(Errno::ROFS),
                read_only(
                    "the token store /data/grant.json is on a read-only mount (/, overlay): the root file system of \
                 a container often is; mount a volume and set store.file.path to a file on it",
                ),
            ),
            (
                &disk,
                write(Errno::ROFS),
                read_only(
                    "the token store /data/grant.json is on a read-only mount (/data, ext4 from /dev/sda1): mount it \
                 for writing, or set store.file.path to a file on a mount that is; the kernel also makes a \
                 disk with errors read-only (see dmesg)",
                ),
            ),
            (
                &disk,
                write(Errno::ACCESS),
                read_only(
                    "the token store /data/grant.json cannot be written: Permission denied (os error 13) (/data \
                 belongs to user 0, mode 0755; this process is user 65532): chown 65532 /data, or set \
                 securityContext.fsGroup of the pod",
                ),
            ),
            (
                &config_map,
                system(Action::Lock, Errno::ACCESS),
                read_only(
                    "the token store /data/grant.json cannot be locked: Permission denied (os error 13) (/data \
                 belongs to user 0, mode 0755; this process is user 65532): a Secret volume cannot be \
                 written; mount a PersistentVolumeClaim or use store.kubernetesSecret",
                ),
            ),
            (
                &disk,
                system(Action::Read, Errno::ACCESS),
                unreadable(
                    "the token store /data/grant.json cannot be read by user 65532, who runs this process: chown \
                 65532 /data/grant.json",
                ),
            ),
            (
                &disk,
                write(Errno::NOSPC),
                full(
                    "there is no room for the token store /data/grant.json on /data (ext4 from /dev/sda1): free \
                 space or inodes, or mount a larger volume; what is stored there stays as it is",
                ),
            ),
            (
                &network,
                system(Action::Lock, Errno::NOLCK),
                read_only(
                    "the token store /data/grant.json cannot be locked on /data (nfs4 from server:/export): this \
                 mount has no flock(2), and without it two processes would redeem one token; set \
                 store.file.path to a file on a local disk",
                ),
            ),
            (
                &disk,
                write(Errno::BUSY),
                read_only(
                    "the token store /data/grant.json is mounted as a single file (subPath, docker -v FILE:FILE) \
                 and can therefore not be replaced by a new one: mount its directory instead",
                ),
            ),
            (
                &network,
                write(Errno::IO),
                unavailable(
                    "the token store /data/grant.json cannot be written on /data (nfs4 from server:/export): \
                 Input/output error (os error 5)",
                ),
            ),
            (
                &unknown,
                write(Errno::DQUOT),
                full(
                    "there is no room for the token store /data/grant.json: free space or inodes, or mount a \
                 larger volume; what is stored there stays as it is",
                ),
            ),
        ];
        for (scene, trouble, told) in cases {
            assert_eq!(scene.explain(&trouble), told, "{trouble:?}");
        }
    }

    #[test]
    fn a_mount_that_does_not_last_is_told_from_one_that_may() {
        let warning = |point, kind| scene(point, kind, "none").durability_warning();
        let memory = "the token store /data/grant.json is in memory (/data, tmpfs) and is lost when the machine or the \
                      pod ends; set store.file.path to a file on a disk or a PersistentVolumeClaim, or use \
                      store.kubernetesSecret";
        assert_eq!(warning("/data", "tmpfs").as_deref(), Some(memory));
        let layer = warning("/", "overlay").unwrap();
        assert!(layer.contains(
            "is in a container's own layer (/, overlay) and is lost when the container ends"
        ));
        for kind in ["ext4", "xfs", "nfs4", "btrfs", "ceph"] {
            assert_eq!(warning("/data", kind), None);
        }
    }
}
