//! Owns what the process gives up before it serves, and says what is in force.

use std::net::SocketAddr;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, set_no_new_privs};

use super::borders::borders;
use super::error::StartError;
use super::given_up::{Files, GivenUp};
use super::settings::Settings;
use crate::config::bundle::Bundle;
use crate::config::hardening::{HardeningMode, ProgramsMode};
use crate::config::named::NamedFiles;
use crate::rt::capabilities::give_up_all_but;
use crate::rt::confine::{Borders, Drawn, confine};
use crate::rt::protection::{Force, Protection};
use crate::rt::syscalls::{Programs, refuse};

/// Keeps the process's memory to itself, and takes nothing from the programs it starts: what commands need
/// that run a person's own programs.
pub fn hide_memory() -> bool {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok()
}

/// Gives up what serving does not need, in this thread and all that it starts: call it while there is no
/// other. What the machine lacks is reported; whether that is an error is [`required`]'s answer.
pub fn harden(settings: &Settings, bundle: &Bundle) -> GivenUp {
    let spec = &settings.root.spec.hardening;
    let mut given_up = GivenUp {
        protections: vec![dumps(), privileges()],
        ..GivenUp::default()
    };
    if spec.mode == HardeningMode::Off {
        let off = |name| Protection::new(name, Force::Off, "OFF", "spec.hardening.mode is Off");
        let rest = ["capabilities", "files", "syscalls"].map(off);
        given_up.protections.extend(rest);
        given_up.protections.push(user());
        return given_up;
    }
    let named = NamedFiles::of_config(&settings.root.spec).and_of(bundle);
    let programs = match spec.programs {
        ProgramsMode::WhenNamed if named.programs.is_empty() => Programs::None,
        ProgramsMode::WhenNamed | ProgramsMode::Always => Programs::Started,
    };
    let borders = borders(settings, &named, programs);
    let listeners = [settings.listen(), settings.admin_listen()];
    let capabilities = capabilities(&listeners);
    let files = files(&borders, programs);
    let syscalls = syscalls(programs);
    if files.holds() {
        given_up.files = Some(Files::within(&borders, programs, &named));
    }
    given_up.programs = programs == Programs::None && (files.holds() || syscalls.holds());
    let rest = [capabilities, files, syscalls, user()];
    given_up.protections.extend(rest);
    given_up
}

/// An error where the configuration wants what this machine does not have.
pub fn required(settings: &Settings, given_up: &GivenUp) -> Result<(), StartError> {
    if settings.root.spec.hardening.mode != HardeningMode::Require {
        return Ok(());
    }
    let missing: Vec<String> = given_up
        .protections
        .iter()
        .filter(|p| p.force == Force::Missing && p.name != USER)
        .map(|p| format!("{}: {}", p.name, p.detail))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(StartError::setting(
            format!(
                "spec.hardening.mode is Require, and this machine does not have {}",
                missing.join("; ")
            ),
            "see what the container's runtime forbids, use a newer kernel, or set spec.hardening.mode to BestEffort",
        )),
    }
}

/// In the log: what is missing although it was wanted.
pub fn tell(protections: &[Protection]) {
    for missing in protections {
        if missing.force == Force::Missing {
            tracing::warn!(protection = %missing.name, "not in force: {}", missing.detail);
        }
    }
}

/// The protection that no machine lacks: not to run as root.
pub const USER: &str = "user";

fn dumps() -> Protection {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let cores = setrlimit(Resource::Core, none).is_ok();
    match cores && hide_memory() {
        true => Protection::full(
            "dumps",
            "off",
            "no core file, and no other process of this user looks into its memory",
        ),
        false => Protection::new("dumps", Force::Missing, "ON", "the kernel refuses it"),
    }
}

fn privileges() -> Protection {
    match set_no_new_privs(true) {
        Ok(()) => Protection::full(
            "privileges",
            "fixed",
            "no program that it starts gains any (no_new_privs)",
        ),
        Err(error) => {
            let why = format!("no_new_privs: {error}");
            Protection::new("privileges", Force::Missing, "NOT-fixed", why)
        }
    }
}

fn capabilities(listeners: &[SocketAddr]) -> Protection {
    let bind = match listeners
        .iter()
        .any(|address| is_privileged(address.port()))
    {
        true => CapabilitySet::NET_BIND_SERVICE,
        false => CapabilitySet::empty(),
    };
    match give_up_all_but(bind) {
        Ok(kept) if kept.is_empty() => Protection::full("capabilities", "none", "it has none"),
        Ok(_) => Protection::new(
            "capabilities",
            Force::Part,
            "bind",
            "only CAP_NET_BIND_SERVICE, for the port it listens on",
        ),
        Err(error) => Protection::new("capabilities", Force::Missing, "KEPT", error.to_string()),
    }
}

/// Whether listening on a port takes CAP_NET_BIND_SERVICE (ip_unprivileged_port_start of ip(7)).
fn is_privileged(port: u16) -> bool {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.ok().and_then(|text| text.trim().parse().ok());
    port != 0 && port < first.unwrap_or(1024)
}

fn files(borders: &Borders, programs: Programs) -> Protection {
    const NAME: &str = "files";
    let (version, force) = match confine(borders, programs) {
        Ok(Drawn::All(version)) => (version, Force::Full),
        Ok(Drawn::Part(version)) => (version, Force::Part),
        Ok(Drawn::Nothing) => {
            let why = "the kernel has no Landlock, or what started this process forbids it";
            return Protection::new(NAME, Force::Missing, "OPEN", why);
        }
        Err(error) => {
            let why = format!("Landlock: {error}");
            return Protection::new(NAME, Force::Missing, "OPEN", why);
        }
    };
    let older = match force {
        Force::Full => "",
        _ => " (a newer kernel could do more)",
    };
    match programs {
        Programs::None => Protection::new(
            NAME,
            force,
            "landlock",
            format!(
                "Landlock, version {version}{older}: it opens what is its own and what its documents name, and starts no program"
            ),
        ),
        Programs::Started => Protection::new(
            NAME,
            Force::Part,
            "landlock-writes",
            format!(
                "Landlock, version {version}{older}: it writes what is its own; helper programs may be started, so it reads and executes what its user may"
            ),
        ),
    }
}

fn syscalls(programs: Programs) -> Protection {
    const NAME: &str = "syscalls";
    match (refuse(programs), programs) {
        (Ok(()), Programs::None) => Protection::full(
            NAME,
            "filtered",
            "seccomp refuses what a proxy never needs, and to start programs",
        ),
        (Ok(()), Programs::Started) => Protection::new(
            NAME,
            Force::Part,
            "filtered",
            "seccomp refuses what a proxy never needs; helper programs may be started",
        ),
        (Err(error), _) => {
            let why = format!("seccomp: {error}");
            Protection::new(NAME, Force::Missing, "OPEN", why)
        }
    }
}

fn user() -> Protection {
    let user = rustix::process::geteuid();
    match user.is_root() {
        true => Protection::new(
            USER,
            Force::Missing,
            "ROOT",
            "it runs as root, whose files are most of the machine's; give it a user of its own",
        ),
        false => Protection::full(USER, &user.as_raw().to_string(), "it does not run as root"),
    }
}
