//! Owns one run of a real client: fresh home, cleared environment, nothing secret in or out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use super::door::Door;

/// A machine-like home for a client.
pub struct Agent {
    home: TempDir,
    env: BTreeMap<String, String>,
    forbidden: Vec<String>,
}

/// What a client left behind.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Agent {
    /// An agent that goes out by this door.
    pub fn at(door: &Door) -> Self {
        let mut agent = Self::alone();
        agent.env.extend(door.env.clone());
        agent.forbidden = door.forbidden.clone();
        agent
    }

    /// An agent that has what the door gave it, but for the proxy: it is told a base URL instead.
    pub fn without_proxy(door: &Door) -> Self {
        let mut agent = Self::at(door);
        agent
            .env
            .retain(|name, _| !name.to_lowercase().ends_with("_proxy"));
        agent
    }

    /// An agent that knows no proxy.
    pub fn alone() -> Self {
        let home = tempfile::tempdir().unwrap();
        let work = home.path().join("work");
        std::fs::create_dir(&work).unwrap();
        let path = std::env::var("PATH").unwrap();
        let at = |p: &Path| p.display().to_string();
        let env = BTreeMap::from([
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), at(home.path())),
            ("TMPDIR".to_owned(), at(home.path())),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("NO_PROXY".to_owned(), String::new()),
            ("no_proxy".to_owned(), String::new()),
            ("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned()),
            ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
        ]);
        Self {
            home,
            env,
            forbidden: Vec::new(),
        }
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    /// A variable it was given.
    #[track_caller]
    pub fn var(&self, name: &str) -> &str {
        self.env
            .get(name)
            .unwrap_or_else(|| panic!("the agent has no {name}: {:?}", self.env.keys()))
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where commands run.
    pub fn work(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// Runs to the end, at most 110 s; checks that no secret is in the environment or the output.
    pub async fn run<S: AsRef<OsStr>>(&self, program: &Path, args: &[S]) -> Finished {
        let child = self.command(program, args).spawn().unwrap();
        let output = tokio::time::timeout(Duration::from_secs(110), child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("{} did not end within 110 s", program.display()))
            .unwrap();
        let finished = Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        self.assert_harmless("the output", &finished.stdout);
        self.assert_harmless("the errors", &finished.stderr);
        finished
    }

    /// A program of this agent's, about to start; checks that no secret is in its environment.
    pub fn command<S: AsRef<OsStr>>(&self, program: &Path, args: &[S]) -> Command {
        for (name, value) in &self.env {
            self.assert_harmless(&format!("the environment ({name})"), value);
        }
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(&self.env)
            .current_dir(self.work())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Checks that a text holds no secret.
    #[track_caller]
    pub fn assert_harmless(&self, place: &str, text: &str) {
        for secret in &self.forbidden {
            assert!(!text.contains(secret), "the secret is in {place}: {text}");
        }
    }
}

impl Finished {
    /// The output of a success.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(
            self.code,
            Some(0),
            "\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout,
            self.stderr
        );
        &self.stdout
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.ok())
            .unwrap_or_else(|e| panic!("{e}\n{}\n{}", self.stdout, self.stderr))
    }

    /// JSON objects, one a line; other lines are passed over.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect()
    }
}
