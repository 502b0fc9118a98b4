//! Owns proxies that own a grant of the token server's: how they are set up, and what is asked of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::operator::{PATIENCE, Said, until};
use super::proxy::{Proxy, ProxyBuilder, proxy};
use super::token_server::api::ProtectedApi;
use super::token_server::server::TokenServer;
use super::traffic::Traffic;

pub const HOST: &str = "api.example.com";
pub const PLACEHOLDER: &str = "login-placeholder-0001";

/// Describes an owner of `server`'s grants, for `api`. Its credential is called `login`.
pub struct Owner {
    source: String,
    pub builder: ProxyBuilder,
}

impl Owner {
    pub fn of(server: &TokenServer, api: &ProtectedApi) -> Self {
        Self::at(server, api, proxy().origin(&server.origin))
    }

    /// One that finds the token server where `builder` says, or not at all.
    pub fn at(server: &TokenServer, api: &ProtectedApi, builder: ProxyBuilder) -> Self {
        let builder = builder
            .origin(&api.origin)
            .policy(&format!("- {{hosts: [{HOST}], credentials: [login]}}"));
        Self {
            source: String::new(),
            builder,
        }
        .with(&format!("tokenEndpoint: {}", server.url()))
        .with(&format!("clientId: {}", server.client_id()))
    }

    /// One more line of `source.oauth`.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.source.push_str(&format!("    {line}\n"));
        self
    }

    #[must_use]
    pub fn store(self, path: &Path) -> Self {
        self.with(&format!("store: {{file: {{path: {}}}}}", path.display()))
    }

    #[must_use]
    pub fn seed(self, path: &Path) -> Self {
        self.with(&format!("seed: {{file: {{path: {}}}}}", path.display()))
    }

    /// A seed of its own.
    #[must_use]
    pub fn seeded(self, refresh_token: &str) -> Self {
        let path = self.builder.path("seed");
        std::fs::write(&path, refresh_token).unwrap();
        self.seed(&path)
    }

    pub fn build(self) -> ProxyBuilder {
        let spec = format!(
            "hosts: [{HOST}]\nplacements: [{{bearer: {{}}}}]\nplaceholder: {{value: {PLACEHOLDER}}}\n\
             source:\n  oauth:\n{}",
            self.source
        );
        self.builder.document("EgressCredential", "login", &spec)
    }

    pub async fn start(self) -> Proxy {
        self.build().start().await
    }
}

impl Proxy {
    /// An agent that asks the API all the time.
    pub fn traffic(&self, pause: Duration) -> Traffic {
        Traffic::at(self.bare_door(), HOST, PLACEHOLDER, pause)
    }

    /// What the admin port says of the credential.
    pub async fn login(&self) -> Value {
        let listed = self.admin("GET", "/v1/credentials").await.json();
        let all = listed["credentials"].as_array().unwrap();
        all.iter().find(|c| c["name"] == "login").unwrap().clone()
    }

    /// Waits until the credential is in one of these states; returns what the admin port says then.
    pub async fn settles(&self, states: &[&str]) -> Value {
        let mut login = Value::Null;
        until(
            &format!("the login is {states:?}"),
            2 * PATIENCE,
            async || {
                login = self.login().await;
                states.iter().any(|state| login["state"] == *state)
            },
        )
        .await;
        login
    }

    /// Renews the token now.
    pub async fn refresh(&self) -> Said {
        self.admin("POST", "/v1/credentials/login/refresh").await
    }

    /// Orders the same and does not wait for the outcome, which the process may not live to see.
    pub async fn order_refresh(&self) -> TcpStream {
        let token = std::fs::read_to_string(self.file("state/admin.token")).unwrap();
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let order = format!(
            "POST /v1/credentials/login/refresh HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Length: 0\r\n\r\n",
            self.admin,
            token.trim()
        );
        stream.write_all(order.as_bytes()).await.unwrap();
        stream
    }

    /// Where the grant is kept that names no store.
    pub fn own_store(&self) -> PathBuf {
        self.file("state/oauth/login.json")
    }
}

/// What a store holds.
#[derive(Debug)]
pub struct Stored(pub Value);

impl Stored {
    /// Nothing before the first login.
    pub fn read(path: &Path) -> Option<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Some(Self(serde_json::from_slice(&bytes).unwrap())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    pub fn refresh_token(&self) -> &str {
        self.0["tokens"]["refresh"].as_str().unwrap()
    }

    pub fn generation(&self) -> u64 {
        self.0["generation"].as_u64().unwrap()
    }

    pub fn has_intent(&self) -> bool {
        self.0.get("intent").is_some()
    }

    pub fn needs_login(&self) -> Option<&str> {
        self.0["needsLogin"]["why"].as_str()
    }
}

/// The state is `needsLogin`, in words that a person understands, for operators and for the agent.
pub async fn assert_needs_login(proxy: &Proxy, traffic: &Traffic) {
    let login = proxy.settles(&["needsLogin"]).await;
    let why = login["lastError"].as_str().unwrap();
    let told = traffic.is_refused("a login is needed").await;
    for text in [why, told.as_str()] {
        assert!(
            text.contains("needs a login") && text.contains("tollgate creds login login"),
            "{text}"
        );
    }
    assert!(told.starts_with("503") || told.starts_with("502"), "{told}");
}
