//! Owns the environment's secrets: they are taken out of the process before it does anything else.
//!
//! Removing a variable leaves its value in `/proc/PID/environ`, which is the memory the kernel set up
//! at start. So the process starts itself once more without them, and hands them over in an
//! anonymous file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustix::fs::{MemfdFlags, memfd_create};
use zeroize::Zeroizing;

use crate::config::bundle::Bundle;
use crate::config::otel_env::HEADER_VARIABLES;
use crate::config::root::TollgateConfigSpec;
use crate::config::source::SourceSpec;
use crate::credential::env::SealedEnv;
use crate::types::secret::Secret;

/// Names the descriptor that holds the sealed variables.
const HANDOVER: &str = "TOLLGATE_SEALED_FD";
/// What `/proc/PID/fd` calls it.
const MEMORY_FILE: &str = "tollgate-sealed";

/// Every variable that a document names as a source, and those that hold secrets by what they are.
pub fn names(root: &TollgateConfigSpec, bundle: &Bundle) -> BTreeSet<String> {
    let credentials = bundle
        .credentials
        .iter()
        .filter_map(|c| c.spec.source.as_ref().map(|s| &s.value));
    let own = [
        root.admin.token.as_ref(),
        root.placeholders.key.as_ref(),
        root.audit.signing_key.as_ref(),
    ]
    .into_iter()
    .flatten();
    let agents = root.identity.agents.iter().map(|agent| &agent.token);
    let collector = root.telemetry.otlp.headers.values();
    let named = credentials
        .chain(own)
        .chain(agents)
        .chain(collector)
        .flat_map(SourceSpec::with_nested)
        .filter_map(|source| match source {
            SourceSpec::Env { name } => Some(name.clone()),
            _ => None,
        });
    // What a collector is shown may be a secret, and nobody has to name these.
    let headers = HEADER_VARIABLES.map(str::to_owned);
    named.chain(headers).collect()
}

/// Returns the sealed variables, starting the process over without them if they still stand in its
/// environment. Does not return in that case unless starting over fails.
pub fn seal(names: &BTreeSet<String>) -> io::Result<SealedEnv> {
    let mut sealed = received()?;
    let open: Vec<(&String, OsString)> = names
        .iter()
        .filter_map(|name| std::env::var_os(name).map(|value| (name, value)))
        .collect();
    if open.is_empty() {
        return Ok(SealedEnv::new(sealed));
    }
    for (name, value) in &open {
        sealed.insert((*name).clone(), Secret::new(value.as_bytes().to_vec()));
    }
    let remove = std::env::vars_os()
        .filter(|(name, value)| {
            names.contains(&*name.to_string_lossy()) || holds_one(value, sealed.values())
        })
        .map(|(name, _)| name);
    Err(start_over(&sealed, remove))
}

/// Whether a variable's value is one of the secrets, or has one in it: people export a key under a
/// second name, or write it into a URL. Short ones could be in anything.
pub fn holds_one<'a>(value: &OsStr, mut secrets: impl Iterator<Item = &'a Secret>) -> bool {
    let holds = |needle: &[u8]| memchr::memmem::find(value.as_bytes(), needle).is_some();
    secrets.any(|secret| {
        let secret = secret.expose();
        secret.len() >= 16 && (holds(secret) || encoded(secret).iter().any(|form| holds(form)))
    })
}

/// What base64 makes of a secret wherever it stands in a text (`user:SECRET`), without the characters
/// that its neighbours have a part in.
fn encoded(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let form = |engine: &GeneralPurpose, offset: usize| {
        let padded = Zeroizing::new([&[0; 2][..offset], secret].concat());
        let whole = Zeroizing::new(engine.encode(&*padded).into_bytes());
        let (from, to) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
        Zeroizing::new(whole[from..to].to_vec())
    };
    let engines = [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD];
    engines
        .into_iter()
        .flat_map(|engine| (0..3).map(move |offset| form(engine, offset)))
        .collect()
}

fn received() -> io::Result<BTreeMap<String, Secret>> {
    let Some(descriptor) = std::env::var_os(HANDOVER) else {
        return Ok(BTreeMap::new());
    };
    let foreign = || io::Error::other(format!("{HANDOVER} is set from outside; unset it"));
    let number = descriptor.to_str().and_then(|d| d.parse::<u32>().ok());
    let path = format!("/proc/self/fd/{}", number.ok_or_else(foreign)?);
    // Nothing but our own file may be emptied below.
    let named = format!("/memfd:{MEMORY_FILE}");
    let ours = std::fs::read_link(&path)
        .is_ok_and(|link| link.as_os_str().as_bytes().starts_with(named.as_bytes()));
    if !ours {
        return Err(foreign());
    }
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|_| foreign())?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.read_to_end(&mut bytes)?;
    // The descriptor itself stays open; what it led to is gone.
    file.set_len(0)?;
    Ok(parse(&bytes))
}

/// `NAME=value` pairs, each ended by NUL, which no environment value can hold.
fn parse(bytes: &[u8]) -> BTreeMap<String, Secret> {
    bytes
        .split(|b| *b == 0)
        .filter_map(|pair| {
            let at = pair.iter().position(|b| *b == b'=')?;
            let name = std::str::from_utf8(&pair[..at]).ok()?;
            Some((name.to_owned(), Secret::new(pair[at + 1..].to_vec())))
        })
        .collect()
}

fn start_over(
    sealed: &BTreeMap<String, Secret>,
    remove: impl Iterator<Item = OsString>,
) -> io::Error {
    let handed = memfd_create(MEMORY_FILE, MemfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|descriptor| {
            let mut file = File::from(descriptor);
            for (name, value) in sealed {
                file.write_all(name.as_bytes())?;
                file.write_all(b"=")?;
                file.write_all(value.expose())?;
                file.write_all(b"\0")?;
            }
            file.rewind()?;
            Ok(file)
        });
    let file = match handed {
        Ok(file) => file,
        Err(error) => return error,
    };
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    command.arg0(
        arguments
            .next()
            .unwrap_or_else(|| OsStr::new("tollgate").to_owned()),
    );
    command
        .args(arguments)
        .env(HANDOVER, file.as_raw_fd().to_string());
    for name in remove {
        command.env_remove(name);
    }
    command.exec()
}

/// The variable to leave out of a child's environment.
pub fn handover_variable() -> &'static str {
    HANDOVER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_secret_are_found_and_short_ones_are_not_looked_for() {
        let secrets = ["0123456789abcdef", "short"].map(|s| Secret::from(s.to_owned()));
        for (value, found) in [
            ("0123456789abcdef", true),
            ("https://user:0123456789abcdef@host/", true),
            ("0123456789abcde", false),
            ("short", false),
        ] {
            assert_eq!(
                holds_one(OsStr::new(value), secrets.iter()),
                found,
                "{value}"
            );
        }
    }

    #[test]
    fn a_secret_is_found_in_base64_wherever_it_stands() {
        let secret = Secret::from("sk-ant-api03-abcdefgh+/x".to_owned());
        for text in ["", "u:", "xy:", "user:", "x-access-token:"] {
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let value = engine.encode(format!("{text}sk-ant-api03-abcdefgh+/x:more"));
                assert!(
                    holds_one(OsStr::new(&value), [&secret].into_iter()),
                    "{text} {value}"
                );
            }
        }
        assert!(!holds_one(
            OsStr::new("c2stYW50LWFwaTAz"),
            [&secret].into_iter()
        ));
    }

    #[test]
    fn values_may_hold_anything_but_nul() {
        let parsed = parse(b"A=1\0B=x=y z\n\0C=\0");
        let values: Vec<_> = parsed
            .iter()
            .map(|(n, v)| (n.as_str(), v.expose()))
            .collect();
        assert_eq!(
            values,
            [("A", &b"1"[..]), ("B", &b"x=y z\n"[..]), ("C", &b""[..])]
        );
    }
}
