//! Owns helper programs that print a secret: run without a shell and with a cleared environment,
//! within bounds of time and size. What they print never reaches an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::{ExitStatus, Stdio};
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::exec_answer::{API_VERSION, read};
use super::held::HeldCredential;
use super::source::{Fetched, Form, MAX_BYTES, SourceError};
use crate::config::source::ExecOutput;
use crate::rt::deadline::Deadline;
use crate::rt::pace::{back_off, jitter, renewal};

/// How long a helper may run when nothing is written.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a secret without an expiry is used when nothing is written.
pub const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// A helper program.
#[derive(Debug, Clone)]
pub struct Helper {
    /// The credential it is asked for.
    pub credential: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// What it prints.
    pub output: ExecOutput,
    /// What the secret in it is.
    pub form: Form,
    /// How long it may run.
    pub timeout: Duration,
    /// How long a secret without an expiry is used.
    pub ttl: Duration,
    /// Its environment besides `inherited`.
    pub env: BTreeMap<String, String>,
    /// `PATH` and `HOME` as the proxy has them.
    pub inherited: Vec<(&'static str, OsString)>,
}

impl Helper {
    /// Runs it once.
    pub async fn fetch(&self) -> Result<Fetched, SourceError> {
        let program = self.command.first().map_or("", String::as_str);
        let broken = |what: &str| SourceError::Broken(format!("the helper `{program}` {what}"));
        let mut child = self.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => SourceError::Missing(format!(
                "the helper `{program}` was not found; write its full path, or install it"
            )),
            ErrorKind::PermissionDenied => broken("may not be executed; check its mode"),
            _ => broken(&format!("cannot be started: {error}")),
        })?;
        let group = Group::of(&child);
        let run = timeout(self.timeout, converse(&mut child, &group, &self.request())).await;
        let printed = match run {
            Ok(Ok(printed)) => printed,
            Ok(Err(_)) => return Err(broken("could not be talked to")),
            Err(_) => {
                let limit = self.timeout;
                return Err(broken(&format!(
                    "did not finish within {limit:?} and was killed"
                )));
            }
        };
        if printed.stdout.len() > MAX_BYTES {
            return Err(broken("printed more than 64 KiB and was killed"));
        }
        if !printed.status.success() {
            return Err(broken(&printed.failure()));
        }
        read(
            self.output,
            self.form,
            printed.stdout,
            SystemTime::now(),
            self.ttl,
        )
        .map_err(|what| broken(&what))
    }

    /// Renews the secret ahead of its expiry, for as long as `held` lives. `first` is what the
    /// caller's own [`Helper::fetch`] has led to.
    pub async fn refresh(self, held: Weak<HeldCredential>, first: Result<SystemTime, SourceError>) {
        let mut failures = 0;
        let mut fetched = first;
        loop {
            let pause = match fetched {
                Ok(expires_at) => {
                    failures = 0;
                    let left = expires_at.duration_since(SystemTime::now());
                    renewal(left.unwrap_or_default(), jitter())
                }
                Err(_) => {
                    failures += 1;
                    back_off(failures, jitter())
                }
            };
            Deadline::after(pause).wait().await;
            let outcome = self.fetch().await;
            fetched = match &outcome {
                Ok(fetched) => Ok(fetched.expires_at.unwrap_or_else(SystemTime::now)),
                Err(error) => Err(error.clone()),
            };
            match held.upgrade() {
                Some(held) => held.report(outcome),
                None => return,
            }
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let (program, arguments) = self.command.split_first().ok_or(ErrorKind::InvalidInput)?;
        Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.inherited.iter().map(|(name, value)| (name, value)))
            .envs(&self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    fn request(&self) -> String {
        let request = serde_json::json!({
            "apiVersion": API_VERSION,
            "kind": "CredentialRequest",
            "credential": self.credential,
        });
        format!("{request}\n")
    }
}

/// What a helper left behind.
struct Printed {
    status: ExitStatus,
    stdout: Zeroizing<Vec<u8>>,
    stderr_bytes: u64,
}

impl Printed {
    fn failure(&self) -> String {
        let ended = match self.status.code() {
            Some(code) => format!("ended with exit code {code}"),
            None => "was ended by a signal".to_owned(),
        };
        let (out, err) = (self.stdout.len(), self.stderr_bytes);
        format!(
            "{ended} after printing {out} bytes, and {err} to standard error (not shown: it may hold the secret); run it by hand to see why"
        )
    }
}

async fn converse(child: &mut Child, group: &Group, request: &str) -> std::io::Result<Printed> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let printing = async {
        let stdout = collect(stdout).await?;
        if stdout.len() > MAX_BYTES {
            // It may go on printing for ever.
            group.kill();
        }
        Ok::<_, std::io::Error>(stdout)
    };
    let ending = async {
        let status = child.wait().await;
        // What it left behind may keep its output open, and has no business here any more.
        group.kill();
        status
    };
    let ((), stdout, stderr_bytes, status) =
        tokio::join!(tell(stdin, request), printing, count(stderr), ending);
    Ok(Printed {
        status: status?,
        stdout: stdout?,
        stderr_bytes: stderr_bytes?,
    })
}

/// A helper need not read its request: a closed pipe is no failure.
async fn tell(stdin: Option<ChildStdin>, request: &str) {
    if let Some(mut stdin) = stdin {
        stdin.write_all(request.as_bytes()).await.ok();
    }
}

async fn collect(stdout: Option<impl AsyncRead + Unpin>) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    if let Some(stdout) = stdout {
        stdout
            .take(MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .await?;
    }
    Ok(bytes)
}

async fn count(stderr: Option<impl AsyncRead + Unpin>) -> std::io::Result<u64> {
    match stderr {
        Some(mut stderr) => tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await,
        None => Ok(0),
    }
}

/// The helper and whatever it started; killed at the latest when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn kill(&self) {
        if let Some(group) = self.0 {
            // The group may be gone already, which is what is wanted.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::held::Need;

    fn shell(script: &str, output: ExecOutput) -> Helper {
        Helper {
            credential: "github".to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            output,
            form: Form::Line,
            timeout: Duration::from_secs(10),
            ttl: DEFAULT_TTL,
            env: BTreeMap::from([("EXTRA".to_owned(), "given".to_owned())]),
            inherited: vec![("PATH", "/usr/bin:/bin".into())],
        }
    }

    fn document(status: &str) -> String {
        format!(
            r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{status}}}"#
        )
    }

    async fn error_of(helper: Helper) -> String {
        helper.fetch().await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_kubectl_plugin_gives_token_and_expiry() {
        let status = r#"{"token":"s3cret","expirationTimestamp":"2999-01-01T00:00:00Z"}"#;
        let script = format!("cat <<'END'\n{}\nEND", document(status));
        let fetched = shell(&script, ExecOutput::Json).fetch().await.unwrap();
        assert_eq!(fetched.secret.expose(), b"s3cret");
        assert!(fetched.expires_at.unwrap() > SystemTime::now() + Duration::from_secs(1 << 30));
    }

    #[tokio::test]
    async fn a_secret_without_expiry_is_used_for_its_ttl() {
        let script = format!("cat <<'END'\n{}\nEND", document(r#"{"token":"s3cret"}"#));
        let script = script.replace("client.authentication.k8s.io/v1", API_VERSION);
        for helper in [
            shell(&script, ExecOutput::Json),
            shell("echo s3cret", ExecOutput::Text),
        ] {
            let before = SystemTime::now();
            let fetched = helper.fetch().await.unwrap();
            assert_eq!(fetched.secret.expose(), b"s3cret");
            let lasts = fetched.expires_at.unwrap().duration_since(before).unwrap();
            assert!(lasts >= DEFAULT_TTL && lasts < DEFAULT_TTL + Duration::from_secs(10));
        }
    }

    #[tokio::test]
    async fn the_helper_is_told_the_credential_and_sees_a_cleared_environment() {
        let script =
            r#"read -r line; printf '%s|%s|%s|%s' "$line" "$EXTRA" "$CARGO_MANIFEST_DIR" "$PATH""#;
        let fetched = shell(script, ExecOutput::Text).fetch().await.unwrap();
        let printed = String::from_utf8(fetched.secret.expose().to_vec()).unwrap();
        assert_eq!(
            printed,
            r#"{"apiVersion":"tollgate.dev/v1alpha1","credential":"github","kind":"CredentialRequest"}|given||/usr/bin:/bin"#
        );
    }

    #[tokio::test]
    async fn what_a_helper_prints_is_never_shown() {
        let expired =
            document(r#"{"token":"s3cret","expirationTimestamp":"2001-01-01T00:00:00Z"}"#);
        let untimely = document(r#"{"token":"s3cret","expirationTimestamp":"s3cret"}"#);
        let kind = document(r#"{"token":"s3cret"}"#).replace("ExecCredential", "Other");
        let print = |text: &str| format!("cat <<'END'\n{text}\nEND");
        for (script, output, said) in [
            (
                "echo s3cret; echo s3cret >&2; exit 3".to_owned(),
                ExecOutput::Json,
                "exit code 3 after printing 7 bytes, and 7",
            ),
            (
                "kill -9 $$".to_owned(),
                ExecOutput::Json,
                "ended by a signal",
            ),
            (
                "echo '{\"s3cret'".to_owned(),
                ExecOutput::Json,
                "no ExecCredential",
            ),
            ("true".to_owned(), ExecOutput::Json, "printed nothing"),
            ("true".to_owned(), ExecOutput::Text, "is empty"),
            (
                "printf 's3cret\\nmore'".to_owned(),
                ExecOutput::Text,
                "more than one line",
            ),
            (
                "yes s3cret".to_owned(),
                ExecOutput::Text,
                "more than 64 KiB",
            ),
            (print(&expired), ExecOutput::Json, "already expired"),
            (print(&untimely), ExecOutput::Json, "no RFC 3339 time"),
            (print(&kind), ExecOutput::Json, "another apiVersion or kind"),
            (
                print(&document("{}")),
                ExecOutput::Json,
                "no `status.token`",
            ),
        ] {
            let error = error_of(shell(&script, output)).await;
            assert!(error.contains(said), "{script}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_cannot_be_started_is_named() {
        let mut helper = shell("", ExecOutput::Json);
        helper.command = vec!["no-such-helper".to_owned()];
        assert!(
            error_of(helper.clone())
                .await
                .contains("`no-such-helper` was not found")
        );
        let plain = tempfile::NamedTempFile::new().unwrap();
        helper.command = vec![plain.path().display().to_string()];
        assert!(error_of(helper).await.contains("may not be executed"));
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let mut helper = shell(&script, ExecOutput::Text);
        helper.timeout = Duration::from_millis(500);
        assert!(
            error_of(helper)
                .await
                .contains("did not finish within 500ms")
        );
        let pid = std::fs::read_to_string(pid_file).unwrap();
        let status = format!("/proc/{}/stat", pid.trim());
        let gone = async {
            // A killed orphan stays a zombie until init reaps it.
            while std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z")) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_secret_is_renewed_ahead_of_its_expiry_and_survives_failures_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let counter = dir.path().join("runs");
        let script = format!(
            "echo x >> {0}; n=$(wc -l < {0}); if [ $n -ge 3 ]; then exit 1; fi; echo value-$n",
            counter.display()
        );
        let mut helper = shell(&script, ExecOutput::Text);
        helper.ttl = Duration::from_millis(1500);
        let held = HeldCredential::new("github", "exec:sh".to_owned(), Need::Required);
        let mut versions = held.subscribe();
        let fetched = helper.fetch().await;
        let first = fetched
            .as_ref()
            .map(|f| f.expires_at.unwrap())
            .map_err(Clone::clone);
        held.report(fetched);
        held.owns(tokio::spawn(
            helper.refresh(std::sync::Arc::downgrade(&held), first),
        ));
        versions.wait_for(|v| *v == 2).await.unwrap();
        assert_eq!(held.current().unwrap().expose(), b"value-2");
        while held.status().last_error.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(held.current().unwrap().expose(), b"value-2");
        while let Ok(secret) = held.current() {
            assert_eq!(secret.expose(), b"value-2");
            tokio::task::yield_now().await;
        }
        assert!(held.current().unwrap_err().reason.contains("expired"));
    }
}
