//! A configuration with logins on a person's machine, and the provider that they are for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::process::Command;

use super::agent::Finished;
use super::operator::finish;
use super::proxy::{Proxy, ProxyBuilder, proxy, tollgate};
use super::token_server::api::ProtectedApi;
use super::token_server::mint::Issued;
use super::token_server::server::{TokenServer, token_server};

/// A configuration on a person's machine, and the provider it is for.
pub struct Desk {
    pub server: TokenServer,
    pub api: ProtectedApi,
    pub builder: ProxyBuilder,
    pub config: PathBuf,
}

impl Desk {
    /// Claude's provider, and the preset for its logins.
    pub async fn claude() -> Self {
        // Eight hours and a half are told as `8h`, however slow the machine.
        let lifetime = Duration::from_secs(8 * 3600 + 1800);
        let server = token_server().claude().lifetime(lifetime).start().await;
        let api = server.protected_api(&["api.anthropic.com"]).await;
        Self::of(server, api, "presets: [claude-login]")
    }

    /// Codex's, likewise.
    pub async fn codex() -> Self {
        let server = token_server().codex().start().await;
        let api = server.protected_api(&["chatgpt.com"]).await;
        Self::of(server, api, "presets: [codex-login]")
    }

    /// For this provider, with this setting.
    pub fn of(server: TokenServer, api: ProtectedApi, setting: &str) -> Self {
        Self::with(server, api, |builder| builder.setting(setting))
    }

    /// For this provider, with whatever `more` adds.
    pub fn with(
        server: TokenServer,
        api: ProtectedApi,
        more: impl FnOnce(ProxyBuilder) -> ProxyBuilder,
    ) -> Self {
        let builder = more(proxy().origin(&server.origin).origin(&api.origin));
        let config = builder.write();
        Self {
            server,
            api,
            builder,
            config,
        }
    }

    /// A command of this configuration while no proxy runs.
    pub fn command(&self, line: &str) -> Command {
        // Nothing listens there.
        self.command_at(line, "127.0.0.1:1")
    }

    /// A command that looks for a running proxy's admin port at this address.
    pub fn command_at(&self, line: &str, admin: &str) -> Command {
        let home = self.config.parent().unwrap();
        let mut command = tollgate(home, &[].into());
        command.args(line.split_whitespace());
        command
            .args(["--admin", admin, "--config"])
            .arg(&self.config);
        command
    }

    /// Runs a command while no proxy does.
    pub async fn run(&self, line: &str) -> Finished {
        let finished = finish(self.command(line)).await;
        self.assert_shows_no_token(&finished);
        finished
    }

    pub fn assert_shows_no_token(&self, finished: &Finished) {
        for needle in self.server.needles() {
            for text in [&finished.stdout, &finished.stderr] {
                let found = needle.find(text.as_bytes());
                assert!(
                    found.is_none(),
                    "{} is shown, {found:?}: {text}",
                    needle.name
                );
            }
        }
    }

    /// Writes a file as its program does.
    pub fn write(&self, name: &str, content: &Value) -> PathBuf {
        let file = self.builder.path(name);
        std::fs::write(&file, content.to_string()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    pub async fn start(self) -> (TokenServer, ProtectedApi, Proxy) {
        let mut proxy = self.builder.start().await;
        proxy.forbid(self.server.sentinel());
        (self.server, self.api, proxy)
    }
}

/// `~/.claude/.credentials.json` with this login.
pub fn claude_file(login: &Issued) -> Value {
    let ends = SystemTime::now() + login.lifetime;
    let ends = ends
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    json!({"claudeAiOauth": {
        "accessToken": login.access_token, "refreshToken": login.refresh(), "expiresAt": u64::try_from(ends).unwrap(),
        "scopes": login.scope.split(' ').collect::<Vec<_>>(), "subscriptionType": "max", "rateLimitTier": "tier_4",
    }})
}

/// `~/.codex/auth.json` with this login.
pub fn codex_file(login: &Issued, account: &str) -> Value {
    json!({"auth_mode": "chatgpt", "OPENAI_API_KEY": null, "last_refresh": "2026-11-21T00:00:00Z", "tokens": {
        "id_token": login.id_token, "access_token": login.access_token, "refresh_token": login.refresh(),
        "account_id": account,
    }})
}
