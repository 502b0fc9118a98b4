//! Owns a small file system of a test's own: it can be filled, and mounted read-only.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::clients::skip;
use super::operator::{PATIENCE, until};

/// A mounted tmpfs; unmounted when dropped.
pub struct Volume {
    dir: TempDir,
}

impl Volume {
    /// Of so many KiB; nothing, and a visible skip, where tests may not mount.
    pub fn mounted(kib: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={kib}k,mode=0700");
        match mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], dir.path()) {
            Ok(()) => Some(Self { dir }),
            Err(why) => {
                skip("mount", &why);
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut file = File::create(self.file("ballast")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    }

    pub fn make_room(&self) {
        fs::remove_file(self.file("ballast")).unwrap();
    }

    /// As an administrator does, or a kernel that found errors. It cannot be done while a file is open for writing.
    pub async fn remount(&self, mode: &str) {
        until(&format!("mounted {mode}"), PATIENCE, async || {
            mount(&["-o", &format!("remount,{mode}")], self.path()).is_ok()
        })
        .await;
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}

fn mount(args: &[&str], at: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(args).arg(at).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("mount(8): {error}")),
    }
}
