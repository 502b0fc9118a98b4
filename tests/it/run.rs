//! The laptop's way, `tollgate run -- CMD`: a proxy for one program, which notices nothing but its
//! placeholders.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use super::support::agent::Finished;
use super::support::anthropic::{self, Account, REAL_KEY};
use super::support::echo;
use super::support::operator::{PATIENCE, finish, until};
use super::support::origin::Origin;
use super::support::proxy::{parse_dotenv, proxy, tollgate};

/// A person's machine: a home, a key in the environment, a configuration that leads to the origin.
struct Laptop {
    home: TempDir,
    config: PathBuf,
    _described: super::support::proxy::ProxyBuilder,
    env: BTreeMap<String, String>,
}

impl Laptop {
    fn with(origin: &Origin) -> Self {
        let described = proxy().origin(origin);
        let home = tempfile::tempdir().unwrap();
        let env = [
            ("ANTHROPIC_API_KEY", REAL_KEY),
            ("TMPDIR", home.path().to_str().unwrap()),
        ];
        Self {
            config: described.write(),
            _described: described,
            env: env.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            home,
        }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `tollgate run --preset anthropic --config … ARGS`.
    fn run(&self, args: &[&str]) -> Command {
        let mut command = tollgate(self.home.path(), &self.env);
        command.args(["run", "--preset", "anthropic", "--config"]);
        command.arg(&self.config).args(args);
        command
    }

    async fn sh(&self, script: &str) -> Finished {
        finish(self.run(&["--", "sh", "-c", script])).await
    }

    /// Directories that runs have left behind, or have now.
    fn scratch(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.path()).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|p| {
            p.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("tollgate-")
        });
        paths
    }
}

/// One call to the API, as any program would make it; prints the answer.
fn call(curl: &Path) -> String {
    format!(
        "{} -sS -H \"x-api-key: $ANTHROPIC_API_KEY\" -H 'anthropic-version: 2023-06-01' \
         -d '{{\"model\":\"m\",\"max_tokens\":1,\"messages\":[]}}' https://api.anthropic.com/v1/messages",
        curl.display()
    )
}

#[tokio::test]
async fn the_program_gets_a_placeholder_and_its_calls_succeed() {
    let curl = client!("curl");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    let script = format!("echo \"key=$ANTHROPIC_API_KEY\"; {}; exit 7", call(&curl));
    let finished = laptop.sh(&script).await;
    assert_eq!(finished.code, Some(7), "{finished:?}");
    assert!(finished.stdout.contains("key=sk-ant-"), "{finished:?}");
    assert!(
        finished.stdout.contains(anthropic::FINAL_TEXT),
        "{finished:?}"
    );
    assert!(!finished.stdout.contains(REAL_KEY) && !finished.stderr.contains(REAL_KEY));
    assert_eq!(
        origin.only("/v1/messages").header("x-api-key"),
        Some(REAL_KEY)
    );
    assert!(laptop.scratch().is_empty());
}

#[tokio::test]
async fn the_programs_exit_code_is_passed_on() {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    for (script, code) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 78", 78),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ] {
        let finished = laptop.sh(script).await;
        assert_eq!(finished.code, Some(code), "{script}: {finished:?}");
    }
    assert!(laptop.scratch().is_empty());
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_told_from_one_that_fails() {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    let plain = laptop.file("plain.txt");
    fs::write(&plain, "no program").unwrap();
    let plain = plain.to_str().unwrap();
    for (program, code, said) in [
        (
            "no-such-program",
            127,
            "`no-such-program` cannot be started",
        ),
        (
            "/no/such/program",
            127,
            "write its full path, or install it",
        ),
        (plain, 126, "Permission denied"),
        ("/", 126, "cannot be started"),
    ] {
        let finished = finish(laptop.run(&["--", program])).await;
        assert_eq!(finished.code, Some(code), "{program}: {finished:?}");
        assert!(finished.stderr.contains(said), "{program}: {finished:?}");
        assert!(
            finished.stderr.contains("help: "),
            "{program}: {finished:?}"
        );
    }
    assert!(laptop.scratch().is_empty());
}

#[tokio::test]
async fn a_proxy_that_cannot_start_is_125_and_the_program_never_runs() {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin).env("TMPDIR", "/dev/null");
    let marker = laptop.file("marker");
    let touch = ["--", "touch", marker.to_str().unwrap()];
    let finished = finish(laptop.run(&touch)).await;
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(
        finished.stderr.contains("set XDG_RUNTIME_DIR or TMPDIR"),
        "{finished:?}"
    );

    let laptop = Laptop::with(&origin);
    let log = [&["--access-log", "/dev/null/access.log"], &touch[..]].concat();
    let finished = finish(laptop.run(&log)).await;
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(
        finished.stderr.contains("cannot write the access log"),
        "{finished:?}"
    );
    assert!(!marker.exists() && laptop.scratch().is_empty());
}

#[tokio::test]
async fn a_credential_that_is_needed_and_missing_stops_before_the_program() {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin).without("ANTHROPIC_API_KEY");
    let marker = laptop.file("marker");
    let policy = laptop.file("policy.yaml");
    let touch = [
        "--policy",
        policy.to_str().unwrap(),
        "--",
        "touch",
        marker.to_str().unwrap(),
    ];
    let needed = "apiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\nmetadata: {name: needed}\nspec:\n  \
         hosts: [api.example.com]\n  source: {env: {name: NEEDED}}\n  placements: [{bearer: {}}]\n";
    for (documents, said) in [
        (
            needed.to_owned(),
            "credential needed: the variable `NEEDED` is not set",
        ),
        (
            needed.replace("placements", "placement"),
            "did you mean `placements`?",
        ),
        (String::new(), "policy.yaml"),
    ] {
        match documents.is_empty() {
            true => fs::remove_file(&policy).unwrap(),
            false => fs::write(&policy, &documents).unwrap(),
        }
        let finished = finish(laptop.run(&touch)).await;
        assert_eq!(finished.code, Some(78), "{finished:?}");
        assert!(finished.stderr.contains(said), "{finished:?}");
        assert!(!marker.exists() && laptop.scratch().is_empty());
    }
    let mut nothing = tollgate(laptop.home.path(), &laptop.env);
    nothing.args(["run", "--", "touch"]).arg(&marker);
    let finished = finish(nothing).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(
        finished
            .stderr
            .contains("nothing says where the program may go"),
        "{finished:?}"
    );
    assert!(!marker.exists());
}

/// Starts a script and waits until it says `ready`.
async fn started(laptop: &Laptop, script: &str) -> (Child, BufReader<tokio::process::ChildStdout>) {
    let mut command = laptop.run(&["--", "sh", "-c", script]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let read = tokio::time::timeout(PATIENCE, stdout.read_line(&mut line));
    read.await.unwrap().unwrap();
    assert_eq!(line, "ready\n");
    (child, stdout)
}

async fn ended(mut child: Child) -> Option<i32> {
    let ended = tokio::time::timeout(PATIENCE, child.wait());
    ended.await.expect("it does not end").unwrap().code()
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args([name, &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn signals_reach_the_program_and_decide_the_exit_code() {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    for (name, code) in [
        ("-TERM", 143),
        ("-HUP", 129),
        ("-USR1", 138),
        ("-USR2", 140),
        ("-INT", 130),
        ("-QUIT", 131),
    ] {
        let (child, _stdout) = started(&laptop, "echo ready; exec sleep 600").await;
        assert_eq!(laptop.scratch().len(), 1);
        let mode = fs::metadata(&laptop.scratch()[0])
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        signal(&child, name).await;
        assert_eq!(ended(child).await, Some(code), "{name}");
        assert!(laptop.scratch().is_empty(), "{name}");
    }
}

/// A program that tidies up may need the network for it: the proxy ends after it, not before.
#[tokio::test]
async fn a_program_can_still_call_out_while_it_handles_a_signal() {
    let curl = client!("curl");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    let tidy = laptop.file("tidy.sh");
    fs::write(&tidy, format!("{}; echo\n", call(&curl))).unwrap();
    for name in ["TERM", "INT", "HUP"] {
        let script = format!(
            "trap 'sh {}; exit 9' {name}; echo ready; while :; do sleep 0.05; done",
            tidy.display()
        );
        let (child, mut stdout) = started(&laptop, &script).await;
        signal(&child, &format!("-{name}")).await;
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stdout.read_line(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.contains(anthropic::FINAL_TEXT), "{name}: {answer}");
        assert_eq!(ended(child).await, Some(9), "{name}");
    }
}

#[tokio::test]
async fn standard_streams_are_the_programs_own() {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    let bytes = echo::pattern(1 << 20);
    let mut command = laptop.run(&["-q", "--", "sh", "-c", "cat; echo complaint >&2"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writing = tokio::spawn(async move { stdin.write_all(&sent).await });
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    writing.await.unwrap().unwrap();
    assert!(
        output.stdout == bytes,
        "{} bytes came back",
        output.stdout.len()
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "complaint\n");
    // Without -q there is one line beside it, and never on standard output.
    let finished = laptop.sh("echo result").await;
    assert_eq!(finished.stdout, "result\n");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
}

/// People export a key twice, or write it into a URL.
#[tokio::test]
async fn a_secret_is_taken_out_of_the_programs_environment_under_whatever_name() {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin)
        .env("COPY_OF_IT", REAL_KEY)
        .env("SOME_URL", &format!("https://user:{REAL_KEY}@example.com/"))
        .env("HARMLESS", "stays");
    let finished = laptop.sh("env; tr '\\0' '\\n' </proc/self/environ").await;
    let variables = parse_dotenv(finished.ok());
    assert!(!finished.stdout.contains(REAL_KEY), "{finished:?}");
    assert!(variables["ANTHROPIC_API_KEY"].starts_with("sk-ant-api03-"));
    assert_eq!(variables["HARMLESS"], "stays");
    for gone in ["COPY_OF_IT", "SOME_URL", "TOLLGATE_SEALED_FD"] {
        assert!(!variables.contains_key(gone), "{gone}");
    }
}

/// Build tools start compilers that start downloaders.
#[tokio::test]
async fn what_the_program_starts_can_use_the_proxy_too() {
    let curl = client!("curl");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    let call_file = laptop.file("call.sh");
    fs::write(&call_file, call(&curl)).unwrap();
    let (file, done) = (call_file.display(), laptop.file("done"));
    let script = format!(
        "setsid sh -c '(sh {file} >{0}.new; mv {0}.new {0}) &' ; until [ -s {0} ]; do sleep 0.05; done; cat {0}",
        done.display()
    );
    let finished = laptop.sh(&script).await;
    assert!(
        finished.ok().contains(anthropic::FINAL_TEXT),
        "{finished:?}"
    );
}

/// A program that ends while something of its own still talks is not waited for long.
#[tokio::test]
async fn a_grandchild_that_hangs_on_does_not_keep_the_run_alive() {
    let curl = client!("curl");
    let echo = echo::echo().await;
    let laptop = Laptop::with(&echo.origin).env("ECHO", echo::REAL_KEY);
    let policy = laptop.file("policy.yaml");
    fs::write(&policy, ECHO_POLICY).unwrap();
    let hang = format!(
        "{} -sN -H \"authorization: Bearer $ECHO_KEY\" https://echo.example.com/gated >/dev/null 2>&1 & echo $!; exit 3",
        curl.display()
    );
    let run = laptop.run(&[
        "--policy",
        policy.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        &hang,
    ]);
    let finished = finish(run).await;
    assert_eq!(finished.code, Some(3), "{finished:?}");
    assert!(laptop.scratch().is_empty());
    let stat = format!("/proc/{}/stat", finished.stdout.trim());
    let gone = async || fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z"));
    until("curl ends when the proxy does", PATIENCE, gone).await;
}

const ECHO_POLICY: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: EgressPolicy
metadata: {name: echo}
spec:
  egress: [{hosts: [echo.example.com], credentials: [echo]}]
---
apiVersion: tollgate.dev/v1alpha1
kind: EgressCredential
metadata: {name: echo}
spec:
  hosts: [echo.example.com]
  source: {env: {name: ECHO}}
  placements: [{bearer: {}}]
  placeholder: {value: echo-placeholder-0001, env: [ECHO_KEY]}
";

#[tokio::test]
async fn a_policy_file_alone_is_enough_and_nothing_else_is_allowed() {
    let curl = client!("curl");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin).env("ECHO", echo::REAL_KEY);
    // A configuration where one is looked for does not count beside a policy that is named.
    let policy = laptop.file("policy.yaml");
    fs::write(&policy, ECHO_POLICY).unwrap();
    fs::write(laptop.file("tollgate.yaml"), "broken: [").unwrap();
    let mut command = tollgate(laptop.home.path(), &laptop.env);
    let script = format!(
        "echo \"$ECHO_KEY $ECHO\"; {} -sS -o /dev/null -w '%{{http_connect}}' https://api.anthropic.com/",
        curl.display()
    );
    command.args([
        "run",
        "--policy",
        policy.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let finished = finish(command).await;
    assert!(
        finished.stdout.starts_with("echo-placeholder-0001 \n"),
        "{finished:?}"
    );
    assert!(finished.stdout.ends_with("403"), "{finished:?}");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn the_environment_is_printed_instead_when_that_is_asked_for() {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    let finished = finish(laptop.run(&["--print-env"])).await;
    let variables = parse_dotenv(finished.ok());
    assert!(variables["ANTHROPIC_API_KEY"].starts_with("sk-ant-api03-"));
    assert!(variables["HTTPS_PROXY"].starts_with("http://127.0.0.1:"));
    for name in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"] {
        assert!(
            variables[name].starts_with(laptop.home.path().to_str().unwrap()),
            "{variables:?}"
        );
    }
    assert!(
        finished
            .stdout
            .lines()
            .all(|line| line.starts_with("export ")),
        "{finished:?}"
    );
    assert!(!finished.stdout.contains(REAL_KEY) && laptop.scratch().is_empty());
}

/// No key is ever on a disk, and no two runs share one.
#[tokio::test]
async fn the_authority_is_of_this_run_only() {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    let script = "cat \"$NODE_EXTRA_CA_CERTS\"; grep -rl 'PRIVATE KEY' \"$TMPDIR\" >&2; true";
    let (first, second) = (laptop.sh(script).await, laptop.sh(script).await);
    assert!(
        first.ok().starts_with("-----BEGIN CERTIFICATE-----"),
        "{first:?}"
    );
    assert_ne!(first.stdout, second.ok());
    assert_eq!(
        first.stderr.lines().count(),
        1,
        "a key on the disk: {first:?}"
    );
}

#[tokio::test]
async fn a_run_says_at_its_end_what_there_was() {
    let curl = client!("curl");
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin);
    let denied = format!("{} -sS https://denied.example.com/ || true", curl.display());
    let finished = laptop.sh(&format!("{}; {denied}", call(&curl))).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let last = finished.stderr.lines().last().unwrap();
    let told = "tollgate: 2 requests, 1 denied (denied.example.com: host_not_allowed), ";
    assert!(last.starts_with(told) && last.ends_with('s'), "{last}");
    let quiet = finish(laptop.run(&["--quiet", "--", "true"])).await;
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
}

/// A laptop whose calls are held to one limit of a request, for the stretch of time that `window` says.
async fn capped(window: &str) -> (Laptop, Origin) {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let laptop = Laptop::with(&origin).env("XDG_STATE_HOME", "");
    let budget = format!(
        "apiVersion: tollgate.dev/v1alpha1\nkind: EgressBudget\nmetadata: {{name: cap}}\nspec:\n  \
         limits: [{{unit: requests, max: 1, window: {window}}}]\n"
    );
    fs::write(laptop.file("budget.yaml"), budget).unwrap();
    (laptop, origin)
}

/// The statuses of so many calls in one run.
async fn statuses(laptop: &Laptop, curl: &Path, calls: usize) -> Vec<String> {
    let quiet = "-sS -o /dev/null -w '%{http_code}\\n' -H 'content-type: application/json'";
    let call = call(curl).replacen("-sS", quiet, 1);
    let script = vec![call; calls].join("; ");
    let budget = laptop.file("budget.yaml");
    let finished = finish(laptop.run(&[
        "--policy",
        budget.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        &script,
    ]))
    .await;
    finished.ok().lines().map(str::to_owned).collect()
}

/// Each run would have all of a month's money otherwise.
#[tokio::test]
async fn what_one_run_has_spent_the_next_one_has_not() {
    let curl = client!("curl");
    let (laptop, origin) = capped("total").await;
    assert_eq!(statuses(&laptop, &curl, 1).await, ["200"]);
    assert_eq!(statuses(&laptop, &curl, 2).await, ["402", "402"]);
    assert_eq!(origin.requests_for("/v1/messages").len(), 1);
    let mut spend = tollgate(laptop.home.path(), &laptop.env);
    spend.arg("spend").arg("--config").arg(&laptop.config);
    let spend = finish(spend).await;
    assert!(spend.stdout.contains("me     $0.00  1 "), "{spend:?}");
}

/// Limits by the execution are of one run, and runs beside each other do not wait for their books.
#[tokio::test]
async fn a_run_is_an_execution_with_limits_of_its_own() {
    let curl = client!("curl");
    let (laptop, origin) = capped("execution").await;
    let (one, other) = tokio::join!(statuses(&laptop, &curl, 2), statuses(&laptop, &curl, 2));
    assert_eq!([one, other].concat(), ["200", "402", "200", "402"]);
    assert_eq!(origin.requests_for("/v1/messages").len(), 2);
}
