//! Owns what is known of programs whose login can be taken over: where they ask for tokens, as which
//! client, and in which form. Pure data, each line with its source.

use super::source::{KnownClient, RequestBodyForm};

/// How one program logs in and renews its tokens.
#[derive(Debug)]
pub struct ClientFacts {
    /// The program's name for people.
    pub name: &'static str,
    /// Its token endpoint.
    pub token_endpoint: &'static str,
    /// Token endpoints that some version of it calls, the current one included.
    pub agent_endpoints: &'static [&'static str],
    /// Endpoints at which it gives a token up when it logs out (RFC 7009).
    pub agent_revocations: &'static [&'static str],
    /// Its client identifier; no secret belongs to it.
    pub client_id: &'static str,
    /// The form of a refresh.
    pub refresh_body: RequestBodyForm,
    /// The scopes it names in a refresh; none where it names none.
    pub refresh_scopes: &'static [&'static str],
    /// The form in which a code is exchanged for tokens.
    pub code_body: RequestBodyForm,
    /// Whether the exchange of a code repeats `state`, which RFC 6749 does not ask for.
    pub code_repeats_state: bool,
    /// Where a login begins in the browser.
    pub authorization_endpoint: &'static str,
    /// Where the browser is sent with the code.
    pub redirect_uri: &'static str,
    /// Scopes of a login.
    pub login_scopes: &'static [&'static str],
    /// What its authorization endpoint wants besides.
    pub login_parameters: &'static [(&'static str, &'static str)],
    /// What its refresh tokens look like, where that is known.
    pub refresh_shape: Option<&'static str>,
    /// Its own way to log in with a code on another device, where it has one.
    pub device: Option<&'static DeviceFacts>,
}

/// A device login that is not RFC 8628: the poll gives an authorization code with its verifier.
#[derive(Debug)]
pub struct DeviceFacts {
    /// Gives a code for the person and an identifier for the program.
    pub start_endpoint: &'static str,
    /// Tells whether the person has entered the code.
    pub poll_endpoint: &'static str,
    /// The page where the person enters it.
    pub verification_uri: &'static str,
    /// The `redirect_uri` that goes with the code it gives.
    pub redirect_uri: &'static str,
}

/// What is known of `client`.
pub fn facts(client: KnownClient) -> &'static ClientFacts {
    match client {
        KnownClient::ClaudeCode => &CLAUDE_CODE,
        KnownClient::Codex => &CODEX,
    }
}

/// Observed with Claude Code 2.1.197. Versions before 2.1 call console.anthropic.com and begin at
/// claude.ai. api.anthropic.com has the same endpoint, which other programs with this client call
/// (`TOKEN_URL` in their sources); an agent that may ask for models reaches it. Version 2.1.329 names
/// `user:plugins` in a refresh as well, which no login asks for.
static CLAUDE_CODE: ClientFacts = ClientFacts {
    name: "Claude Code",
    token_endpoint: "https://platform.claude.com/v1/oauth/token",
    agent_endpoints: &[
        "https://platform.claude.com/v1/oauth/token",
        "https://console.anthropic.com/v1/oauth/token",
        "https://api.anthropic.com/v1/oauth/token",
    ],
    agent_revocations: &[
        "https://platform.claude.com/v1/oauth/token/revoke",
        "https://console.anthropic.com/v1/oauth/token/revoke",
        "https://api.anthropic.com/v1/oauth/token/revoke",
    ],
    client_id: "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
    refresh_body: RequestBodyForm::Json,
    refresh_scopes: &[
        "user:profile",
        "user:inference",
        "user:sessions:claude_code",
        "user:mcp_servers",
        "user:file_upload",
    ],
    code_body: RequestBodyForm::Json,
    code_repeats_state: true,
    authorization_endpoint: "https://claude.com/cai/oauth/authorize",
    redirect_uri: "https://platform.claude.com/oauth/code/callback",
    login_scopes: &[
        "org:create_api_key",
        "user:profile",
        "user:inference",
        "user:sessions:claude_code",
        "user:mcp_servers",
        "user:file_upload",
    ],
    login_parameters: &[("code", "true")],
    refresh_shape: Some("sk-ant-ort01-[A-Za-z0-9_-:86]AA"),
    device: None,
};

/// Observed with Codex 0.169, and read in openai/codex, `codex-rs/login/src`.
static CODEX: ClientFacts = ClientFacts {
    name: "Codex",
    token_endpoint: "https://auth.openai.com/oauth/token",
    agent_endpoints: &["https://auth.openai.com/oauth/token"],
    agent_revocations: &["https://auth.openai.com/oauth/revoke"],
    client_id: "app_EMoamEEZ73f0CkXaXp7hrann",
    refresh_body: RequestBodyForm::Json,
    refresh_scopes: &[],
    code_body: RequestBodyForm::Form,
    code_repeats_state: false,
    authorization_endpoint: "https://auth.openai.com/oauth/authorize",
    redirect_uri: "http://127.0.0.1:1455/auth/callback",
    login_scopes: &[
        "openid",
        "profile",
        "email",
        "offline_access",
        "api.connectors.read",
        "api.connectors.invoke",
    ],
    login_parameters: &[
        ("id_token_add_organizations", "true"),
        ("codex_cli_simplified_flow", "true"),
        ("originator", "codex_cli_rs"),
    ],
    refresh_shape: None,
    device: Some(&DeviceFacts {
        start_endpoint: "https://auth.openai.com/api/accounts/deviceauth/usercode",
        poll_endpoint: "https://auth.openai.com/api/accounts/deviceauth/token",
        verification_uri: "https://auth.openai.com/codex/device",
        redirect_uri: "https://auth.openai.com/deviceauth/callback",
    }),
};
