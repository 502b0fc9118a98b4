//! Owns the state directory: keys and tokens that are made once and kept, readable by nobody else.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::StartError;
use crate::rt::file;
use crate::types::secret::Secret;

/// Far above any key.
const READ_LIMIT: u64 = 64 << 10;

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
        file::make_private_dir(&self.0).map_err(|error| {
            StartError::of(
                file::cure_of(&error),
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
            StartError::of(
                file::cure_of(&error),
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
    let contents = file::read(path, READ_LIMIT)?;
    if contents.mode() & 0o077 != 0 {
        return Err(io::Error::other("others may read it"));
    }
    let text = contents.bytes.trim_ascii();
    match text.len() {
        0..32 => Err(io::Error::other("it is empty or too short")),
        _ => Ok(Secret::new(text.to_vec())),
    }
}

/// Complete or not there at all; of two processes that start together the first one's key stays.
fn write(path: &Path, secret: &[u8]) -> io::Result<()> {
    let line = Zeroizing::new([secret, b"\n"].concat());
    file::create(path, &line, 0o600)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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
