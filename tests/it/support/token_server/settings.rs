//! Owns what kind of provider it is: how it is asked, by whom, and how it answers.

use std::time::Duration;

use super::assertion::{App, ServiceAccount};
use super::jwt::PublicKey;
use super::mint::Shape;

/// The values of `grant_type`.
pub mod grant {
    pub const REFRESH: &str = "refresh_token";
    pub const CODE: &str = "authorization_code";
    pub const CLIENT: &str = "client_credentials";
    pub const JWT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
    pub const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyMode {
    Form,
    Json,
}

impl BodyMode {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Form => "application/x-www-form-urlencoded",
            Self::Json => "application/json",
        }
    }
}

/// How a client shows who it is (RFC 6749, section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A public client: `client_id` in the body.
    Public,
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// What an answer says in `expires_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiresIn {
    /// The truth, in whole seconds, rounded down.
    Told,
    Omitted,
}

/// Whether a refresh spends the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Single use: the answer holds the next one.
    EveryTime,
    /// The answer holds none, the client keeps the one it has (RFC 6749, section 6).
    Never,
}

/// What becomes of scopes that a refresh asks for and the login never had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// `invalid_scope` (RFC 6749, section 6).
    Refused,
    /// Left out, if the provider knows them: Claude Code asks for its full list whatever it was given.
    Dropped,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub names: Vec<String>,
    pub paths: Vec<String>,
    pub device_path: String,
    pub revoke_path: String,
    /// How often a device may poll, in whole seconds.
    pub device_interval: Duration,
    pub device_lifetime: Duration,
    pub service_account: Option<ServiceAccount>,
    pub app: Option<App>,
    pub body: BodyMode,
    /// Grants that are asked for in another format.
    pub bodies: Vec<(&'static str, BodyMode)>,
    pub client_id: String,
    pub client_secret: String,
    pub client_auth: ClientAuth,
    /// Parameters that this provider knows beyond the RFC's, by grant.
    pub extras: Vec<(&'static str, &'static str)>,
    /// The same for the authorization URL.
    pub authorize_extras: Vec<&'static str>,
    pub scope: String,
    pub beyond: Beyond,
    pub shape: Shape,
    pub lifetime: Duration,
    pub expires_in: ExpiresIn,
    pub rotation: Rotation,
    /// Every other path is a protected API.
    pub serves_api: bool,
}

impl Settings {
    /// The token endpoint, as clients are told.
    pub fn url(&self) -> String {
        format!("https://{}{}", self.names[0], self.paths[0])
    }

    pub fn mode_of(&self, grant: &str) -> BodyMode {
        let own = self.bodies.iter().find(|(g, _)| *g == grant);
        own.map_or(self.body, |(_, mode)| *mode)
    }
}

/// Describes a token server. By default: forms, a public client, plain tokens that live for an hour.
#[derive(Clone, Debug)]
pub struct TokenServerBuilder {
    pub(super) settings: Settings,
}

impl TokenServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings {
                names: vec!["token.example.com".to_owned()],
                paths: vec!["/oauth/token".to_owned(), "/v1/oauth/token".to_owned()],
                device_path: "/oauth/device/code".to_owned(),
                revoke_path: "/oauth/revoke".to_owned(),
                device_interval: Duration::from_secs(1),
                device_lifetime: Duration::from_secs(600),
                service_account: None,
                app: None,
                body: BodyMode::Form,
                bodies: Vec::new(),
                client_id: "client-1".to_owned(),
                client_secret: String::new(),
                client_auth: ClientAuth::Public,
                extras: Vec::new(),
                authorize_extras: Vec::new(),
                scope: "read write".to_owned(),
                beyond: Beyond::Refused,
                shape: Shape::Plain,
                lifetime: Duration::from_secs(3600),
                expires_in: ExpiresIn::Told,
                rotation: Rotation::EveryTime,
                serves_api: false,
            },
        }
    }

    /// As Claude Code knows it: JSON, `sk-ant-oat01-` tokens, account and organization in the answer.
    #[must_use]
    pub fn claude(mut self) -> Self {
        self.settings.paths = vec!["/v1/oauth/token".to_owned()];
        self.settings.revoke_path = "/v1/oauth/token/revoke".to_owned();
        self.settings.scope = "org:create_api_key user:profile user:inference \
             user:sessions:claude_code user:mcp_servers user:file_upload user:plugins"
            .to_owned();
        self.settings.beyond = Beyond::Dropped;
        self.settings.shape = Shape::Claude;
        self.settings.lifetime = Duration::from_secs(8 * 3600);
        // `claude setup-token` asks for a year.
        self.settings.extras = vec![
            (grant::CODE, "state"),
            (grant::CODE, "expires_in"),
            (grant::REFRESH, "expires_in"),
        ];
        self.settings.authorize_extras = vec!["code", "orgUUID", "login_hint", "login_method"];
        self.names(&["platform.claude.com", "console.anthropic.com"])
            .body(BodyMode::Json)
            .client("9d1c250a-e61b-44d9-88ed-5944d1962f5e")
    }

    /// As Codex knows it: the code is redeemed with a form, the refresh token with JSON; JWTs.
    #[must_use]
    pub fn codex(mut self) -> Self {
        self.settings.paths = vec!["/oauth/token".to_owned()];
        self.settings.scope = "openid profile email offline_access \
             api.connectors.read api.connectors.invoke"
            .to_owned();
        self.settings.extras = vec![(grant::REFRESH, "refresh_reason")];
        self.settings.shape = Shape::Codex;
        self.settings.authorize_extras = vec![
            "id_token_add_organizations",
            "codex_cli_simplified_flow",
            "originator",
            "allowed_workspace_id",
        ];
        self.names(&["auth.openai.com"])
            .body_of(grant::REFRESH, BodyMode::Json)
            .client("app_EMoamEEZ73f0CkXaXp7hrann")
    }

    #[must_use]
    pub fn names(mut self, names: &[&str]) -> Self {
        self.settings.names = names.iter().map(|n| (*n).to_owned()).collect();
        self
    }

    /// The only path of the token endpoint.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.settings.paths = vec![path.to_owned()];
        self
    }

    #[must_use]
    pub fn body(mut self, mode: BodyMode) -> Self {
        self.settings.body = mode;
        self
    }

    /// The format of one grant's requests, by `grant_type`.
    #[must_use]
    pub fn body_of(mut self, grant: &'static str, mode: BodyMode) -> Self {
        self.settings.bodies.push((grant, mode));
        self
    }

    /// A public client.
    #[must_use]
    pub fn client(mut self, id: &str) -> Self {
        self.settings.client_id = id.to_owned();
        self
    }

    /// A confidential client.
    #[must_use]
    pub fn confidential(mut self, auth: ClientAuth, id: &str, secret: &str) -> Self {
        self.settings.client_auth = auth;
        self.settings.client_secret = secret.to_owned();
        self.client(id)
    }

    /// What a login is for; a client may ask for less.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.settings.scope = scope.to_owned();
        self
    }

    /// How long access tokens live, to the millisecond.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.lifetime = lifetime;
        self
    }

    #[must_use]
    pub fn without_expires_in(mut self) -> Self {
        self.settings.expires_in = ExpiresIn::Omitted;
        self
    }

    /// Refresh tokens are never spent, and answers to a refresh hold none.
    #[must_use]
    pub fn keeps_refresh_tokens(mut self) -> Self {
        self.settings.rotation = Rotation::Never;
        self
    }

    /// A service account that asks with assertions whose `aud` is the token endpoint's URL.
    #[must_use]
    pub fn service_account(mut self, issuer: &str, key: PublicKey) -> Self {
        self.settings.service_account = Some(ServiceAccount {
            issuer: issuer.to_owned(),
            audience: None,
            key,
        });
        self
    }

    /// Another `aud` that assertions must have.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        let account = self.settings.service_account.as_mut();
        account.expect("a service account").audience = Some(audience.to_owned());
        self
    }

    /// GitHub: `POST /app/installations/{id}/access_tokens` for an App whose key signs RS256.
    #[must_use]
    pub fn github_app(mut self, id: &str, installation: u64, key: PublicKey) -> Self {
        let id = id.to_owned();
        self.settings.app = Some(App {
            id,
            installation,
            key,
        });
        self.names(&["api.github.com"])
    }

    /// How long a device code lives, and how often its device may poll (whole seconds).
    #[must_use]
    pub fn device(mut self, path: &str, lifetime: Duration, interval: Duration) -> Self {
        self.settings.device_path = path.to_owned();
        self.settings.device_lifetime = lifetime;
        self.settings.device_interval = interval;
        self
    }

    /// Every path that is no endpoint is a protected API.
    #[must_use]
    pub fn serves_api(mut self) -> Self {
        self.settings.serves_api = true;
        self
    }

    /// A parameter that this provider knows beyond the RFC's.
    #[must_use]
    pub fn knows(mut self, grant: &'static str, parameter: &'static str) -> Self {
        self.settings.extras.push((grant, parameter));
        self
    }
}
