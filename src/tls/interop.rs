//! Owns the proof that real clients read our certificates as we do. It needs curl, git, openssl, python3
//! and node, which `make test` installs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::accept::AcceptSettings;
use super::authority::{CertificateAuthority, Constraints, PERSISTENT_LIFETIME};
use super::leaf::sign_leaf;
use super::trust::write_trust;
use crate::types::host::{Host, HostPattern};

type Ask = fn(&Target<'_>) -> Command;

/// How to have each client ask for a host at an address, trusting the file alone.
const CLIENTS: [(&str, Ask); 6] = [
    ("curl", curl),
    ("git", git),
    ("openssl", openssl),
    ("python", python),
    ("python, strict", python_strict),
    ("node", node),
];

struct Target<'a> {
    host: &'a Host,
    address: SocketAddr,
    trust: &'a Path,
}

impl Target<'_> {
    fn url(&self) -> String {
        format!("https://{}:{}/x.git", self.host, self.address.port())
    }
    fn pinned(&self) -> String {
        format!("{}:{}:127.0.0.1", self.host, self.address.port())
    }
}

fn curl(to: &Target<'_>) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10", "--noproxy", "*", "--cacert"]);
    command.arg(to.trust);
    command.args(["--resolve", &to.pinned(), &to.url()]);
    command
}

fn git(to: &Target<'_>) -> Command {
    let mut command = Command::new("git");
    let trust = format!("http.sslCAInfo={}", to.trust.display());
    let pinned = format!("http.curloptResolve={}", to.pinned());
    command.args(["-c", &trust, "-c", &pinned, "ls-remote", &to.url()]);
    command.env("GIT_TERMINAL_PROMPT", "0").env("NO_PROXY", "*");
    command
}

fn openssl(to: &Target<'_>) -> Command {
    // s_client sends what it reads from standard input.
    let verify = match to.host {
        Host::Name(name) => format!("-servername {name} -verify_hostname {name}"),
        Host::Ip(ip) => format!("-noservername -verify_ip {ip}"),
    };
    let mut command = Command::new("sh");
    let ask = format!(
        "(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 1) | openssl s_client -quiet -verify_return_error -x509_strict {verify} -CAfile {} -connect {}",
        to.trust.display(),
        to.address
    );
    command.args(["-c", &ask]);
    command
}

const PYTHON: &str = "
import socket, ssl, sys
name, port, trust, flags = sys.argv[1:]
context = ssl.create_default_context(cafile=trust)
context.verify_flags |= int(flags)
raw = socket.create_connection(('127.0.0.1', int(port)), 10)
context.wrap_socket(raw, server_hostname=name).sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
";

fn python_with(to: &Target<'_>, flags: &str) -> Command {
    let mut command = Command::new("python3");
    let (host, port) = (to.host.to_string(), to.address.port().to_string());
    command
        .args(["-c", PYTHON, &host, &port])
        .arg(to.trust)
        .arg(flags);
    command
}

fn python(to: &Target<'_>) -> Command {
    python_with(to, "0")
}

fn python_strict(to: &Target<'_>) -> Command {
    // ssl.VERIFY_X509_STRICT, on by default since Python 3.13.
    python_with(to, "32")
}

const NODE: &str = "
const [name, port, trust] = process.argv.slice(1);
require('https').get({ host: '127.0.0.1', port, servername: name, ca: require('fs').readFileSync(trust),
  checkServerIdentity: (_, c) => require('tls').checkServerIdentity(name, c) })
  .on('error', (e) => { console.error(e.message); process.exit(1) });
";

fn node(to: &Target<'_>) -> Command {
    let mut command = Command::new("node");
    let (host, port) = (to.host.to_string(), to.address.port().to_string());
    command.args(["-e", NODE, &host, &port]).arg(to.trust);
    command
}

/// A server with a leaf for `host`, whether or not its authority's constraints permit it.
fn server_for(authority: &CertificateAuthority, host: &Host) -> ServerConfig {
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let key = KeyPair::generate().unwrap();
    let leaf = sign_leaf(authority, &key, host, (now - hour, now + 23 * hour)).unwrap();
    let key = any_ecdsa_type(&PrivateKeyDer::Pkcs8(key.serialized_der().into())).unwrap();
    let settings = AcceptSettings::new().unwrap();
    let mut config = settings
        .server_config(CertifiedKey::new(vec![leaf], key))
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Serves until dropped; counts the requests that came through TLS.
async fn serve(config: ServerConfig) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut first = [0; 1];
            // A client that does not believe the certificate says so here, with an alert.
            if matches!(stream.read(&mut first).await, Ok(1)) {
                counter.fetch_add(1, Ordering::SeqCst);
                let refusal =
                    b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                drop(stream.write_all(refusal).await);
                drop(stream.shutdown().await);
            }
        }
    });
    (address, requests)
}

/// Asks once; what went wrong, if it did.
async fn ask(mut command: Command) -> String {
    for variable in [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_SSL_CAINFO",
        "HTTPS_PROXY",
    ] {
        command.env_remove(variable);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    String::from_utf8_lossy(&output.await.unwrap().stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_read_the_constraints_as_we_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut surprises = Vec::new();
    for constraints in [
        &["api.anthropic.com", "*.github.com"][..],
        &["api.anthropic.com", "127.0.0.1"],
        &["127.0.0.1"],
    ] {
        let patterns = constraints
            .iter()
            .map(|text| HostPattern::parse(text).unwrap());
        let authority = CertificateAuthority::generate(
            &Constraints::Names(patterns.collect()),
            "Tollgate interop",
            PERSISTENT_LIFETIME,
        );
        let authority = authority.ok().unwrap();
        let trust = write_trust(dir.path(), authority.certificate_pem(), "").unwrap();
        for host in [
            "api.anthropic.com",
            "a.b.github.com",
            "evil.com",
            "127.0.0.1",
        ] {
            let host = Host::parse(host).unwrap();
            let (address, requests) = serve(server_for(&authority, &host)).await;
            for (name, client) in CLIENTS {
                let target = Target {
                    host: &host,
                    address,
                    trust: &trust.ca,
                };
                let said = ask(client(&target)).await;
                let accepted = requests.swap(0, Ordering::SeqCst) > 0;
                if accepted != authority.may_sign(&host) {
                    surprises.push(format!(
                        "{name}, {constraints:?}, {host}: {accepted}, {said}"
                    ));
                }
            }
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}
