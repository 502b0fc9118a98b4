//! Owns a provider with its API, a proxy that owns one of its logins, and an agent that never rests.

use std::time::Duration;

use serde_json::Value;

use super::operator::{PATIENCE, until};
use super::owner::Owner;
use super::proxy::Proxy;
use super::token_server::api::ProtectedApi;
use super::token_server::server::{TokenServer, token_server};
use super::traffic::Traffic;

/// Between two requests of an agent.
pub const PAUSE: Duration = Duration::from_millis(30);
/// Of access tokens. Endpoints tell whole seconds and round down: a busy machine has nine tenths of one to spare.
pub const LIFETIME: Duration = Duration::from_millis(12_900);
/// For tokens of that life: a renewal is tried three seconds after the last one.
pub const EARLY: &str = "refreshBefore: 9s";

/// A provider, its API, and an owner of one login with an agent.
pub struct Ownership {
    pub server: TokenServer,
    pub api: ProtectedApi,
    pub proxy: Proxy,
    pub traffic: Traffic,
}

impl Ownership {
    /// With these lines in `source.oauth`.
    pub async fn with(lines: &[&str]) -> Self {
        let server = token_server().lifetime(LIFETIME).start().await;
        Self::of(server, lines).await
    }

    /// The same with a provider of a certain kind.
    pub async fn of(server: TokenServer, lines: &[&str]) -> Self {
        let api = server.protected_api(&["api.example.com"]).await;
        let owner = Owner::of(&server, &api).seeded(server.login().refresh());
        let owner = lines.iter().fold(owner, |owner, line| owner.with(line));
        let proxy = owner.build().secret(server.sentinel()).start().await;
        let traffic = proxy.traffic(PAUSE);
        traffic.passes("its first token").await;
        Self {
            server,
            api,
            proxy,
            traffic,
        }
    }

    /// Token requests so far.
    pub fn calls(&self) -> usize {
        self.server.origin.requests().len()
    }

    /// Starts the owner again; the agent follows.
    pub async fn restart(&mut self) {
        self.proxy.restart().await;
        self.traffic.moves(self.proxy.bare_door());
    }

    /// Waits for a renewal that has failed; returns the words for it.
    pub async fn failure(&self) -> String {
        let mut why = Value::Null;
        until("a renewal fails", 2 * PATIENCE, async || {
            why = self.proxy.login().await["lastError"].clone();
            why.is_string()
        })
        .await;
        why.as_str().unwrap().to_owned()
    }

    /// One login is live, nothing was spent twice, and no request carried a dead token.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.server.truth().assert_one_clean_grant();
        self.api.assert_no_stale_token();
    }
}
