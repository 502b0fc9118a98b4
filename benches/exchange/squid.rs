//! Owns Squid as an intercepting proxy: `ssl-bump`, one header replaced, nothing kept and nothing logged.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::certs::Authority;
use crate::origin::SECRET;
use crate::peer::{Peer, Site};
use crate::process::{Process, said};
use crate::report::Column;

/// The user that Debian's package makes. Squid does not work as root.
const USER: &str = "proxy";
/// What makes leafs, where Debian puts it.
const CERTGEN: &str = "/usr/lib/squid/security_file_certgen";

/// Starts one with as many workers as tollgate has threads.
pub fn start(site: &Site<'_>) -> Result<Peer, String> {
    let version = said("squid".as_ref(), "-v");
    if version.is_empty() {
        return Err("squid: no such program".to_owned());
    }
    let authority = site.authority();
    let subject = site.subject(Column::Squid, &authority.certificate);
    let roots = site.dir.join("origin-ca.crt");
    std::fs::copy(&site.origin.authority, roots).unwrap();
    std::fs::write(site.dir.join("hosts"), format!("127.0.0.1 {}\n", site.host)).unwrap();
    let file = site.dir.join("squid.conf");
    let text = config(site, &authority, &subject.address.to_string());
    std::fs::write(&file, text).unwrap();
    run(Command::new(CERTGEN)
        .args(["-c", "-s"])
        .arg(site.dir.join("leaves"))
        .args(["-M", "4MB"]))?;
    if rustix::process::geteuid().is_root() {
        give_away(site.dir)?;
    }
    let mut command = Command::new("squid");
    // Names of shared memory begin with the service's.
    let service = format!("bench{}x{}", std::process::id(), subject.address.port());
    command.args(["--foreground", "-n", &service, "-f"]);
    let process = Process::listening(command.arg(file), subject.address, &site.output())?;
    Ok(Peer {
        process,
        subject,
        title: version.replace("Squid Cache: Version ", "Squid "),
        slower: 1,
    })
}

/// The origin's connection is made first (`stare`) and belongs to the client's: a POST is sent on no
/// other kept connection, and a new one for each takes Squid four times the work. Origins are verified,
/// which is Squid's default, by one authority alone.
fn config(site: &Site<'_>, authority: &Authority, address: &str) -> String {
    let (at, host) = (site.dir.display(), site.host);
    let (ca, key) = (authority.certificate.display(), authority.key.display());
    let workers = std::thread::available_parallelism().unwrap();
    format!(
        "http_port {address} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=4MB \
           tls-cert={ca} tls-key={key}
         sslcrtd_program {CERTGEN} -s {at}/leaves -M 4MB
         sslcrtd_children 2 startup=1 idle=1
         ssl_bump stare all
         ssl_bump bump all
         tls_outgoing_options cafile={at}/origin-ca.crt default-ca=off
         hosts_file {at}/hosts
         acl host dstdomain {host}
         request_header_access X-Api-Key deny host
         request_header_add X-Api-Key \"{SECRET}\" host
         via off
         forwarded_for delete
         http_access allow all
         cache deny all
         cache_mem 0
         workers {workers}
         max_filedescriptors 16384
         client_idle_pconn_timeout 10 minutes
         server_idle_pconn_timeout 10 minutes
         shutdown_lifetime 0 seconds
         access_log none
         cache_store_log none
         cache_log {at}/cache.log
         logfile_rotate 0
         pid_filename {at}/pid
         coredump_dir {at}
         pinger_enable off
         visible_hostname bench
         cache_effective_user {USER}
        "
    )
    .replace("\n         ", "\n")
}

/// Squid gives up being root before it reads and writes here.
fn give_away(dir: &Path) -> Result<(), String> {
    let above = dir.parent().unwrap();
    std::fs::set_permissions(above, PermissionsExt::from_mode(0o711)).unwrap();
    run(Command::new("chown").args(["-R", USER]).arg(dir))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
