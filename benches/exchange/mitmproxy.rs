//! Owns mitmproxy as it comes, quiet, with one header swapped and bodies passed on as they arrive.

use std::path::Path;
use std::process::Command;

use crate::peer::{Peer, Site, installed};
use crate::process::{Process, said};
use crate::report::Column;

/// About how much longer it takes for a request.
const SLOWER: usize = 20;

/// Starts `mitmdump`, which has one thread, with the addon of `benches/peers/mitmproxy.py`.
pub fn start(site: &Site<'_>) -> Result<Peer, String> {
    let authority = site.authority();
    let subject = site.subject(Column::Mitmproxy, &authority.certificate);
    // It takes both from one file of this name.
    let both = [&authority.key, &authority.certificate].map(|path| std::fs::read(path).unwrap());
    std::fs::write(site.dir.join("mitmproxy-ca.pem"), both.concat()).unwrap();
    let program = installed("mitmproxy/bin/mitmdump");
    let addon = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/mitmproxy.py");
    let (dir, roots, secret) = (
        site.dir.display(),
        site.origin.authority.display(),
        site.secret(),
    );
    let mut command = Command::new(&program);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["--quiet", "--listen-host", "127.0.0.1", "--listen-port"])
        .arg(subject.address.port().to_string())
        .arg("--scripts")
        .arg(addon);
    for option in [
        format!("confdir={dir}"),
        format!("ssl_verify_upstream_trusted_ca={roots}"),
        format!("swap_host={}", site.host),
        format!("swap_secret_file={}", secret.display()),
    ] {
        command.arg("--set").arg(option);
    }
    let process = Process::listening(&mut command, subject.address, &site.output())?;
    let version = said(&program, "--version");
    Ok(Peer {
        process,
        subject,
        title: version.replace("Mitmproxy: ", "mitmproxy "),
        slower: SLOWER,
    })
}
