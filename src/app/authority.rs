//! Owns how the certificate authority comes to be: read, made, or kept in memory, and its trust files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::StartError;
use super::settings::Settings;
use super::state::StateDir;
use crate::config::root::NameConstraintsMode;
use crate::policy::compile::compile;
use crate::policy::engine::Engine;
use crate::rt::file::cure_of;
use crate::tls::authority::{
    CertificateAuthority, Constraints, EPHEMERAL_LIFETIME, PERSISTENT_LIFETIME,
};
use crate::tls::error::CaError;
use crate::tls::roots::SystemRoots;
use crate::tls::trust::{TrustFiles, bundle_pem, write_trust};
use crate::types::cure::Cure;
use crate::types::host::{Host, HostPattern};

/// How the authority comes to be.
pub enum CaChoice {
    /// As `TollgateConfig` says.
    Configured,
    /// In memory, its certificate written to this directory.
    Ephemeral(PathBuf),
}

/// When the authority was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// By this start.
    Now,
    /// Earlier.
    Before,
}

/// The name in the certificate, as people see it in a trust store.
const COMMON_NAME: &str = "Tollgate CA";

/// Opens or makes the authority and writes what agents trust.
pub fn open_authority(
    settings: &Settings,
    policy: &Engine,
    choice: CaChoice,
) -> Result<(CertificateAuthority, TrustFiles, Made), StartError> {
    let constraints = constraints(settings, policy);
    let ephemeral = match choice {
        CaChoice::Ephemeral(dir) => Some((dir, EPHEMERAL_LIFETIME)),
        // A sidecar lives as long as its pod, and has no other way to a new authority than a start.
        CaChoice::Configured => {
            let dir = settings.root.spec.ca.ephemeral_dir.clone();
            dir.map(|dir| (dir, PERSISTENT_LIFETIME))
        }
    };
    let (authority, dir, made) = match ephemeral {
        Some((dir, lifetime)) => {
            let name = "Tollgate ephemeral CA";
            (
                CertificateAuthority::generate(&constraints, name, lifetime).map_err(failed)?,
                dir,
                Made::Now,
            )
        }
        None => {
            let (certificate, key) = authority_files(settings);
            state(settings).create()?;
            let opened = CertificateAuthority::load_or_create(
                &certificate,
                &key,
                &constraints,
                COMMON_NAME,
                PERSISTENT_LIFETIME,
            );
            let (authority, created) = opened.map_err(failed)?;
            let made = if created { Made::Now } else { Made::Before };
            if created {
                tracing::info!(certificate = %certificate.display(), "made a certificate authority");
            }
            (authority, trust_dir(settings), made)
        }
    };
    let pem = authority.certificate_pem();
    let trust = write_trust(&dir, pem, &bundle_pem(pem, SystemRoots::load())).map_err(|error| {
        StartError::of(
            cure_of(&error),
            format!("the trust files cannot be written to {}: {error}", dir.display()),
            "mount a writable volume with room there, or set ca.ephemeralDir or stateDir to another directory",
        )
    })?;
    Ok((authority, trust, made))
}

/// The authority that is there already; nothing is made.
pub fn open_configured_authority(settings: &Settings) -> Result<CertificateAuthority, StartError> {
    let (certificate, key) = authority_files(settings);
    if !certificate.exists() && !key.exists() {
        return Err(StartError::setting(
            format!("there is no authority at {}", certificate.display()),
            "`tollgate ca init` makes one; so does the first `tollgate serve`",
        ));
    }
    CertificateAuthority::load(&certificate, &key).map_err(failed)
}

/// Makes an authority from the policy as it stands now; one that was there is kept beside it as `*.old`.
pub fn replace_authority(settings: &Settings) -> Result<CertificateAuthority, StartError> {
    let policy = compile(&settings.bundle()?)?;
    let (certificate, key) = authority_files(settings);
    for file in [&key, &certificate] {
        let mut old = file.clone().into_os_string();
        old.push(".old");
        match std::fs::rename(file, &old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StartError::setting(
                    format!("{} cannot be put aside: {error}", file.display()),
                    "run this as the user that owns it",
                ));
            }
            _ => {}
        }
    }
    state(settings).create()?;
    let constraints = constraints(settings, &policy);
    CertificateAuthority::load_or_create(
        &certificate,
        &key,
        &constraints,
        COMMON_NAME,
        PERSISTENT_LIFETIME,
    )
    .map(|(authority, _)| authority)
    .map_err(failed)
}

/// Where certificate and key are.
pub fn authority_files(settings: &Settings) -> (PathBuf, PathBuf) {
    let (spec, state) = (&settings.root.spec.ca, state(settings));
    let file = |named: &Option<PathBuf>, name: &str| {
        named
            .as_deref()
            .map_or_else(|| state.file(name), Path::to_path_buf)
    };
    (
        file(&spec.certificate_file, "ca.crt"),
        file(&spec.key_file, "ca.key"),
    )
}

/// Where agents find `ca.crt` and `bundle.crt`.
pub fn trust_dir(settings: &Settings) -> PathBuf {
    let ephemeral = settings.root.spec.ca.ephemeral_dir.clone();
    ephemeral.unwrap_or_else(|| state(settings).file("trust"))
}

fn state(settings: &Settings) -> StateDir {
    StateDir::locate(settings.root.spec.state_dir.as_deref())
}

fn constraints(settings: &Settings, policy: &Engine) -> Constraints {
    match settings.root.spec.ca.name_constraints {
        NameConstraintsMode::Policy => Constraints::Names(policy.signed_hosts()),
        NameConstraintsMode::Off => Constraints::Off,
    }
}

fn failed(error: CaError) -> StartError {
    let help = error.help().unwrap_or_else(|| {
        "check the owner and mode of that path, and that there is room; stateDir, ca.certificateFile and ca.keyFile say where the authority is kept"
            .to_owned()
    });
    let cause = std::error::Error::source(&error)
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    let cure = match &error {
        CaError::Io { source, .. } => cure_of(source),
        _ => Cure::Change,
    };
    StartError::of(cure, format!("{error}{cause}"), help)
}

/// Which names the authority may sign, for [`Engine::signed_by`].
pub fn signer(
    authority: &Arc<CertificateAuthority>,
) -> impl Fn(&Host) -> bool + Send + Sync + use<> {
    let authority = authority.clone();
    move |host| authority.covers(&HostPattern::Exact(host.clone()))
}

/// A name outside the authority's constraints could be allowed and never served.
pub fn covers(authority: &CertificateAuthority, policy: &Engine) -> Result<(), StartError> {
    let outside: Vec<String> = policy
        .intercepted_hosts()
        .iter()
        .filter(|pattern| !authority.covers(pattern))
        .map(ToString::to_string)
        .collect();
    match outside.is_empty() {
        true => Ok(()),
        false => Err(StartError::setting(
            format!(
                "the certificate authority may not sign {}: its name constraints come from an older policy",
                outside.join(", ")
            ),
            "make a new one with `tollgate ca init --force` and give agents the new bundle, or set ca.nameConstraints: off",
        )),
    }
}
