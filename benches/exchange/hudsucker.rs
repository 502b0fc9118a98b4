//! Owns the bare hudsucker proxy: the library that is nearest to tollgate's own way, and one header swapped.

use std::process::Command;

use crate::peer::{Peer, Site, installed};
use crate::process::Process;
use crate::report::Column;

/// What it was built of.
const LOCK: &str = include_str!("../peers/hudsucker/Cargo.lock");

/// Starts the program of `benches/peers/hudsucker`, with as many threads as there are cores.
pub fn start(site: &Site<'_>) -> Result<Peer, String> {
    let authority = site.authority();
    let subject = site.subject(Column::Hudsucker, &authority.certificate);
    let mut command = Command::new(installed("hudsucker/release/hudsucker-peer"));
    command
        .arg(subject.address.to_string())
        .arg(&site.origin.authority)
        .arg(&authority.certificate)
        .arg(&authority.key)
        .arg(site.host)
        .arg(site.secret());
    let process = Process::listening(&mut command, subject.address, &site.output())?;
    let version = LOCK.split("name = \"hudsucker\"\nversion = \"").nth(1);
    let version = version.and_then(|rest| rest.split('"').next());
    Ok(Peer {
        process,
        subject,
        title: format!("hudsucker {}", version.unwrap_or_default()),
        slower: 1,
    })
}
