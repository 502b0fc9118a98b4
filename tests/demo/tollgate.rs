//! Owns one process of Tollgate: how it starts, is asked, and ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

/// Long enough for a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Tollgate {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    /// What it says when it serves.
    pub ready: String,
    child: Child,
}

impl Tollgate {
    /// Serves what `tollgate.yaml` of this directory says, with these variables.
    pub async fn serve(dir: &Path, log: &Path, variables: &[(&str, &str)]) -> Self {
        let output = std::fs::File::create(log).unwrap();
        let mut child = program(dir)
            .arg("serve")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("target/debug/tollgate is there: cargo build --bin tollgate");
        let ready = ready(&mut child, log).await;
        let address = |key: &str| {
            ready
                .split(' ')
                .find_map(|word| word.strip_prefix(key)?.parse().ok())
                .unwrap()
        };
        Self {
            listen: address("listen="),
            admin: address("admin="),
            ready,
            child,
        }
    }

    /// curl, with the admin token, towards the admin port.
    pub fn admin(&self, token: &str, method: &str, path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-fsS", "--noproxy", "*", "-X", method, "-H"])
            .arg(format!("authorization: Bearer {token}"))
            .arg(format!("http://{}/{path}", self.admin))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        curl
    }

    /// What the admin port says of everything.
    pub async fn answers(&self, token: &str) -> String {
        let mut told = String::new();
        for path in ["metrics", "readyz", "v1/credentials", "v1/policy", "v1/ca"] {
            let output = self.admin(token, "GET", path).output().await.unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{path}: {error}");
            told.push_str(&String::from_utf8_lossy(&output.stdout));
        }
        told
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Its environment and command line, as the system shows them.
    pub fn proc_files(&self) -> String {
        let files = ["environ", "cmdline"].map(|name| format!("/proc/{}/{name}", self.pid()));
        // Not every user may read them: then nobody else may either.
        let read = files.map(|file| match std::fs::read(file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("({error})"),
        });
        read.join("\n")
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to end, as Kubernetes does; whether it ended well.
    pub async fn end(mut self) -> bool {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(sent.unwrap().success());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.is_ok_and(|status| status.is_ok_and(|status| status.success()))
    }
}

/// The binary that was built beside this example.
pub fn binary() -> PathBuf {
    let example = std::env::current_exe().unwrap();
    example.ancestors().nth(2).unwrap().join("tollgate")
}

/// Tollgate's command line, in this directory and with an empty environment.
pub fn program(dir: &Path) -> Command {
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
