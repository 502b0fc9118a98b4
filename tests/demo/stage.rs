//! Owns what a demo plays on: Tollgate's files, the agent's home, and all that anybody was told.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::origin::Origin;
use super::tollgate::{PATIENCE, Tollgate, binary, program};

pub struct Stage {
    /// The process that the agent's variables name.
    pub tollgate: Tollgate,
    backstage: Backstage,
    /// All that the agent's commands printed.
    transcript: RefCell<String>,
    /// All that the operator's commands printed.
    told: RefCell<String>,
}

/// Where processes start.
struct Backstage {
    dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
    starts: Cell<usize>,
}

impl Backstage {
    async fn start(&self) -> Tollgate {
        let number = self.starts.get() + 1;
        self.starts.set(number);
        let log = self.dir.path().join(format!("serve-{number}.log"));
        let variables = self.variables.iter();
        let variables: Vec<(&str, &str)> =
            variables.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        Tollgate::serve(self.dir.path(), &log, &variables).await
    }

    /// Gives the agent what `tollgate env` prints.
    async fn equip(&self, tollgate: &Tollgate) {
        let address = tollgate.listen.to_string();
        let mut env = program(self.dir.path());
        let output = env.args(["env", "--address", &address]).output().await;
        let output = output.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        std::fs::write(self.dir.path().join("agent/env.sh"), output.stdout).unwrap();
    }
}

impl Stage {
    /// Writes a configuration of a few lines and starts Tollgate with it. `documents` come after it.
    pub async fn set(
        origins: &[&Origin],
        preset: &str,
        documents: &str,
        variables: &[(&str, &str)],
    ) -> Self {
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
             presets: [{preset}]\n  upstream:\n    roots: {{ file: origin-ca.pem }}\n    resolve:\n{resolve}{documents}"
        );
        std::fs::write(dir.path().join("tollgate.yaml"), config).unwrap();
        let variables = variables.iter();
        let backstage = Backstage {
            dir,
            variables: variables
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            starts: Cell::default(),
        };
        let tollgate = backstage.start().await;
        backstage.equip(&tollgate).await;
        Self {
            tollgate,
            backstage,
            transcript: RefCell::default(),
            told: RefCell::default(),
        }
    }

    /// Another process with the same files.
    pub async fn another(&self) -> Tollgate {
        self.backstage.start().await
    }

    /// Starts anew after the process was killed.
    pub async fn restart(&mut self) {
        self.tollgate = self.another().await;
        self.backstage.equip(&self.tollgate).await;
    }

    // --- the agent

    /// Runs a shell command as the agent: what `tollgate env` prints is all it has. Returns what it sees.
    pub async fn agent(&self, command: &str) -> String {
        let home = self.path("agent");
        let output = Command::new("sh")
            .args(["-c", &format!(". ./env.sh; {command}")])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .current_dir(&home)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(PATIENCE, output)
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

    // --- the operator

    /// Runs Tollgate's command line as its operator, on the terminal; its exit code is the last line.
    pub async fn operator(&self, arguments: &str) -> String {
        self.converse(arguments, |_| None).await
    }

    /// The same with a person who reads along: what `answer` makes of a line is typed.
    pub async fn converse(
        &self,
        arguments: &str,
        mut answer: impl FnMut(&str) -> Option<String>,
    ) -> String {
        println!("  operator$ tollgate {arguments}");
        let mut child = program(self.backstage.dir.path())
            .args(["--admin", &self.tollgate.admin.to_string()])
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut typed = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = String::new();
        while let Some(line) = timeout(PATIENCE, lines.next_line())
            .await
            .expect("the command goes on")
            .unwrap()
        {
            println!("    {line}");
            text.push_str(&format!("{line}\n"));
            if let Some(answer) = answer(&line) {
                println!("    (the person pastes what the page shows)");
                typed.write_all(answer.as_bytes()).await.unwrap();
            }
        }
        let mut complaints = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut complaints).await.unwrap();
        complaints.lines().for_each(|line| println!("    {line}"));
        let status = child.wait().await.unwrap();
        text.push_str(&complaints);
        text.push_str(&format!("exit {}", status.code().unwrap_or(-1)));
        self.told.borrow_mut().push_str(&text);
        text
    }

    /// Has a process renew a credential's token, and does not wait for it.
    pub fn begin_refresh(&self, credential: &str) -> tokio::process::Child {
        let path = format!("v1/credentials/{credential}/refresh");
        println!(
            "  operator$ curl -X POST http://{}/{path}",
            self.tollgate.admin
        );
        let mut curl = self.tollgate.admin(&self.admin_token(), "POST", &path);
        let silent = curl.stdout(Stdio::null()).stderr(Stdio::null());
        silent.spawn().unwrap()
    }

    /// The access log, once it has so many records.
    pub async fn access_log(&self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(self.path("access.log")).unwrap_or_default();
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

    pub fn admin_token(&self) -> String {
        let token = std::fs::read_to_string(self.path("state/admin.token"));
        token.unwrap().trim().to_owned()
    }

    /// Everything that the agent saw, that was logged, or that an operator is told, by name; of Tollgate's
    /// files all but those in `kept`.
    pub async fn everything(&self, others: &[Tollgate], kept: &[PathBuf]) -> Vec<(String, String)> {
        let token = self.admin_token();
        let (mut admin, mut processes) = (String::new(), String::new());
        for tollgate in others.iter().chain([&self.tollgate]) {
            admin.push_str(&tollgate.answers(&token).await);
            processes.push_str(&tollgate.proc_files());
        }
        let mut output = String::new();
        for number in 1..=self.backstage.starts.get() {
            let log = self.path(&format!("serve-{number}.log"));
            output.push_str(&std::fs::read_to_string(log).unwrap());
        }
        let log = std::fs::read_to_string(self.path("access.log")).unwrap();
        let places = [
            (
                "all that the agent's commands printed",
                self.transcript.borrow().clone(),
            ),
            ("the agent's home", files(&self.path("agent"), &[])),
            ("the access log", log),
            ("Tollgate's own output", output),
            ("Tollgate's files", files(&self.path("state"), kept)),
            ("the admin port's answers and metrics", admin),
            ("the command line's answers", self.told.borrow().clone()),
            ("/proc/*/environ and cmdline of Tollgate", processes),
        ];
        let named = places.map(|(name, text)| (name.to_owned(), text));
        named.into()
    }

    // --- files

    /// A file of Tollgate's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.backstage.dir.path().join(name)
    }

    /// A command of the operator, to be typed.
    pub fn command(&self, arguments: &str) -> String {
        let config = self.path("tollgate.yaml");
        format!(
            "{} --config {} --admin {} {arguments}",
            binary().display(),
            config.display(),
            self.tollgate.admin
        )
    }
}

/// The contents of a directory and of those below it, without the files in `left_out`.
fn files(dir: &Path, left_out: &[PathBuf]) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if left_out.contains(&path) {
            continue;
        }
        match path.is_dir() {
            true => text.push_str(&files(&path, left_out)),
            false => text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap())),
        }
    }
    text
}
