//! Owns the step from a source as written to a credential held in memory and kept fresh.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::env::SealedEnv;
use super::exec::{DEFAULT_TIMEOUT, DEFAULT_TTL, Helper};
use super::file::SecretFile;
use super::held::{HeldCredential, Need};
use super::source::{Form, SourceError};
use crate::config::source::SourceSpec;

/// What sources need of the process.
#[derive(Debug, Clone, Default)]
pub struct SourceContext {
    /// The environment as it was at start, sealed.
    pub env: Arc<SealedEnv>,
    /// `PATH` for helper programs.
    pub path: Option<OsString>,
    /// `HOME` for helper programs.
    pub home: Option<OsString>,
}

/// How long the first value is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until the source has answered; each has a time limit of its own.
    Answer,
    /// This long. A source that is slower is waited for in the background.
    UpTo(Duration),
}

/// Fetches a credential for the first time and keeps it fresh for as long as the handle lives.
///
/// A first failure is not an error here: it is part of the status, and whether the proxy may be
/// ready without the secret is [`HeldCredential::is_ready`]'s answer.
pub async fn open(
    name: &str,
    spec: &SourceSpec,
    need: Need,
    patience: Patience,
    context: &SourceContext,
) -> Arc<HeldCredential> {
    open_as(Form::Line, name, spec, need, patience, context).await
}

/// The same for a source that holds a whole document: a PEM key, a JSON file.
pub async fn open_document(
    name: &str,
    spec: &SourceSpec,
    need: Need,
    patience: Patience,
    context: &SourceContext,
) -> Arc<HeldCredential> {
    open_as(Form::Document, name, spec, need, patience, context).await
}

async fn open_as(
    form: Form,
    name: &str,
    spec: &SourceSpec,
    need: Need,
    patience: Patience,
    context: &SourceContext,
) -> Arc<HeldCredential> {
    let held = HeldCredential::new(name, origin(spec), need);
    let first = begin(&held, spec, form, context);
    // A task that ended without an answer has been aborted; there is nothing to wait for.
    match patience {
        Patience::Answer => drop(first.await),
        Patience::UpTo(limit) => drop(timeout(limit, first).await),
    }
    held
}

/// Starts fetching; tells when the source has answered for the first time.
fn begin(
    held: &Arc<HeldCredential>,
    spec: &SourceSpec,
    form: Form,
    context: &SourceContext,
) -> oneshot::Receiver<()> {
    let (answered, first) = oneshot::channel();
    let weak = Arc::downgrade(held);
    let report = move |outcome| {
        if let Some(held) = weak.upgrade() {
            held.report(outcome);
        }
        answered.send(()).ok();
    };
    let weak = Arc::downgrade(held);
    match spec {
        SourceSpec::Env { name } => report(context.env.fetch(name, form)),
        SourceSpec::File { path, pointer } => {
            let file = SecretFile::new(path.clone(), pointer.clone(), form);
            held.owns(tokio::spawn(async move {
                report(file.fetch().await);
                file.follow(weak).await;
            }));
        }
        SourceSpec::Exec {
            command,
            output,
            timeout,
            ttl,
            env,
        } => {
            let inherited = [("PATH", &context.path), ("HOME", &context.home)];
            let helper = Helper {
                credential: held.name().to_owned(),
                command: command.clone(),
                output: *output,
                form,
                timeout: timeout.map_or(DEFAULT_TIMEOUT, |span| span.0),
                ttl: ttl.map_or(DEFAULT_TTL, |span| span.0),
                env: env.clone(),
                inherited: inherited
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value.clone()?)))
                    .collect(),
            };
            held.owns(tokio::spawn(async move {
                let outcome = helper.fetch().await;
                let fetched = match &outcome {
                    Ok(fetched) => Ok(fetched.expires_at.unwrap_or_else(SystemTime::now)),
                    Err(error) => Err(error.clone()),
                };
                report(outcome);
                helper.refresh(weak, fetched).await;
            }));
        }
        // Checked where documents are: a grant has an owner, and it is not a key of the process's own.
        SourceSpec::Oauth(_) => report(Err(SourceError::Broken(
            "an OAuth source cannot stand here; use env, file or exec".to_owned(),
        ))),
    }
    first
}

/// The source in one word and its place, as status shows it.
fn origin(spec: &SourceSpec) -> String {
    match spec {
        SourceSpec::Env { name } => format!("env:{name}"),
        SourceSpec::File { path, .. } => format!("file:{}", path.display()),
        // Arguments are left out: people put tokens there.
        SourceSpec::Exec { command, .. } => {
            format!("exec:{}", command.first().map_or("", String::as_str))
        }
        SourceSpec::Oauth(_) => "oauth".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::source::ExecOutput;
    use crate::credential::held::CredentialState;
    use crate::types::secret::Secret;

    #[tokio::test]
    async fn each_kind_of_source_opens_and_names_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "value\n").unwrap();
        let variables = BTreeMap::from([("KEY".to_owned(), Secret::from("value".to_owned()))]);
        let context = SourceContext {
            env: Arc::new(SealedEnv::new(variables)),
            path: Some("/usr/bin:/bin".into()),
            home: None,
        };
        let exec = SourceSpec::Exec {
            command: vec!["echo".to_owned(), "value".to_owned()],
            output: ExecOutput::Text,
            timeout: None,
            ttl: None,
            env: BTreeMap::new(),
        };
        let file = SourceSpec::File {
            path: path.clone(),
            pointer: None,
        };
        let env = SourceSpec::Env {
            name: "KEY".to_owned(),
        };
        let in_file = format!("file:{}", path.display());
        for (spec, source) in [(env, "env:KEY"), (file, &in_file), (exec, "exec:echo")] {
            let held = open("key", &spec, Need::Required, Patience::Answer, &context).await;
            let status = held.status();
            assert_eq!(
                (status.state, status.source.as_str()),
                (CredentialState::Ok, source)
            );
            assert_eq!(held.current().unwrap().expose(), b"value");
            assert!(held.is_ready());
        }
    }

    #[tokio::test]
    async fn a_dropped_credential_ends_its_refresher() {
        let dir = tempfile::tempdir().unwrap();
        let spec = SourceSpec::File {
            path: dir.path().join("key"),
            pointer: None,
        };
        let context = SourceContext::default();
        let held = open("key", &spec, Need::Optional, Patience::Answer, &context).await;
        assert!(held.is_ready() && held.current().is_err());
        let weak = Arc::downgrade(&held);
        drop(held);
        assert!(weak.upgrade().is_none());
    }

    #[tokio::test]
    async fn a_slow_source_is_waited_for_in_the_background() {
        let dir = tempfile::tempdir().unwrap();
        let gate = dir.path().join("gate");
        let script = format!(
            "until [ -e {} ]; do sleep 0.01; done; echo value",
            gate.display()
        );
        let spec = SourceSpec::Exec {
            command: ["sh", "-c", &script].map(str::to_owned).to_vec(),
            output: ExecOutput::Text,
            timeout: None,
            ttl: None,
            env: BTreeMap::new(),
        };
        let context = SourceContext {
            path: Some("/usr/bin:/bin".into()),
            ..SourceContext::default()
        };
        let patience = Patience::UpTo(Duration::from_millis(1));
        let held = open("key", &spec, Need::Required, patience, &context).await;
        assert!(!held.is_ready());
        std::fs::write(gate, "").unwrap();
        held.subscribe().wait_for(|v| *v == 1).await.unwrap();
        assert_eq!(held.current().unwrap().expose(), b"value");
    }
}
