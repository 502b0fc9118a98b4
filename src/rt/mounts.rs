//! Owns what the system says about the mount that a path is on, so that errors can name it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file system's type: `ext4`, `tmpfs`, `overlay`, `nfs4`.
    pub kind: String,
    /// What is mounted: a device, a server's export, or a word without meaning.
    pub source: String,
}

/// The mount that an absolute path without links is on. Nothing where `/proc` does not tell.
pub fn of(path: &Path) -> Option<Mount> {
    find(&std::fs::read("/proc/self/mountinfo").ok()?, path)
}

/// Looks it up in the text of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
pub fn find(table: &[u8], path: &Path) -> Option<Mount> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .filter(|mount| path.starts_with(&mount.point))
        // Of several at one place the last one hides the others; `max_by_key` keeps the last.
        .max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`: the fields before the dash vary.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    let mut after_dash = fields.skip_while(|field| *field != b"-").skip(1);
    let mut text = || Some(String::from_utf8_lossy(&unescape(after_dash.next()?)).into_owned());
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        kind: text()?,
        source: text()?,
    })
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'\\').then(|| octal(after)).flatten();
        plain.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = br"22 1 0:21 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b
23 22 0:22 / /proc rw - proc proc rw
24 22 259:1 /vol /data rw,noatime shared:1 master:2 - ext4 /dev/nvme1n1 rw
25 24 0:30 / /data/in\040memory rw - tmpfs tmpfs rw,size=64k
26 22 0:31 / /run/secrets/x ro - tmpfs none rw
27 22 0:32 / /twice rw - ext4 /dev/below rw
28 27 0:33 / /twice rw - nfs4 server:/export rw
torn line
";

    #[test]
    fn a_path_is_on_the_innermost_mount_above_it() {
        for (path, point, kind, source) in [
            ("/x", "/", "overlay", "overlay"),
            ("/database/x", "/", "overlay", "overlay"),
            ("/data", "/data", "ext4", "/dev/nvme1n1"),
            ("/data/a/b", "/data", "ext4", "/dev/nvme1n1"),
            ("/data/in memory/x", "/data/in memory", "tmpfs", "tmpfs"),
            ("/run/secrets/x/..d/k", "/run/secrets/x", "tmpfs", "none"),
            ("/twice/x", "/twice", "nfs4", "server:/export"),
        ] {
            let mount = find(TABLE, Path::new(path)).unwrap();
            let Mount {
                point: at,
                kind: of,
                source: from,
            } = &mount;
            assert_eq!(
                (at.as_path(), of.as_str(), from.as_str()),
                (Path::new(point), kind, source),
                "{path}"
            );
        }
        assert_eq!(find(TABLE, Path::new("relative")), None);
        assert!(of(Path::new("/proc/self")).is_some_and(|mount| mount.kind == "proc"));
    }
}
