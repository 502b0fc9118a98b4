//! Owns which files, directories and ports the process needs while it serves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::authority::{authority_files, trust_dir};
use super::given_up::place;
use super::settings::Settings;
use super::state::StateDir;
use crate::cluster::connect::{Surroundings, files};
use crate::config::named::NamedFiles;
use crate::config::otel_env::OtelEnv;
use crate::rt::confine::Borders;
use crate::rt::file;
use crate::rt::syscalls::Programs;

/// Read by libraries, at the start and later: names and addresses, the machine's authorities, time zones,
/// modules of the C library, cores and their quota, the process's own figures.
///
/// All of `/proc` is no way to other processes: Landlock refuses to look into those outside its borders.
const SYSTEM: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/opt/etc/ssl",
    "/usr/local/etc/ssl",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/dev/urandom",
    "/dev/random",
];

/// Written to by anybody.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full"];
/// Besides, by helper programs: temporary files. They have no terminal: nobody sits at the proxy's to answer them.
const FOR_PROGRAMS: &[&str] = &["/dev/shm", "/tmp", "/var/tmp"];

/// Makes the directories that are the process's own, as far as it can. A border is drawn around what is there.
pub fn make_own_directories(settings: &Settings) {
    let spec = &settings.root.spec;
    let state = StateDir::locate(spec.state_dir.as_deref());
    // What cannot be made is told by whoever needs it.
    state.create().ok();
    if let Some(directory) = &spec.ca.ephemeral_dir {
        file::make_private_dir(directory).ok();
    }
}

/// What is needed for these settings and for what their documents name.
pub fn borders(settings: &Settings, named: &NamedFiles<'_>, programs: Programs) -> Borders {
    let mut write = written(settings, named);
    if programs == Programs::Started {
        write.extend(FOR_PROGRAMS.iter().map(PathBuf::from));
        let homes = ["HOME", "TMPDIR"].into_iter().filter_map(std::env::var_os);
        let homes = homes.map(PathBuf::from);
        // Where there is no home it is often said to be the root.
        write.extend(homes.filter(|home| home.is_absolute() && home.parent().is_some()));
    }
    let ports = [settings.listen().port(), settings.admin_listen().port()];
    Borders {
        read: read(settings, named),
        write,
        ports: ports.into(),
    }
}

fn read(settings: &Settings, named: &NamedFiles<'_>) -> BTreeSet<PathBuf> {
    let spec = &settings.root.spec;
    let otel = OtelEnv::of_process();
    let collector = [otel.certificate, otel.client_certificate, otel.client_key];
    let collector = collector.into_iter().flatten().map(PathBuf::from);
    let cluster = match named.cluster {
        true => files(&Surroundings::here()),
        false => Vec::new(),
    };
    let documents = settings.config_file.iter().chain(&settings.documents);
    let all = named
        .read
        .iter()
        .map(|named| named.path.to_owned())
        .chain(documents.cloned())
        .chain(collector)
        .chain(cluster);
    let mut read: BTreeSet<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    read.extend(all.flat_map(|path| around(&path)));
    read.extend(spec.hardening.read.iter().map(|path| place(path)));
    read
}

fn written(settings: &Settings, named: &NamedFiles<'_>) -> BTreeSet<PathBuf> {
    let spec = &settings.root.spec;
    let state = StateDir::locate(spec.state_dir.as_deref());
    let (certificate, key) = authority_files(settings);
    let own = [
        certificate,
        key,
        trust_dir(settings).join("ca.crt"),
        state.file("admin.token"),
        settings.grants.join("grant"),
    ];
    let written = named.written.iter().map(|named| named.path.to_owned());
    let mut write: BTreeSet<PathBuf> = DEVICES.iter().map(PathBuf::from).collect();
    write.extend(written.chain(own).filter_map(|path| beside(&path)));
    write.extend(spec.hardening.write.iter().map(|path| place(path)));
    write
}

/// The directories around a file or a directory of documents, so that what takes its place is within them:
/// files are replaced by renaming, directories by renaming or by links that are turned elsewhere
/// (`current -> releases/7`, Kubernetes' `..data`).
fn around(path: &Path) -> BTreeSet<PathBuf> {
    /// As many as the kernel follows.
    const LINKS: usize = 40;
    let mut found = BTreeSet::new();
    let mut at = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..LINKS {
        let Some((holder, target)) = first_link(&at) else {
            break;
        };
        found.extend(Some(holder).filter(|holder| !is_wide(holder)));
        at = target;
    }
    match std::fs::canonicalize(&at) {
        Ok(directory) if directory.is_dir() => {
            let holder = file::parent(&directory).to_owned();
            found.extend(Some(holder).filter(|holder| !is_wide(holder)));
            found.insert(directory);
        }
        _ => found.extend(beside(&at)),
    }
    found
}

/// The directory a file is in, or the nearest above it that is there.
fn beside(path: &Path) -> Option<PathBuf> {
    let real = place(path);
    let mut above = real.ancestors().skip(1);
    let there = above.find(|above| above.is_dir())?;
    // Everything would be no border.
    (there.parent().is_some()).then(|| there.to_owned())
}

/// The first link of a path: the directory it lies in, and the path with the link followed.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut walked = PathBuf::new();
    let mut rest = path.components();
    while let Some(component) = rest.next() {
        let holder = walked.clone();
        walked.push(component);
        if let Ok(target) = std::fs::read_link(&walked) {
            let followed = holder.join(target).join(rest.as_path());
            return Some((holder, followed));
        }
    }
    None
}

/// Whether a directory holds much that is others' business: the root, those directly below it, a home.
fn is_wide(directory: &Path) -> bool {
    let home = std::env::var_os("HOME").is_some_and(|home| directory == Path::new(&home));
    home || directory.components().count() < 3
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_takes_the_place_of_a_file_or_directory_is_within_the_borders() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| root.join(name);
        for name in ["mount/..7", "releases/1/secrets", "links", "policies"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("mount/..7/key"), "").unwrap();
        fs::write(at("releases/1/secrets/key"), "").unwrap();
        fs::write(at("plain"), "").unwrap();
        symlink("..7", at("mount/..data")).unwrap();
        symlink("..data/key", at("mount/key")).unwrap();
        symlink(at("releases/1"), at("links/current")).unwrap();
        let table: &[(&str, &[&str])] = &[
            ("plain", &[""]),
            ("mount/key", &["mount", "mount/..7"]),
            (
                "links/current/secrets/key",
                &["links", "releases/1/secrets"],
            ),
            ("policies", &["", "policies"]),
            ("not/there/yet", &[""]),
        ];
        for (path, wanted) in table {
            let wanted: BTreeSet<PathBuf> = wanted.iter().map(|name| place(&at(name))).collect();
            assert_eq!(around(&at(path)), wanted, "{path}");
        }
        assert_eq!(around(Path::new("/not/there")), BTreeSet::new());
        assert_eq!(around(Path::new("/usr")), [PathBuf::from("/usr")].into());
    }
}
