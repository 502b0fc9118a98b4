//! Owns what the demo plays on: Tollgate's process and files, the agent's home, and the tally of checks.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::origin::Origin;
use super::recorded::sha256;

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Stage {
    pub listen: SocketAddr,
    pub ready: String,
    admin: SocketAddr,
    dir: tempfile::TempDir,
    child: Child,
    transcript: std::cell::RefCell<String>,
}

impl Stage {
    /// Writes a configuration of a few lines and starts Tollgate with the key in its environment.
    pub async fn set(origins: &[&Origin], key: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("tollgate-demo-")
            .tempdir()
            .unwrap();
        let roots: String = origins.iter().map(|o| o.ca_pem.as_str()).collect();
        std::fs::write(dir.path().join("origin-ca.pem"), roots).unwrap();
        std::fs::create_dir(dir.path().join("agent")).unwrap();
        let resolve: String = origins
            .iter()
            .flat_map(|o| {
                o.names
                    .iter()
                    .map(|n| format!("      {n}: [\"{}\"]\n", o.addr))
            })
            .collect();
        let config = format!(
            "apiVersion: tollgate.dev/v1alpha1\nkind: TollgateConfig\nmetadata: {{ name: demo }}\nspec:\n  \
             listen: 127.0.0.1:0\n  admin: {{ listen: 127.0.0.1:0 }}\n  stateDir: state\n  accessLog: {{ file: access.log }}\n  \
             presets: [anthropic]\n  upstream:\n    roots: {{ file: origin-ca.pem }}\n    resolve:\n{resolve}---\n\
             apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{ name: demo }}\nspec:\n  egress:\n    \
             - hosts: [files.example.org]\n      tls: Intercept\n"
        );
        std::fs::write(dir.path().join("tollgate.yaml"), config).unwrap();
        let log = std::fs::File::create(dir.path().join("serve.log")).unwrap();
        let mut child = program(dir.path())
            .arg("serve")
            .env("ANTHROPIC_API_KEY", key)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("target/debug/tollgate is there: cargo build --bin tollgate");
        let ready = ready(&mut child, &dir.path().join("serve.log")).await;
        let address = |key: &str| {
            ready
                .split(' ')
                .find_map(|word| word.strip_prefix(key)?.parse().ok())
                .unwrap()
        };
        let (listen, admin) = (address("listen="), address("admin="));
        let stage = Self {
            listen,
            admin,
            ready,
            dir,
            child,
            transcript: std::cell::RefCell::default(),
        };
        let environment = program(stage.dir.path())
            .args(["env", "--address", &listen.to_string()])
            .output()
            .await
            .unwrap();
        assert!(
            environment.status.success(),
            "{}",
            String::from_utf8_lossy(&environment.stderr)
        );
        std::fs::write(stage.dir.path().join("agent/env.sh"), environment.stdout).unwrap();
        stage
    }

    /// Runs a shell command as the agent: what `tollgate env` prints is all it has. Returns what it sees.
    pub async fn agent(&self, command: &str) -> String {
        let home = self.dir.path().join("agent");
        let output = Command::new("sh")
            .args(["-c", &format!(". ./env.sh; {command}")])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .current_dir(&home)
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .expect("the command ends")
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        self.transcript.borrow_mut().push_str(&text);
        text
    }

    /// The same, on the terminal.
    pub async fn show(&self, command: &str) -> String {
        println!("  agent$ {command}");
        let text = self.agent(command).await;
        text.lines().for_each(|line| println!("    {line}"));
        text
    }

    /// Runs Tollgate's command line as its operator, on the terminal; its exit code is the last line.
    pub async fn tollgate(&self, arguments: &str) -> String {
        println!("  operator$ tollgate {arguments}");
        let admin = self.admin.to_string();
        let output = program(self.dir.path())
            .args(["--admin", &admin])
            .args(arguments.split(' '))
            .output()
            .await
            .unwrap();
        let mut text =
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        text.lines().for_each(|line| println!("    {line}"));
        text.push_str(&format!("exit {}", output.status.code().unwrap_or(-1)));
        text
    }

    /// The access log, once it has so many records.
    pub async fn access_log(&self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(self.access_log_file()).unwrap_or_default();
            let records: Vec<Value> = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            if records.len() >= count || Instant::now() > deadline {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that the agent saw, that was logged, or that an operator is told, by name.
    pub async fn everything(&self, creds: &str, why: &str) -> Vec<(String, String)> {
        let token = std::fs::read_to_string(self.dir.path().join("state/admin.token")).unwrap();
        let mut admin = String::new();
        for path in ["metrics", "readyz", "v1/credentials", "v1/policy", "v1/ca"] {
            let authorization = format!("authorization: Bearer {}", token.trim());
            let url = format!("http://{}/{path}", self.admin);
            let output = Command::new("curl")
                .args(["-fsS", "--noproxy", "*", "-H", &authorization, &url])
                .output()
                .await
                .unwrap();
            assert!(
                output.status.success(),
                "{url}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            admin.push_str(&String::from_utf8_lossy(&output.stdout));
        }
        let pid = self.child.id().unwrap();
        // Not every user may read it: then nobody else may either.
        let environ = std::fs::read(format!("/proc/{pid}/environ"));
        let environ = environ.map_or_else(
            |e| format!("({e})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        );
        vec![
            (
                "all that the agent's commands printed".to_owned(),
                self.transcript.borrow().clone(),
            ),
            (
                "the agent's home".to_owned(),
                files(&self.dir.path().join("agent")),
            ),
            (
                "the access log".to_owned(),
                std::fs::read_to_string(self.access_log_file()).unwrap(),
            ),
            (
                "Tollgate's own output".to_owned(),
                std::fs::read_to_string(self.dir.path().join("serve.log")).unwrap(),
            ),
            (
                "Tollgate's files".to_owned(),
                files(&self.dir.path().join("state")),
            ),
            ("the admin port's answers and metrics".to_owned(), admin),
            (
                "the command line's answers".to_owned(),
                format!("{creds}{why}"),
            ),
            (format!("/proc/{pid}/environ of Tollgate"), environ),
        ]
    }

    /// Asks Tollgate to end, as Kubernetes does; whether it ended well.
    pub async fn end(mut self) -> bool {
        let pid = self.child.id().unwrap_or_default().to_string();
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap();
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.is_ok_and(|status| status.is_ok_and(|status| status.success()))
    }

    pub fn origin_ca(&self) -> String {
        self.dir.path().join("origin-ca.pem").display().to_string()
    }

    pub fn agent_file(&self) -> String {
        self.dir.path().join("agent/env.sh").display().to_string()
    }

    pub fn access_log_file(&self) -> String {
        self.dir.path().join("access.log").display().to_string()
    }

    /// A command of the operator, to be typed.
    pub fn command(&self, arguments: &str) -> String {
        let config = self.dir.path().join("tollgate.yaml");
        format!(
            "{} --config {} --admin {} {arguments}",
            binary().display(),
            config.display(),
            self.admin
        )
    }
}

/// The binary that was built beside this example.
fn binary() -> PathBuf {
    std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("tollgate")
}

fn program(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .current_dir(dir)
        .kill_on_drop(true);
    command
}

async fn ready(child: &mut Child, log: &Path) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if let Some(line) = text
            .lines()
            .find(|line| line.contains(" ready in ") && line.contains("admin="))
        {
            return line.to_owned();
        }
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "tollgate does not start:\n{text}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The contents of a directory and of those below it.
fn files(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => text.push_str(&files(&path)),
            false => text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap())),
        }
    }
    text
}

/// How often the key stands in a text, as it is or in base64.
pub fn search(text: &str, key: &str) -> usize {
    let coded = STANDARD.encode(key);
    text.matches(key).count() + text.matches(coded.trim_end_matches('=')).count()
}

/// Enough of a hash to compare, nothing to log in with.
pub fn fingerprint(key: &str) -> String {
    sha256(key.as_bytes())
        .iter()
        .take(6)
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A key of the provider's shape, new in every run.
pub fn random_key() -> String {
    let mut bytes = [0; 72];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    format!("sk-ant-api03-{}AA", &URL_SAFE_NO_PAD.encode(bytes)[..93])
}

pub fn bold(text: &str) -> String {
    paint(text, "1")
}

fn paint(text: &str, style: &str) -> String {
    let plain = !std::io::stdout().is_terminal()
        || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    if plain {
        text.to_owned()
    } else {
        format!("\x1b[{style}m{text}\x1b[0m")
    }
}

/// What came out as it must, and what did not.
#[derive(Default)]
pub struct Checks {
    passed: usize,
    failed: Vec<String>,
}

impl Checks {
    /// Counts one; an empty sentence is only counted, and said when it is not so.
    pub fn that(&mut self, what: &str, holds: bool) {
        match (holds, what) {
            (true, "") => {}
            (true, what) => println!("  {} {what}", paint("ok", "32")),
            (false, what) => println!("  {} {what}", paint("FAILED", "1;31")),
        }
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(what.to_owned());
        }
    }

    pub fn finish(self) -> ExitCode {
        println!(
            "\n{} checks passed, {} failed",
            self.passed,
            self.failed.len()
        );
        if self.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
