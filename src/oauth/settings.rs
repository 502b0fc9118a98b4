//! Owns an OAuth source with everything filled in: what is written, else what is known of the client,
//! else the default. The documents were checked before; what is missing still has no settings.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::endpoint::Endpoint;
use crate::config::known_clients::{ClientFacts, facts};
use crate::config::source::{
    AgentLogin, ClientAuthentication, ENDPOINT_TIMEOUT, GrantSpec, JwtAlgorithm, KnownClient,
    OAuthSpec, RequestBodyForm, SourceSpec, StoreSpec,
};

/// How one grant is owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthSettings {
    /// The program whose login it is, if one is named.
    pub client: Option<KnownClient>,
    /// How an access token is asked for.
    pub grant: GrantSettings,
    /// Where.
    pub token_endpoint: Endpoint,
    /// As which client.
    pub client_id: Option<String>,
    /// Where the client's secret comes from, if it has one.
    pub client_secret: Option<SourceSpec>,
    /// How the client shows it.
    pub client_authentication: ClientAuthentication,
    /// The form of a token request's body.
    pub request_body: RequestBodyForm,
    /// Scopes to ask for; none when the endpoint decides.
    pub scopes: Vec<String>,
    /// Parameters that the endpoint wants besides.
    pub parameters: BTreeMap<String, String>,
    /// Where the first refresh token comes from when the store is empty.
    pub seed: Option<SourceSpec>,
    /// Where tokens are kept; the state directory when absent.
    pub store: Option<StoreSpec>,
    /// How long before its expiry a token is renewed; after two thirds of its life when absent.
    pub refresh_before: Option<Duration>,
    /// How long one request to the endpoint may take.
    pub timeout: Duration,
    /// How a person logs in.
    pub login: LoginSettings,
    /// Token endpoints that agents may call; they are answered here.
    pub agent_endpoints: Vec<Endpoint>,
    /// Where agents of a known client give tokens up (RFC 7009); answered here too.
    pub agent_revocations: Vec<Endpoint>,
    /// What becomes of a login that an agent runs.
    pub agent_login: AgentLogin,
    /// Largest request body that is kept for a second try, in octets.
    pub replay_limit: u64,
    /// Authorities trusted for the endpoint besides the configured roots.
    pub ca_file: Option<PathBuf>,
    /// Address ranges that the address guard lets through for the endpoint.
    pub allow_addresses: Vec<IpNet>,
}

/// How an access token is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantSettings {
    /// RFC 6749, section 6.
    RefreshToken,
    /// RFC 6749, section 4.4.
    ClientCredentials,
    /// RFC 7523, section 2.1.
    JwtBearer(AssertionSettings),
    /// <https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>
    GithubApp(AppSettings),
}

/// What an assertion says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionSettings {
    /// Where the private key comes from.
    pub key: SourceSpec,
    /// `iss`; from the JSON key when absent.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`; the token endpoint when absent.
    pub audience: Option<String>,
    /// `kid`; from the JSON key when absent.
    pub key_id: Option<String>,
    /// The signature.
    pub algorithm: JwtAlgorithm,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
}

/// Which installation of which GitHub App, and what its token is limited to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSettings {
    /// `iss` of the App's own JWT.
    pub app_id: String,
    /// Where the App's private key comes from.
    pub key: SourceSpec,
    /// Repositories by name; all of the installation when empty.
    pub repositories: Vec<String>,
    /// Permissions; all of the installation when empty.
    pub permissions: BTreeMap<String, String>,
}

/// How a person logs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginSettings {
    /// With a browser (RFC 6749, section 4.1): where to, and where it is sent with the code.
    pub code: Option<CodeSettings>,
    /// With a code that is entered elsewhere.
    pub device: Option<DeviceSettings>,
    /// Scopes of a login.
    pub scopes: Vec<String>,
    /// The form in which a code is exchanged.
    pub code_body: RequestBodyForm,
}

/// The authorization endpoint and what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeSettings {
    /// RFC 6749, section 3.1.
    pub authorization_endpoint: Endpoint,
    /// RFC 6749, section 3.1.2.
    pub redirect_uri: String,
    /// What it wants besides.
    pub parameters: BTreeMap<String, String>,
    /// Whether the exchange of the code repeats `state`.
    pub repeats_state: bool,
}

/// The kinds of device login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSettings {
    /// RFC 8628, section 3.1.
    Standard(Endpoint),
    /// Codex's own: the poll gives an authorization code with its verifier.
    Codex {
        /// Gives a code for the person and an identifier for the program.
        start: Endpoint,
        /// Tells whether the person has entered the code.
        poll: Endpoint,
        /// The page where it is entered.
        verification_uri: String,
        /// Goes with the authorization code.
        redirect_uri: String,
    },
}

/// Why a source can never work, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SettingsError {
    /// What is wrong.
    pub what: String,
    /// How to put it right.
    pub help: String,
}

const DEFAULT_REPLAY_LIMIT: u64 = 8 << 20;
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
const GITHUB_API: &str = "https://api.github.com";

impl OAuthSettings {
    /// Fills in what `spec` leaves out.
    ///
    /// Errors: an endpoint or an identifier that the grant needs is missing, or no URL for tokens.
    pub fn resolve(spec: &OAuthSpec) -> Result<Self, SettingsError> {
        let known = spec.client.as_ref().map(|client| facts(client.value));
        let refresh_scopes = known.map_or(&[][..], |known| known.refresh_scopes);
        Ok(Self {
            client: spec.client.as_ref().map(|client| client.value),
            grant: grant(&spec.grant),
            token_endpoint: token_endpoint(spec, known)?,
            client_id: client_id(spec, known)?,
            client_secret: spec.client_secret.as_deref().cloned(),
            client_authentication: spec
                .client_authentication
                .unwrap_or(ClientAuthentication::Basic),
            request_body: spec
                .request_body
                .or(known.map(|known| known.refresh_body))
                .unwrap_or_default(),
            scopes: written_or(&spec.scopes, refresh_scopes),
            parameters: spec.parameters.clone(),
            seed: spec.seed.as_deref().cloned(),
            store: spec.store.as_ref().map(|store| store.value.clone()),
            refresh_before: spec.refresh_before.map(|span| span.0),
            timeout: spec.timeout.map_or(ENDPOINT_TIMEOUT, |span| span.0),
            login: login(spec, known)?,
            agent_endpoints: agent_endpoints(spec, known)?,
            agent_revocations: known
                .map_or(&[][..], |known| known.agent_revocations)
                .iter()
                .map(|url| address("agentEndpoints", url))
                .collect::<Result<_, _>>()?,
            agent_login: spec.agent_login,
            replay_limit: spec
                .replay_limit
                .map_or(DEFAULT_REPLAY_LIMIT, |size| size.0),
            ca_file: spec.ca_file.clone(),
            allow_addresses: spec.allow_addresses.clone(),
        })
    }
}

fn wrong(what: impl Into<String>, help: impl Into<String>) -> SettingsError {
    SettingsError {
        what: what.into(),
        help: help.into(),
    }
}

fn grant(spec: &GrantSpec) -> GrantSettings {
    match spec {
        GrantSpec::RefreshToken {} => GrantSettings::RefreshToken,
        GrantSpec::ClientCredentials {} => GrantSettings::ClientCredentials,
        GrantSpec::JwtBearer {
            key,
            issuer,
            subject,
            audience,
            key_id,
            algorithm,
            lifetime,
        } => GrantSettings::JwtBearer(AssertionSettings {
            key: (**key).clone(),
            issuer: issuer.clone(),
            subject: subject.clone(),
            audience: audience.clone(),
            key_id: key_id.clone(),
            algorithm: *algorithm,
            lifetime: lifetime.map_or(DEFAULT_LIFETIME, |span| span.0),
        }),
        GrantSpec::GithubApp {
            app_id,
            key,
            repositories,
            permissions,
            ..
        } => GrantSettings::GithubApp(AppSettings {
            app_id: app_id.clone(),
            key: (**key).clone(),
            repositories: repositories.clone(),
            permissions: permissions.clone(),
        }),
    }
}

fn token_endpoint(
    spec: &OAuthSpec,
    known: Option<&ClientFacts>,
) -> Result<Endpoint, SettingsError> {
    if let GrantSpec::GithubApp {
        api,
        installation_id,
        ..
    } = &spec.grant
    {
        let api = api.as_deref().unwrap_or(GITHUB_API).trim_end_matches('/');
        if api.contains('?') {
            let help = "write for example `https://HOST/api/v3`";
            return Err(wrong("`api` has a query", help));
        }
        let url = format!("{api}/app/installations/{installation_id}/access_tokens");
        return address("api", &url);
    }
    let written = spec.token_endpoint.as_ref().map(|url| url.value.as_str());
    match written.or(known.map(|known| known.token_endpoint)) {
        Some(url) => address("tokenEndpoint", url),
        None => Err(wrong(
            "there is no `tokenEndpoint`",
            "write its URL, `tokenEndpoint: https://HOST/PATH`, or name a known `client`",
        )),
    }
}

fn address(name: &str, url: &str) -> Result<Endpoint, SettingsError> {
    Endpoint::parse(url).map_err(|error| {
        wrong(
            format!("`{name}` {error}"),
            format!("write `{name}: https://HOST/PATH`"),
        )
    })
}

fn client_id(
    spec: &OAuthSpec,
    known: Option<&ClientFacts>,
) -> Result<Option<String>, SettingsError> {
    let written = spec.client_id.as_deref().filter(|id| !id.is_empty());
    let id = written.or(known.map(|known| known.client_id));
    let needed = match spec.grant {
        GrantSpec::RefreshToken {} | GrantSpec::ClientCredentials {} => true,
        GrantSpec::JwtBearer { .. } | GrantSpec::GithubApp { .. } => spec.client_secret.is_some(),
    };
    match id {
        None if needed => Err(wrong(
            "there is no `clientId`",
            "write the identifier under which the client was registered at the provider",
        )),
        id => Ok(id.map(str::to_owned)),
    }
}

fn agent_endpoints(
    spec: &OAuthSpec,
    known: Option<&ClientFacts>,
) -> Result<Vec<Endpoint>, SettingsError> {
    let written = spec.agent_endpoints.iter().map(|url| url.value.as_str());
    let known = known.map_or(&[][..], |known| known.agent_endpoints);
    let urls: Vec<&str> = match spec.agent_endpoints.is_empty() {
        true => known.to_vec(),
        false => written.collect(),
    };
    urls.into_iter()
        .map(|url| address("agentEndpoints", url))
        .collect()
}

fn login(spec: &OAuthSpec, known: Option<&ClientFacts>) -> Result<LoginSettings, SettingsError> {
    let written = &spec.login;
    let known_scopes = known.map_or(&[][..], |known| known.login_scopes);
    let scopes = match written.scopes.is_empty() {
        true => &spec.scopes,
        false => &written.scopes,
    };
    let code_body = spec.request_body.or(known.map(|known| known.code_body));
    Ok(LoginSettings {
        code: code(spec, known)?,
        device: device(spec, known)?,
        scopes: written_or(scopes, known_scopes),
        code_body: code_body.unwrap_or_default(),
    })
}

fn code(
    spec: &OAuthSpec,
    known: Option<&ClientFacts>,
) -> Result<Option<CodeSettings>, SettingsError> {
    let written = &spec.login;
    let endpoint = written.authorization_endpoint.as_ref();
    let endpoint = endpoint.map(|url| url.value.as_str());
    let Some(endpoint) = endpoint.or(known.map(|known| known.authorization_endpoint)) else {
        return Ok(None);
    };
    let redirect_uri = written.redirect_uri.as_deref();
    let redirect_uri = redirect_uri.or(known.map(|known| known.redirect_uri));
    let Some(redirect_uri) = redirect_uri else {
        return Err(wrong(
            "`login` has an `authorizationEndpoint` and no `redirectUri`",
            "write the URI that the client was registered with",
        ));
    };
    let repeats_state = known.is_some_and(|known| known.code_repeats_state);
    let known = known.map_or(&[][..], |known| known.login_parameters);
    let mut parameters: BTreeMap<String, String> = known
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    parameters.extend(written.parameters.clone());
    Ok(Some(CodeSettings {
        authorization_endpoint: address("authorizationEndpoint", endpoint)?,
        redirect_uri: redirect_uri.to_owned(),
        parameters,
        repeats_state,
    }))
}

fn device(
    spec: &OAuthSpec,
    known: Option<&ClientFacts>,
) -> Result<Option<DeviceSettings>, SettingsError> {
    let name = "deviceAuthorizationEndpoint";
    if let Some(url) = &spec.login.device_authorization_endpoint {
        let endpoint = address(name, url)?;
        return Ok(Some(DeviceSettings::Standard(endpoint)));
    }
    let Some(device) = known.and_then(|known| known.device) else {
        return Ok(None);
    };
    Ok(Some(DeviceSettings::Codex {
        start: address(name, device.start_endpoint)?,
        poll: address(name, device.poll_endpoint)?,
        verification_uri: device.verification_uri.to_owned(),
        redirect_uri: device.redirect_uri.to_owned(),
    }))
}

fn written_or(written: &[String], known: &[&str]) -> Vec<String> {
    match written.is_empty() {
        true => known.iter().map(|scope| (*scope).to_owned()).collect(),
        false => written.to_vec(),
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
