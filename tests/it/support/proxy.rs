//! Owns the real `tollgate` binary of a test: its documents, its process, its ports, its records.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::door::Door;
use super::origin::Origin;

/// The binary under test.
pub const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");

/// Starts to describe a proxy.
pub fn proxy() -> ProxyBuilder {
    ProxyBuilder {
        dir: tempfile::tempdir().unwrap(),
        documents: String::new(),
        document_paths: Vec::new(),
        settings: String::new(),
        roots: String::new(),
        resolve: BTreeMap::new(),
        dns: Vec::new(),
        secrets: Vec::new(),
        env: BTreeMap::new(),
        bound_by_modes: false,
    }
}

pub struct ProxyBuilder {
    pub(super) dir: TempDir,
    pub(super) documents: String,
    document_paths: Vec<String>,
    settings: String,
    roots: String,
    resolve: BTreeMap<String, String>,
    dns: Vec<String>,
    secrets: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    bound_by_modes: bool,
}

impl ProxyBuilder {
    /// Adds an `EgressPolicy` with these rules (YAML, the list below `egress:`).
    #[must_use]
    pub fn policy(self, rules: &str) -> Self {
        let spec = format!("egress:\n{}", indent(rules, 2));
        let name = format!("policy-{}", self.documents.matches("kind:").count());
        self.document("EgressPolicy", &name, &spec)
    }

    /// Adds an `EgressCredential` whose secret is in a file; `spec` is the rest of it (YAML).
    #[must_use]
    pub fn credential_file(mut self, name: &str, secret: &str, spec: &str) -> Self {
        let file = self.path(&format!("{name}.secret"));
        write_private(&file, secret);
        self.secrets.push(secret.to_owned());
        let rest = indent(spec, 0);
        let spec = format!("source: {{file: {{path: {}}}}}\n{rest}", file.display());
        self.document("EgressCredential", name, &spec)
    }

    /// Loads a built-in preset; its secret is in the variable that the preset names.
    #[must_use]
    pub fn preset(mut self, name: &str, variable: &str, secret: &str) -> Self {
        self.env.insert(variable.to_owned(), secret.to_owned());
        self.secrets.push(secret.to_owned());
        self.setting(&format!("presets: [{name}]"))
    }

    /// Adds a whole document.
    #[must_use]
    pub fn document(mut self, kind: &str, name: &str, spec: &str) -> Self {
        write!(
            self.documents,
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{}",
            indent(spec, 2)
        )
        .unwrap();
        self
    }

    /// Reads documents from this file or directory of the proxy's directory as well.
    #[must_use]
    pub fn documents_at(mut self, path: &str) -> Self {
        self.document_paths.push(path.to_owned());
        self
    }

    /// Adds lines to the `spec` of the `TollgateConfig`.
    #[must_use]
    pub fn setting(mut self, yaml: &str) -> Self {
        self.settings.push_str(&indent(yaml, 2));
        self
    }

    /// Sends a host to this address instead of asking DNS.
    #[must_use]
    pub fn resolve(mut self, host: &str, addr: SocketAddr) -> Self {
        self.resolve.insert(host.to_owned(), addr.to_string());
        self
    }

    /// Asks these servers for the addresses of all other hosts, in this order.
    #[must_use]
    pub fn dns(mut self, servers: &[SocketAddr]) -> Self {
        self.dns = servers.iter().map(ToString::to_string).collect();
        self
    }

    /// Believes this authority, among others.
    #[must_use]
    pub fn root(mut self, pem: &str) -> Self {
        self.roots.push_str(pem);
        self
    }

    /// Sends all names of an origin to it, and believes its certificates.
    #[must_use]
    pub fn origin(mut self, origin: &Origin) -> Self {
        self.roots.push_str(&origin.ca_pem);
        for name in &origin.names {
            self = self.resolve(name, origin.addr);
        }
        self
    }

    /// A variable of the proxy's own environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// File modes count for it, although tests may run as root.
    #[must_use]
    pub fn bound_by_file_modes(mut self) -> Self {
        self.bound_by_modes = true;
        self
    }

    /// What must never be seen in what it writes.
    #[must_use]
    pub fn secret(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }

    /// Writes the configuration, without starting anything.
    pub fn write(&self) -> PathBuf {
        let at = |name: &str| self.path(name).display().to_string();
        let resolve: String = self
            .resolve
            .iter()
            .map(|(host, addr)| format!("      {host:?}: [{addr:?}]\n"))
            .collect();
        let mut upstream = String::new();
        if !self.roots.is_empty() {
            writeln!(upstream, "    roots: {{file: {}}}", at("origin-ca.pem")).unwrap();
        }
        if !self.dns.is_empty() {
            writeln!(upstream, "    dns: {{servers: {:?}}}", self.dns).unwrap();
        }
        if !resolve.is_empty() {
            write!(upstream, "    resolve:\n{resolve}").unwrap();
        }
        if !upstream.is_empty() {
            upstream.insert_str(0, "  upstream:\n");
        }
        let own = (!self.documents.is_empty()).then(|| "documents.yaml".to_owned());
        let paths: Vec<String> = self.document_paths.iter().cloned().chain(own).collect();
        let documents = match paths.is_empty() {
            true => String::new(),
            false => format!("  documents: [{}]\n", paths.join(", ")),
        };
        let config = format!(
            "apiVersion: tollgate.dev/v1alpha1\nkind: TollgateConfig\nmetadata: {{name: test}}\nspec:\n  \
             listen: 127.0.0.1:0\n  admin: {{listen: \"127.0.0.1:0\"}}\n  stateDir: {}\n  accessLog: {{file: {}}}\n\
             {documents}{upstream}{}",
            at("state"),
            at("access.log"),
            self.settings
        );
        std::fs::write(self.path("origin-ca.pem"), &self.roots).unwrap();
        if !self.documents.is_empty() {
            std::fs::write(self.path("documents.yaml"), &self.documents).unwrap();
        }
        let file = self.path("tollgate.yaml");
        std::fs::write(&file, config).unwrap();
        file
    }

    /// Starts the proxy and waits until it is ready.
    pub async fn start(self) -> Proxy {
        let mut proxy = self.spawn();
        proxy.ready().await;
        proxy
    }

    /// Starts the proxy; it has no addresses until it is [`Proxy::ready`].
    pub fn spawn(self) -> Proxy {
        let config = self.write();
        let command = self.serve(&config);
        let (child, output) = launch(copy(&command, Command::new(command.as_std().get_program())));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Proxy {
            addr: nowhere,
            admin: nowhere,
            dir: self.dir,
            config,
            command,
            child,
            output,
            earlier: String::new(),
            secrets: self.secrets,
        }
    }

    /// The command that serves this configuration.
    pub fn serve(&self, config: &Path) -> Command {
        let mut command = tollgate(self.dir.path(), &self.env);
        if self.bound_by_modes {
            command = without_root_rights(&command);
        }
        command.arg("serve").arg("--config").arg(config);
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A running proxy. When it is dropped it is killed, and what it wrote is searched for its secrets.
pub struct Proxy {
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    pub config: PathBuf,
    pub(super) dir: TempDir,
    command: Command,
    child: Child,
    output: Arc<Mutex<String>>,
    /// What the processes before this one wrote.
    earlier: String,
    secrets: Vec<String>,
}

impl Proxy {
    /// Waits until it serves, whatever the state of its credentials.
    pub async fn ready(&mut self) {
        let ready = wait_ready(&mut self.child, &self.output).await;
        self.addr = value_of(&ready, "listen=");
        self.admin = value_of(&ready, "admin=");
    }

    /// Ends it at once, in the middle of whatever it does.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts the same configuration again, after it has ended.
    pub fn respawn(&mut self) {
        let program = Command::new(self.command.as_std().get_program());
        self.earlier = self.output();
        (self.child, self.output) = launch(copy(&self.command, program));
    }

    /// The same below another program, which is given its command line.
    pub fn respawn_below(&mut self, program: &str, args: &[String]) {
        let mut command = Command::new(program);
        command.args(args).arg(self.command.as_std().get_program());
        self.earlier = self.output();
        (self.child, self.output) = launch(copy(&self.command, command));
    }

    /// Whether it has said that it serves.
    pub fn is_ready(&self) -> bool {
        ready_line(&self.output.lock().unwrap()).is_some()
    }

    /// Waits until it has ended, however.
    pub async fn gone(&mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        assert!(ended.is_ok(), "tollgate does not end: {}", self.output());
    }

    /// The same, and waits until it serves.
    pub async fn restart(&mut self) {
        self.respawn();
        self.ready().await;
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The variables that `tollgate env` prints for an agent.
    pub async fn env_for_agent(&self) -> BTreeMap<String, String> {
        let output = tollgate(self.dir.path(), &BTreeMap::new())
            .args(["env", "--format", "dotenv", "--config"])
            .arg(&self.config)
            .arg("--admin")
            .arg(self.admin.to_string())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "tollgate env: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        parse_dotenv(&text)
    }

    /// The forward door, as an agent gets to know it.
    pub async fn door(&self) -> Door {
        Door {
            addr: self.addr,
            ca_file: self.ca_file(),
            env: self.env_for_agent().await,
            forbidden: self.secrets.clone(),
        }
    }

    /// The base-URL door of a route: `http://127.0.0.1:PORT/route`.
    pub fn base_url(&self, route: &str) -> String {
        format!("http://{}/{route}", self.addr)
    }

    /// The certificate authority that agents trust.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("state/ca.crt")
    }

    /// Access log records, once there are at least `count`.
    pub async fn access_log(&self, count: usize) -> Vec<Value> {
        let file = self.dir.path().join("access.log");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let records: Vec<Value> = whole
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            if records.len() >= count {
                return records;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} records: {text}\n{}",
                records.len(),
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it printed, on both streams.
    pub fn output(&self) -> String {
        format!("{}{}", self.earlier, self.output.lock().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Asks it to end, as Kubernetes does.
    pub async fn terminate(&self) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, which must be in good order.
    pub async fn ended(&mut self) {
        let status = tokio::time::timeout(Duration::from_secs(20), self.child.wait());
        let status = status
            .await
            .unwrap_or_else(|_| panic!("tollgate does not end"));
        assert_eq!(status.unwrap().code(), Some(0), "{}", self.output());
    }

    /// Replaces the secret of a credential from `credential_file`, as an editor does: by renaming.
    pub fn replace_secret(&mut self, credential: &str, secret: &str) {
        let file = self.dir.path().join(format!("{credential}.secret"));
        let new = file.with_extension("new");
        write_private(&new, secret);
        std::fs::rename(new, file).unwrap();
        self.forbid(secret);
    }

    /// One more secret that it must never write down.
    pub fn forbid(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.start_kill().ok();
        let log = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        let output = self.output();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(100)..].join("\n");
            eprintln!("--- tollgate wrote\n{output}\n--- the end of the access log\n{last}");
            return;
        }
        let audit = std::fs::read_dir(self.dir.path().join("state/audit"));
        let files = audit.into_iter().flatten().flatten();
        let audit: String = files
            .map(|file| std::fs::read_to_string(file.path()).unwrap_or_default())
            .collect();
        for secret in &self.secrets {
            assert!(
                !audit.contains(secret),
                "a secret is in the audit log: {audit}"
            );
            assert!(
                !log.contains(secret),
                "a secret is in the access log: {log}"
            );
            assert!(!output.contains(secret), "a secret was printed: {output}");
        }
    }
}

/// The binary with nothing of this process's environment but PATH.
pub fn tollgate(home: &Path, env: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(TOLLGATE);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .envs(env)
        .current_dir(home)
        .kill_on_drop(true);
    command
}

/// The same command without root's right to open every file (capabilities(7)).
pub fn without_root_rights(command: &Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        return copy(command, Command::new(command.as_std().get_program()));
    }
    let mut wrapped = Command::new("setpriv");
    wrapped
        .arg("--bounding-set=-dac_override,-dac_read_search,-fowner")
        .arg(command.as_std().get_program());
    copy(command, wrapped)
}

fn copy(from: &Command, mut to: Command) -> Command {
    let from = from.as_std();
    to.args(from.get_args()).env_clear().kill_on_drop(true);
    to.envs(
        from.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    to.current_dir(from.get_current_dir().unwrap());
    to
}

/// Starts it and gathers what it writes.
fn launch(mut command: Command) -> (Child, Arc<Mutex<String>>) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = Arc::new(Mutex::new(String::new()));
    collect(child.stdout.take().unwrap(), output.clone());
    collect(child.stderr.take().unwrap(), output.clone());
    (child, output)
}

/// `KEY=value` lines; values may be quoted, lines may begin with `export` or `#`.
pub fn parse_dotenv(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='))
        .map(|(name, value)| {
            let quoted = ['"', '\'']
                .iter()
                .find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
            (name.to_owned(), quoted.unwrap_or(value).to_owned())
        })
        .collect()
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, into: Arc<Mutex<String>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut text = into.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
}

async fn wait_ready(child: &mut Child, output: &Mutex<String>) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = output.lock().unwrap().clone();
        if let Some(line) = ready_line(&text) {
            return line.to_owned();
        }
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "tollgate is not ready (ended: {ended:?}):\n{text}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ready_line(text: &str) -> Option<&str> {
    let mut lines = text.lines();
    lines.find(|line| line.contains("ready") && line.contains("listen="))
}

fn value_of(line: &str, key: &str) -> SocketAddr {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.parse().ok())
        .unwrap_or_else(|| panic!("no {key}ADDRESS in {line:?}"))
}

fn indent(text: &str, by: usize) -> String {
    let text = text.trim_matches('\n');
    // A text may be written deeper in a test; its first line tells how deep.
    let depth = text.len() - text.trim_start_matches(' ').len();
    text.lines()
        .map(|line| {
            let cut = line.len() - line.trim_start_matches(' ').len();
            format!("{}{}\n", " ".repeat(by), &line[cut.min(depth)..])
        })
        .collect()
}

fn write_private(file: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(file)
        .unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}
