//! What an operator does with a proxy: start one that must not start, ask a running one, change its files.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::agent::Finished;
use super::door::Door;
use super::proxy::{Proxy, ProxyBuilder, tollgate};

/// What the admin port said.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub text: String,
}

impl Said {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl ProxyBuilder {
    /// A file of the proxy's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The policies and credentials so far, as they are written.
    pub fn documents(&self) -> &str {
        &self.documents
    }

    /// Tries to serve, which must end by itself.
    pub async fn serve_ends(&self) -> Finished {
        finish(self.serve(&self.write())).await
    }
}

impl Proxy {
    /// A file of the proxy's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The forward door for the tests' own client: no variables.
    pub fn bare_door(&self) -> Door {
        Door {
            addr: self.addr,
            ca_file: self.ca_file(),
            env: [].into(),
            forbidden: Vec::new(),
        }
    }

    /// Asks the admin port, with the admin token.
    pub async fn admin(&self, method: &str, path: &str) -> Said {
        let token = std::fs::read_to_string(self.file("state/admin.token")).unwrap();
        self.admin_with(method, path, &format!("Bearer {}", token.trim()))
            .await
    }

    /// Gives the admin port an order, with the admin token.
    pub async fn order(&self, path: &str, order: &Value) -> Said {
        let token = std::fs::read_to_string(self.file("state/admin.token")).unwrap();
        let authorization = format!("Bearer {}", token.trim());
        self.send("POST", path, &authorization, order.to_string())
            .await
    }

    /// Asks the admin port, showing this.
    pub async fn admin_with(&self, method: &str, path: &str, authorization: &str) -> Said {
        self.send(method, path, authorization, String::new()).await
    }

    async fn send(&self, method: &str, path: &str, authorization: &str, body: String) -> Said {
        let stream = TcpStream::connect(self.admin).await.unwrap();
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(async move { connection.await.ok() });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.admin.to_string())
            .header("authorization", authorization)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Said {
            status,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// Replaces the documents and has them read, which must succeed.
    pub async fn reload(&self, documents: &str) {
        std::fs::write(self.file("documents.yaml"), documents).unwrap();
        let said = self.admin("POST", "/v1/reload").await;
        assert_eq!(said.status, 200, "{}", said.text);
    }

    pub async fn readyz(&self) -> Said {
        self.admin("GET", "/readyz").await
    }

    /// The value of a metric with these labels (`name{label="x"}`).
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin("GET", "/metrics").await.text;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    /// A command of the same configuration, while the proxy runs.
    pub async fn cli(&self, args: &[&str]) -> Finished {
        let mut command = tollgate(self.dir.path(), &[].into());
        command.args(args).arg("--config").arg(&self.config);
        command.arg("--admin").arg(self.admin.to_string());
        finish(command).await
    }

    /// What `tollgate creds list` says of one credential.
    pub async fn credential(&self, name: &str) -> Value {
        let listed = self.cli(&["creds", "list", "-o", "json"]).await.json();
        let all = listed.as_array().unwrap();
        let found = all.iter().find(|c| c["name"] == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {listed}"))
            .clone()
    }

    pub async fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().await;
        assert!(sent.unwrap().success());
    }
}

/// Runs a command to its end.
pub async fn finish(mut command: Command) -> Finished {
    command.stdin(std::process::Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(60), command.output());
    let output = output
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Long enough for a machine that does a hundred other things.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer is yes, at most `limit`.
#[track_caller]
pub fn until<F: AsyncFnMut() -> bool>(
    what: &str,
    limit: Duration,
    mut holds: F,
) -> impl Future<Output = ()> {
    let asked_at = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        while !holds().await {
            assert!(
                Instant::now() < deadline,
                "{asked_at}: not within {limit:?}: {what}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Makes a file appear whole, as editors and `kubectl` do.
pub fn put(file: &Path, text: impl AsRef<[u8]>) {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// A mounted Secret or ConfigMap: `name -> ..data/name`, `..data -> ..1`, swapped by renaming a link.
pub struct Mount {
    pub dir: PathBuf,
    name: String,
    version: u32,
}

impl Mount {
    pub fn new(dir: PathBuf, name: &str, text: &str) -> Self {
        std::fs::create_dir(&dir).unwrap();
        let mut mount = Self {
            dir,
            name: name.to_owned(),
            version: 0,
        };
        mount.swap(text);
        std::os::unix::fs::symlink(format!("..data/{name}"), mount.file()).unwrap();
        mount
    }

    pub fn file(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// What a kubelet does (`pkg/volume/util/atomic_writer.go`).
    pub fn swap(&mut self, text: &str) {
        let old = self.dir.join(format!("..{}", self.version));
        self.version += 1;
        let new = format!("..{}", self.version);
        std::fs::create_dir(self.dir.join(&new)).unwrap();
        std::fs::write(self.dir.join(&new).join(&self.name), text).unwrap();
        std::os::unix::fs::symlink(&new, self.dir.join("..data_tmp")).unwrap();
        std::fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).unwrap();
        std::fs::remove_dir_all(old).ok();
    }
}
