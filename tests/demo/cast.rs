//! Owns who takes part in the demo of OAuth: the provider, the person with a login, the agent's script,
//! and Tollgate between them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::checks::{Checks, fingerprint};
use super::stage::Stage;
use super::token_server::api::{ProtectedApi, Seen, Verdict};
use super::token_server::server::{TokenServer, token_server};
use super::tollgate::{PATIENCE, Tollgate};

/// The credential that the preset `claude-login` brings.
pub const LOGIN: &str = "claude-login";
/// How long access tokens live where nobody is to wait for their end.
pub const HOURS: Duration = Duration::from_secs(8 * 3600);

/// Asks for a model's words, with the file that it is given or a short question.
const ASK: &str = r#"#!/bin/sh
curl -sS -w '\n%{http_code}\n' -H "authorization: Bearer $CLAUDE_CODE_OAUTH_TOKEN" \
     -H 'anthropic-version: 2023-06-01' -H 'anthropic-beta: oauth-2025-04-20' \
     -d "@${1:-question.json}" https://api.anthropic.com/v1/messages
"#;
/// Claude Code's own refresh, with the token that it is given.
const REFRESH: &str = r#"#!/bin/sh
curl -sS -w '\n%{http_code}\n' -H 'content-type: application/json' https://platform.claude.com/v1/oauth/token \
     -d '{"grant_type":"refresh_token","refresh_token":"'"$1"'","client_id":"9d1c250a-e61b-44d9-88ed-5944d1962f5e",
          "scope":"user:profile user:inference"}'
"#;
const QUESTION: &str =
    r#"{"model":"claude-demo","max_tokens":16,"messages":[{"role":"user","content":"Hi"}]}"#;

pub struct Cast {
    pub server: TokenServer,
    pub api: ProtectedApi,
    pub stage: Stage,
    pub checks: Checks,
    /// What the agent holds, from when it was told.
    pub placeholder: String,
}

impl Cast {
    pub async fn gather() -> Self {
        let server = token_server().claude().start().await;
        let api = server.protected_api(&["api.anthropic.com"]).await;
        let stage = Stage::set(&[&server.origin, &api.origin], LOGIN, "", &[]).await;
        std::fs::write(stage.path("agent/ask"), ASK).unwrap();
        std::fs::write(stage.path("agent/refresh"), REFRESH).unwrap();
        std::fs::write(stage.path("agent/question.json"), QUESTION).unwrap();
        Self {
            server,
            api,
            stage,
            checks: Checks::default(),
            placeholder: String::new(),
        }
    }

    /// Where Tollgate keeps the login.
    pub fn store(&self) -> PathBuf {
        self.stage.path(&format!("state/oauth/{LOGIN}.json"))
    }

    /// The permission bits of the store.
    pub fn store_mode(&self) -> u32 {
        let data = std::fs::metadata(self.store()).unwrap();
        data.permissions().mode() & 0o777
    }

    /// The agent asks, unseen; the status is the last line.
    pub async fn ask(&self) -> String {
        self.stage.agent("sh ask").await
    }

    /// The agent asks, on the terminal.
    pub async fn show_ask(&self) -> String {
        self.stage.show("sh ask").await
    }

    /// The agent asks until it is answered: Tollgate looks every second for what others have stored.
    pub async fn ask_until_answered(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if answered(&self.ask().await) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// What the API saw last.
    pub fn last_seen(&self) -> Seen {
        self.api.seen().pop().expect("a request")
    }

    /// A request as the API saw it, without its token.
    pub fn tell_seen(seen: &Seen) {
        let token = seen.token.as_deref().unwrap_or_default();
        println!(
            "  origin    {} {}  bearer token: sha256 {}...  {:?}",
            seen.method,
            seen.target,
            fingerprint(token),
            seen.verdict
        );
    }

    /// How often the token endpoint was called.
    pub fn calls(&self) -> usize {
        let requests = self.server.origin.requests();
        let calls = requests.iter().filter(|r| r.path() == "/v1/oauth/token");
        calls.count()
    }

    /// Requests with a token of which Tollgate could know that it was worth nothing.
    pub fn stale(&self) -> usize {
        let is_stale = |seen: &&Seen| {
            !matches!(
                seen.verdict,
                Verdict::Live | Verdict::Withdrawn | Verdict::Missing
            )
        };
        self.api.seen().iter().filter(is_stale).count()
    }

    /// Ends all processes and tells the tally.
    pub async fn bow(self, others: Vec<Tollgate>) -> ExitCode {
        let Self {
            stage, mut checks, ..
        } = self;
        let mut ended = stage.tollgate.end().await;
        for other in others {
            ended &= other.end().await;
        }
        checks.that("all processes of Tollgate end in good order", ended);
        checks.finish()
    }
}

/// Whether the model's words came.
pub fn answered(text: &str) -> bool {
    text.ends_with("\n200\n") && text.contains(super::messages::FINAL_TEXT)
}
