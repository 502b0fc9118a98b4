//! A provider of logins, its API, and a proxy with the preset for one of them, as agents without a token
//! of their own meet it.

use super::door::Door;
use super::proxy::{Proxy, ProxyBuilder, proxy};
use super::token_server::api::ProtectedApi;
use super::token_server::server::{TokenServer, token_server};

pub struct Lent {
    pub server: TokenServer,
    pub api: ProtectedApi,
    pub proxy: Proxy,
    /// The forward door, with nothing in the agent's environment.
    pub door: Door,
}

/// Whether the proxy begins with a login.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Login {
    Held,
    None,
}

/// Whose login it is.
#[derive(Clone, Copy)]
pub struct Program {
    /// The preset, and so the credential.
    pub preset: &'static str,
    pub client: &'static str,
    /// More of `source.oauth`.
    pub more: &'static str,
}

pub const CLAUDE: Program = Program {
    preset: "claude-login",
    client: "claude-code",
    more: "",
};
pub const CODEX: Program = Program {
    preset: "codex-login",
    client: "codex",
    more: "",
};

/// Describes a proxy that owns a login of `server`'s, or none yet.
pub fn owning(
    server: &TokenServer,
    api: &ProtectedApi,
    program: &Program,
    login: Login,
) -> ProxyBuilder {
    let Program {
        preset,
        client,
        more,
    } = program;
    let builder = proxy().origin(&server.origin).origin(&api.origin);
    let seed = match login {
        Login::None => String::new(),
        Login::Held => {
            let file = builder.file("seed");
            std::fs::write(&file, server.login().refresh()).unwrap();
            format!(", seed: {{file: {{path: {}}}}}", file.display())
        }
    };
    let source = format!("{{oauth: {{client: {client}{seed}{more}}}}}");
    let spec = format!("preset: {preset}\nsource: {source}\noptional: true");
    builder
        .policy(&format!("- preset: {preset}"))
        .document("EgressCredential", preset, &spec)
}

impl Lent {
    /// Claude's provider.
    pub async fn claude(login: Login) -> Self {
        let server = token_server().claude().start().await;
        let api = server.protected_api(&["api.anthropic.com"]).await;
        let proxy = owning(&server, &api, &CLAUDE, login);
        Self::of(server, api, proxy).await
    }

    /// OpenAI's, without a login.
    pub async fn codex() -> Self {
        let server = token_server().codex().start().await;
        let api = server.protected_api(&["chatgpt.com"]).await;
        let proxy = owning(&server, &api, &CODEX, Login::None);
        Self::of(server, api, proxy).await
    }

    pub async fn of(server: TokenServer, api: ProtectedApi, proxy: ProxyBuilder) -> Self {
        let mut proxy = proxy.start().await;
        proxy.forbid(server.sentinel());
        Self {
            door: proxy.bare_door(),
            server,
            api,
            proxy,
        }
    }

    /// What an agent holds instead of the access token.
    pub async fn placeholder(&self, credential: &str) -> String {
        let told = self.proxy.cli(&["creds", "placeholder", credential]).await;
        told.ok().trim().to_owned()
    }
}
