//! Owns the state directory: keys and tokens that are made once and kept, readable by nobody else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::StartError;
use crate::types::secret::Secret;

/// The directory that outlives the process.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The directory as configured, or where the XDG base directory specification puts it.
    pub fn locate(configured: Option<&Path>) -> Self {
        let from = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let path = configured
            .map(Path::to_path_buf)
            .or_else(|| from("XDG_STATE_HOME").map(|dir| dir.join("tollgate")))
            .or_else(|| from("HOME").map(|home| home.join(".local/state/tollgate")))
            .unwrap_or_else(|| PathBuf::from("/var/lib/tollgate"));
        Self(path)
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the directory with mode 0700 if it is not there.
    pub fn create(&self) -> Result<(), StartError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|error| {
                StartError::setting(
                    format!(
                        "the state directory {} cannot be made: {error}",
                        self.0.display()
                    ),
                    "set stateDir to a directory this user can write, or mount a volume there",
                )
            })
    }

    /// Reads a generated secret, or makes it: 32 random bytes in hexadecimal.
    pub fn secret(&self, name: &str) -> Result<Secret, StartError> {
        if let Some(secret) = self.existing_secret(name)? {
            return Ok(secret);
        }
        let path = self.file(name);
        self.create()?;
        let secret = random_hex()?;
        write(&path, secret.expose()).map_err(|error| {
            StartError::setting(
                format!("{} cannot be written: {error}", path.display()),
                "set stateDir to a directory this user can write",
            )
        })?;
        Ok(secret)
    }

    /// Reads a generated secret that is there already.
    pub fn existing_secret(&self, name: &str) -> Result<Option<Secret>, StartError> {
        let path = self.file(name);
        match read(&path) {
            Ok(secret) => Ok(Some(secret)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StartError::setting(
                format!("{} cannot be used: {error}", path.display()),
                format!(
                    "chmod 600 {0}, or remove it to have a new one made",
                    path.display()
                ),
            )),
        }
    }
}

/// 32 random bytes in hexadecimal.
pub fn random_hex() -> Result<Secret, StartError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
        StartError::setting("the system has no random numbers", "check /dev/urandom")
    })?;
    Ok(Secret::from(
        bytes.iter().map(|b| format!("{b:02x}")).collect::<String>(),
    ))
}

fn read(path: &Path) -> io::Result<Secret> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o077;
    if mode != 0 {
        return Err(io::Error::other("others may read it"));
    }
    let text = fs::read(path)?;
    let text = text.trim_ascii();
    match text.len() {
        0..32 => Err(io::Error::other("it is empty or too short")),
        _ => Ok(Secret::new(text.to_vec())),
    }
}

/// Complete or not there at all: a crash in between leaves a temporary file behind, never a short key.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp.{}", std::process::id()));
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    // Linking instead of renaming: of two processes that start together the first one's key stays.
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir(dir.path().join("state"));
        let first = state.secret("admin.token").unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(state.secret("admin.token").unwrap(), first);
        let mode = fs::metadata(state.file("admin.token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn one_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir(dir.path().to_path_buf());
        state.secret("k").unwrap();
        fs::set_permissions(state.file("k"), fs::Permissions::from_mode(0o644)).unwrap();
        let Err(StartError::Setting { what, help }) = state.secret("k") else {
            panic!()
        };
        assert!(what.contains("others may read it") && help.unwrap().contains("chmod 600"));
    }
}
