//! Owns the way an agent goes out: the address it is given, the CA it trusts, the variables it gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::origin::Origin;

/// What an agent needs to know to reach the world.
#[derive(Clone, Debug)]
pub struct Door {
    pub addr: SocketAddr,
    pub ca_file: PathBuf,
    pub env: BTreeMap<String, String>,
    /// What must never be seen in the agent's environment or output.
    pub forbidden: Vec<String>,
}

/// A CONNECT proxy that only forwards bytes: shows that client and origin work together without Tollgate.
pub struct Relay {
    addr: SocketAddr,
    dir: TempDir,
    accept: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Relay {
    pub async fn to(origins: &[&Origin]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let roots: String = origins.iter().map(|o| o.ca_pem.as_str()).collect();
        std::fs::write(dir.path().join("ca.crt"), roots).unwrap();
        let names: BTreeMap<String, SocketAddr> = origins
            .iter()
            .flat_map(|o| o.names.iter().map(|n| (n.clone(), o.addr)))
            .collect();
        let names = Arc::new(names);
        let accept = tokio::spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let names = names.clone();
                tunnels.spawn(async move { relay(stream, &names).await.ok() });
                while tunnels.try_join_next().is_some() {}
            }
        });
        Self { addr, dir, accept }
    }

    pub fn door(&self) -> Door {
        let ca_file = self.dir.path().join("ca.crt");
        Door {
            addr: self.addr,
            env: proxy_env(self.addr, &ca_file),
            ca_file,
            forbidden: Vec::new(),
        }
    }
}

/// The variables every runtime reads.
fn proxy_env(addr: SocketAddr, ca: &Path) -> BTreeMap<String, String> {
    let url = format!("http://{addr}");
    let mut env = BTreeMap::new();
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        env.insert(name.to_owned(), url.clone());
    }
    for name in [
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "CODEX_CA_CERTIFICATE",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    ] {
        env.insert(name.to_owned(), ca.display().to_string());
    }
    env.insert("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned());
    env
}

async fn relay(stream: TcpStream, names: &BTreeMap<String, SocketAddr>) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let target = head.split(' ').nth(1).unwrap_or_default();
    let name = target.rsplit_once(':').map_or(target, |(name, _)| name);
    let Some(addr) = names.get(name).filter(|_| head.starts_with("CONNECT ")) else {
        return client
            .write_all(b"HTTP/1.1 403 no such origin\r\ncontent-length: 0\r\n\r\n")
            .await;
    };
    let mut origin = TcpStream::connect(addr).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut origin).await?;
    Ok(())
}
