//! Owns where a secret comes from, as written: a variable, a file, a program, or an OAuth 2.0 grant.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::located::Located;
use super::units::{Size, Span};

/// Where a secret comes from; exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum SourceSpec {
    /// A variable of the proxy's own environment: read once, then removed from the process.
    Env {
        /// The variable's name.
        name: String,
    },
    /// A file, followed when it changes (Kubernetes `..data` swaps included).
    File {
        /// Path of the file.
        path: PathBuf,
        /// JSON pointer (RFC 6901) to the secret, when the file is a JSON document.
        #[serde(default)]
        pointer: Option<String>,
    },
    /// A program that prints the secret; see the reference for its JSON protocol.
    Exec {
        /// Program and arguments; no shell is involved.
        command: Vec<String>,
        /// What it prints.
        #[serde(default)]
        output: ExecOutput,
        /// How long it may run; 10s when absent.
        #[serde(default)]
        timeout: Option<Span>,
        /// How long a secret without an expiry of its own is used; 5m when absent.
        #[serde(default)]
        ttl: Option<Span>,
        /// Variables it gets besides PATH and HOME.
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
    /// An OAuth 2.0 access token that is renewed here; the grant has no other owner.
    Oauth(Box<OAuthSpec>),
}

impl SourceSpec {
    /// The source itself and every source it names: a client secret, a private key, a seed.
    pub fn with_nested(&self) -> Vec<&Self> {
        let mut all = vec![self];
        if let Self::Oauth(oauth) = self {
            let key = match &oauth.grant {
                GrantSpec::JwtBearer { key, .. } | GrantSpec::GithubApp { key, .. } => Some(key),
                GrantSpec::RefreshToken {} | GrantSpec::ClientCredentials {} => None,
            };
            let parts = key
                .into_iter()
                .chain(&oauth.client_secret)
                .chain(&oauth.seed);
            all.extend(parts.flat_map(|part| part.with_nested()));
        }
        all
    }
}

/// What an exec source prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecOutput {
    /// An `ExecCredential` document as kubectl's plugins print it: `status.token`, `status.expirationTimestamp`.
    #[default]
    Json,
    /// The secret alone, on one line (`gh auth token`).
    Text,
}

/// An access token that Tollgate fetches and keeps fresh, as the only owner of its grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OAuthSpec {
    /// The program whose login it is: its endpoints, client and request form are taken from there.
    #[serde(default)]
    pub client: Option<Located<KnownClient>>,
    /// How an access token is asked for; `refreshToken` when absent.
    #[serde(default)]
    pub grant: GrantSpec,
    /// URL of the token endpoint (RFC 6749, section 3.2), `https` only.
    #[serde(default)]
    pub token_endpoint: Option<Located<String>>,
    /// The client's identifier (RFC 6749, section 2.2).
    #[serde(default)]
    pub client_id: Option<String>,
    /// Where the client's secret comes from, if it has one.
    #[serde(default)]
    pub client_secret: Option<Box<SourceSpec>>,
    /// How the client shows its secret; `basic` when absent and there is one.
    #[serde(default)]
    pub client_authentication: Option<ClientAuthentication>,
    /// How the token endpoint wants the request's body; `form` when absent.
    #[serde(default)]
    pub request_body: Option<RequestBodyForm>,
    /// Scopes to ask for (RFC 6749, section 3.3).
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Parameters that this token endpoint wants besides (`audience`, `resource`).
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Where the first refresh token comes from when the store is empty: a refresh token, or a
    /// `.credentials.json` of Claude Code or an `auth.json` of Codex, whole.
    #[serde(default)]
    pub seed: Option<Box<SourceSpec>>,
    /// Where tokens are kept so that they outlive the process; `stateDir/oauth/NAME.json` when absent.
    #[serde(default)]
    pub store: Option<Located<StoreSpec>>,
    /// How long before its expiry a token is renewed; after two thirds of its life when absent.
    #[serde(default)]
    pub refresh_before: Option<Span>,
    /// How long the token endpoint may take; 30s when absent.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// How logins are begun.
    #[serde(default)]
    pub login: LoginSpec,
    /// Token endpoints that agents may call themselves (`https://host/path`): they are answered here,
    /// with placeholders, and never see one. The policy must allow the request.
    #[serde(default)]
    pub agent_endpoints: Vec<Located<String>>,
    /// Whether a login that an agent runs through the proxy is taken over.
    #[serde(default)]
    pub agent_login: AgentLogin,
    /// Largest request body that is kept for a second try after the origin answered 401; 8MiB when absent.
    #[serde(default)]
    pub replay_limit: Option<Size>,
    /// PEM file with authorities that are trusted for the token endpoint besides the configured roots.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Address ranges the address guard lets through for the token endpoint.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub allow_addresses: Vec<IpNet>,
}

/// `timeout` where none is written.
pub const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(30);

/// A program whose way to log in is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KnownClient {
    /// Claude Code with a claude.ai subscription.
    ClaudeCode,
    /// Codex with a ChatGPT subscription.
    Codex,
}

/// How an access token is asked for; exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum GrantSpec {
    /// With a refresh token that a login gave (RFC 6749, section 6).
    RefreshToken {},
    /// With the client's own credentials (RFC 6749, section 4.4).
    ClientCredentials {},
    /// With a signed assertion (RFC 7523, section 2.1), as Google's service accounts do.
    JwtBearer {
        /// Where the private key comes from: PEM (PKCS#8 or PKCS#1), or a Google service account's JSON key, whole.
        key: Box<SourceSpec>,
        /// `iss`; the JSON key's `client_email` when absent.
        #[serde(default)]
        issuer: Option<String>,
        /// `sub`; left out when absent.
        #[serde(default)]
        subject: Option<String>,
        /// `aud`; the token endpoint when absent.
        #[serde(default)]
        audience: Option<String>,
        /// `kid` of the header; the JSON key's `private_key_id` when absent.
        #[serde(default)]
        key_id: Option<String>,
        /// The signature.
        #[serde(default)]
        algorithm: JwtAlgorithm,
        /// How long an assertion is good for; 1h when absent, the most that Google accepts.
        #[serde(default)]
        lifetime: Option<Span>,
    },
    /// As an installation of a GitHub App.
    GithubApp {
        /// The App's client ID or numeric ID.
        app_id: String,
        /// The installation's numeric ID.
        installation_id: u64,
        /// Where the App's private key comes from (PEM).
        key: Box<SourceSpec>,
        /// Repositories the token is limited to, by name without owner; all of the installation when empty.
        #[serde(default)]
        repositories: Vec<String>,
        /// Permissions the token is limited to (`contents: write`); all of the installation when empty.
        #[serde(default)]
        permissions: BTreeMap<String, String>,
        /// Base URL of the REST API; `https://api.github.com` when absent.
        #[serde(default)]
        api: Option<String>,
    },
}

impl Default for GrantSpec {
    fn default() -> Self {
        Self::RefreshToken {}
    }
}

/// How a client shows its secret (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthentication {
    /// `Authorization: Basic`.
    Basic,
    /// `client_id` and `client_secret` in the body.
    Body,
}

/// How a token request's body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestBodyForm {
    /// `application/x-www-form-urlencoded` (RFC 6749, appendix B).
    #[default]
    Form,
    /// `application/json`, as Claude Code's and Codex's endpoints want it.
    Json,
}

/// A JWS algorithm (RFC 7518, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[default]
    RS256,
    /// ECDSA P-256 with SHA-256.
    ES256,
}

/// Where tokens are kept; exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum StoreSpec {
    /// A file, mode 0600, with a lock file beside it: processes of one machine share it.
    File {
        /// Path of the file, on storage that outlives the process.
        path: PathBuf,
        /// A file with 32 random bytes or more: the tokens are encrypted with a key derived from it.
        #[serde(default)]
        key_file: Option<PathBuf>,
    },
    /// A Kubernetes Secret, with a Lease so that one replica refreshes: pods share it.
    KubernetesSecret(SecretStoreSpec),
    /// Nowhere: for grants that can be asked for again at any time. Not for refresh tokens.
    Memory {},
}

/// A Kubernetes Secret that replicas share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretStoreSpec {
    /// Its name.
    pub name: String,
    /// Its namespace; the pod's own when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The key within `data`; `grant.json` when absent.
    #[serde(default)]
    pub key: Option<String>,
    /// The Lease's name; `tollgate-` and the Secret's name when absent.
    #[serde(default)]
    pub lease: Option<String>,
    /// How long the Lease lasts when its holder is not heard of, 2s to 1m; 15s when absent. Each replica
    /// looks at the Secret three times in that time.
    #[serde(default)]
    pub lease_duration: Option<Span>,
    /// How long a replica may be cut off with a renewal that it has begun, before another one tries its
    /// refresh token again; 2m when absent. Longer than `leaseDuration` and `timeout` together.
    #[serde(default)]
    pub abandoned_after: Option<Span>,
}

impl SecretStoreSpec {
    /// The key within `data`.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("grant.json")
    }

    /// How long the Lease lasts.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration.map_or(LEASE_DURATION, |span| span.0)
    }
}

/// `leaseDuration` where none is written: `LeaseDuration` of the Kubernetes core components.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How `tollgate creds login` begins a login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginSpec {
    /// URL of the authorization endpoint (RFC 6749, section 3.1).
    #[serde(default)]
    pub authorization_endpoint: Option<Located<String>>,
    /// URL of the device authorization endpoint (RFC 8628, section 3.1).
    #[serde(default)]
    pub device_authorization_endpoint: Option<Located<String>>,
    /// Where the browser is sent with the code: a page that shows it, to be pasted.
    #[serde(default)]
    pub redirect_uri: Option<String>,
    /// Scopes of a login; `scopes` when absent.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Parameters that the authorization endpoint wants besides.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// What becomes of a login that an agent runs through the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum AgentLogin {
    /// Taken over while no usable grant is held; with one, it is answered with placeholders.
    #[default]
    WhenNeeded,
    /// Never taken over: answered with placeholders while a grant is held, else refused.
    Never,
}
