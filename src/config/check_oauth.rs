//! Owns what is wrong with an OAuth source that is well formed: parts that its grant lacks or has no
//! use for, URLs that no token may go to, and stores that could not keep it.

use std::sync::Arc;
use std::time::Duration;

use super::check_source::source_error;
use super::check_store::store_error;
use super::error::{ConfigError, SourceFile};
use super::literal::shown;
use super::located::Located;
use super::source::{ClientAuthentication, GrantSpec, LoginSpec, OAuthSpec, SourceSpec, StoreSpec};
use super::spot;
use super::url::{EndpointUrl, secure_url};

/// What a grant needs is not there.
const LACKS: &str = "TG0331";
/// A URL is none, or none that a token may go to.
const URL: &str = "TG0332";
/// A time or a size is out of range.
const RANGE: &str = "TG0335";
/// A scope or parameter is none.
const WORD: &str = "TG0336";
/// A field means nothing for this grant.
const USELESS: &str = "TG0337";

/// Largest body that one request may keep in memory for a second try.
const MAX_REPLAY: u64 = 64 << 20;

/// Every mistake in the OAuth source at `source`.
pub(super) fn check_oauth(
    oauth: &OAuthSpec,
    source: &Located<SourceSpec>,
    file: &Arc<SourceFile>,
    errors: &mut Vec<ConfigError>,
) {
    let mut check = Check {
        oauth,
        source,
        file,
        errors,
    };
    check.parts();
    check.needless();
    check.nested();
    check.urls();
    check.store();
    check.ranges();
    check.words();
}

struct Check<'a> {
    oauth: &'a OAuthSpec,
    source: &'a Located<SourceSpec>,
    file: &'a Arc<SourceFile>,
    errors: &'a mut Vec<ConfigError>,
}

impl Check<'_> {
    /// An error at the source as a whole.
    fn wrong(&mut self, code: &'static str, message: impl Into<String>, help: &str) {
        let error = ConfigError::new(code, message).help(help);
        self.errors.push(spot::at(error, self.file, self.source));
    }

    /// An error at one of its values.
    fn wrong_at<T>(&mut self, at: &Located<T>, error: ConfigError) {
        self.errors.push(spot::at(error, self.file, at));
    }

    /// What the grant cannot do without. A known client brings its endpoint and its identifier.
    fn parts(&mut self) {
        let oauth = self.oauth;
        let grant = grant_name(&oauth.grant);
        if let (Some(client), false) = (&oauth.client, is_refresh(&oauth.grant)) {
            let error = ConfigError::new(
                USELESS,
                format!("a login of a known client is no `{grant}` grant"),
            )
            .help("remove `client`, or remove `grant`");
            return self.wrong_at(client, error);
        }
        if let GrantSpec::GithubApp { app_id, .. } = &oauth.grant {
            if app_id.is_empty() {
                self.wrong(
                    LACKS,
                    "`appId` is empty",
                    "write the App's client ID or its number",
                );
            }
            return;
        }
        let known = oauth.client.is_some();
        if oauth.token_endpoint.is_none() && !known {
            let help = match oauth.grant {
                GrantSpec::JwtBearer { .. } => {
                    "add `tokenEndpoint: https://…`; Google's is `https://oauth2.googleapis.com/token`"
                }
                GrantSpec::RefreshToken {} => {
                    "add `tokenEndpoint: https://…`, or `client: claude-code` or `client: codex`"
                }
                _ => "add `tokenEndpoint: https://…`",
            };
            self.wrong(
                LACKS,
                format!("the `{grant}` grant has no `tokenEndpoint`"),
                help,
            );
        }
        // An assertion names who it is for; only a secret needs somebody to belong to.
        let anonymous =
            matches!(oauth.grant, GrantSpec::JwtBearer { .. }) && oauth.client_secret.is_none();
        if oauth.client_id.is_none() && !known && !anonymous {
            self.wrong(
                LACKS,
                format!("the `{grant}` grant has no `clientId`"),
                "add the `clientId` that the provider gave to your application",
            );
        }
        if matches!(oauth.grant, GrantSpec::ClientCredentials {}) && oauth.client_secret.is_none() {
            self.wrong(
                LACKS,
                "the `clientCredentials` grant has no `clientSecret`",
                "add `clientSecret: { file: { path: … } }` (RFC 6749, section 4.4)",
            );
        }
        // `client-id` of RFC 6749, appendix A.1.
        let sound = |id: &str| !id.is_empty() && id.bytes().all(|b| matches!(b, b' '..=b'~'));
        if oauth.client_id.as_deref().is_some_and(|id| !sound(id)) {
            self.wrong(
                WORD,
                "`clientId` is empty, or holds a character beyond printable ASCII",
                "copy it from where the client was registered",
            );
        }
    }

    /// What the grant has no use for: it was meant for something, and would be passed over.
    fn needless(&mut self) {
        let oauth = self.oauth;
        let grant = grant_name(&oauth.grant);
        if oauth.client_secret.is_none() && oauth.client_authentication.is_some() {
            let how = match oauth.client_authentication {
                Some(ClientAuthentication::Basic) => "basic",
                _ => "body",
            };
            self.wrong(
                USELESS,
                format!("`clientAuthentication: {how}` has no `clientSecret` to show"),
                "add `clientSecret`, or remove `clientAuthentication`",
            );
        }
        if is_refresh(&oauth.grant) {
            return;
        }
        let app = matches!(oauth.grant, GrantSpec::GithubApp { .. });
        for (written, field) in [
            (oauth.seed.is_some(), "seed"),
            (oauth.login != LoginSpec::default(), "login"),
            (!oauth.agent_endpoints.is_empty(), "agentEndpoints"),
            (app && oauth.token_endpoint.is_some(), "tokenEndpoint"),
            (app && oauth.client_id.is_some(), "clientId"),
            (app && oauth.client_secret.is_some(), "clientSecret"),
            (app && oauth.request_body.is_some(), "requestBody"),
            (app && !oauth.scopes.is_empty(), "scopes"),
            (app && !oauth.parameters.is_empty(), "parameters"),
        ] {
            if written {
                self.wrong(
                    USELESS,
                    format!("the `{grant}` grant has no use for `{field}`"),
                    &format!("remove `{field}`, or choose another `grant`"),
                );
            }
        }
    }

    /// The sources within the source.
    fn nested(&mut self) {
        let oauth = self.oauth;
        let key = match &oauth.grant {
            GrantSpec::JwtBearer { key, .. } | GrantSpec::GithubApp { key, .. } => Some(key),
            GrantSpec::RefreshToken {} | GrantSpec::ClientCredentials {} => None,
        };
        for (name, part) in [
            ("clientSecret", oauth.client_secret.as_ref()),
            ("seed", oauth.seed.as_ref()),
            ("key", key),
        ] {
            let error = part.and_then(|part| source_error(&format!("`{name}`"), part));
            self.errors
                .extend(error.map(|error| spot::at(error, self.file, self.source)));
        }
    }

    fn urls(&mut self) {
        let oauth = self.oauth;
        let login = &oauth.login;
        for (field, url) in [
            ("tokenEndpoint", &oauth.token_endpoint),
            ("authorizationEndpoint", &login.authorization_endpoint),
            (
                "deviceAuthorizationEndpoint",
                &login.device_authorization_endpoint,
            ),
        ] {
            if let Some(url) = url
                && let Err(error) = endpoint(field, url)
            {
                self.wrong_at(url, error);
            }
        }
        for url in &oauth.agent_endpoints {
            match endpoint("agentEndpoints", url) {
                Ok(parsed) if parsed.names_one_path() => {}
                Ok(_) => {
                    let message = format!("`{}` in `agentEndpoints` names no path", shown(url));
                    let error = ConfigError::new(URL, message)
                        .help("write it as the agent asks for it, without query: `https://host/oauth/token`");
                    self.wrong_at(url, error);
                }
                Err(error) => self.wrong_at(url, error),
            }
        }
        if let GrantSpec::GithubApp { api: Some(api), .. } = &oauth.grant {
            let error = match endpoint("api", api) {
                Ok(parsed) => parsed.query.map(|_| {
                    ConfigError::new(URL, format!("`{}` in `api` has a query", shown(api)))
                        .help("write the base of the REST API: `https://HOST/api/v3`")
                }),
                Err(error) => Some(error),
            };
            self.errors
                .extend(error.map(|error| spot::at(error, self.file, self.source)));
        }
        let known = oauth.client.is_some();
        if let (Some(begin), None, false) =
            (&login.authorization_endpoint, &login.redirect_uri, known)
        {
            let error = ConfigError::new(
                LACKS,
                "`login` has an `authorizationEndpoint` and no `redirectUri`",
            )
            .help("add the `redirectUri` that the client was registered with");
            self.wrong_at(begin, error);
        }
        if let Some(redirect) = &login.redirect_uri
            && !is_redirect(redirect)
        {
            self.wrong(
                URL,
                format!("`{}` is no redirect URI", shown(redirect)),
                "write the one that the provider knows for this client: `https://…` or `http://localhost:PORT/…`",
            );
        }
    }

    fn store(&mut self) {
        let Some(store) = &self.oauth.store else {
            return;
        };
        let forgets = matches!(store.value, StoreSpec::Memory {}) && is_refresh(&self.oauth.grant);
        let error = match forgets {
            true => Some(
                ConfigError::new("TG0333", "a refresh token cannot be kept in memory alone").help(
                    "refresh tokens are good for one use: the next start would have none. \
                     Use `file` or `kubernetesSecret`",
                ),
            ),
            false => store_error(&store.value, self.oauth.timeout),
        };
        if let Some(error) = error {
            self.wrong_at(store, error);
        }
    }

    fn ranges(&mut self) {
        let oauth = self.oauth;
        let lifetime = match &oauth.grant {
            GrantSpec::JwtBearer { lifetime, .. } => lifetime,
            _ => &None,
        };
        // Times in assertions are whole seconds (RFC 7519, section 2).
        let (some, second) = (Duration::from_nanos(1), Duration::from_secs(1));
        for (field, span, least) in [
            ("refreshBefore", oauth.refresh_before, some),
            ("timeout", oauth.timeout, some),
            ("lifetime", *lifetime, second),
        ] {
            if span.is_some_and(|span| span.0 < least) {
                self.wrong(
                    RANGE,
                    format!("`{field}` is too short"),
                    "write how long: `30s`, `5m`; or remove it",
                );
            }
        }
        if oauth.replay_limit.is_some_and(|limit| limit.0 > MAX_REPLAY) {
            self.wrong(
                RANGE,
                "`replayLimit` is larger than 64MiB",
                "each request keeps up to that much in memory; larger bodies pass without a second try",
            );
        }
    }

    fn words(&mut self) {
        let oauth = self.oauth;
        let scopes = oauth.scopes.iter().chain(&oauth.login.scopes);
        for scope in scopes.filter(|scope| !is_scope(scope)) {
            let help = match scope.contains(' ') {
                true => "write each scope as an item of its own: `[openid, profile]`",
                false => {
                    "a scope is printable ASCII without blanks, `\"` and `\\` (RFC 6749, section 3.3)"
                }
            };
            self.wrong(WORD, format!("`{}` is not a scope", shown(scope)), help);
        }
        let parameters = oauth.parameters.keys().chain(oauth.login.parameters.keys());
        for name in parameters {
            if let Some(instead) = taken(name) {
                let message = format!("the parameter `{}` is written by Tollgate", shown(name));
                self.wrong(WORD, message, instead);
            } else if name.is_empty() {
                self.wrong(WORD, "a parameter has no name", "write it, or remove it");
            }
        }
    }
}

fn is_refresh(grant: &GrantSpec) -> bool {
    matches!(grant, GrantSpec::RefreshToken {})
}

fn grant_name(grant: &GrantSpec) -> &'static str {
    match grant {
        GrantSpec::RefreshToken {} => "refreshToken",
        GrantSpec::ClientCredentials {} => "clientCredentials",
        GrantSpec::JwtBearer { .. } => "jwtBearer",
        GrantSpec::GithubApp { .. } => "githubApp",
    }
}

fn endpoint<'a>(field: &str, url: &'a str) -> Result<EndpointUrl<'a>, ConfigError> {
    secure_url(url).map_err(|reason| {
        ConfigError::new(URL, format!("`{}` in `{field}` {reason}", shown(url))).help(
            "write `https://host/path`: tokens travel only within TLS (RFC 6749, section 3.2)",
        )
    })
}

/// Native clients listen on their own machine for the code (RFC 8252, section 7.3).
fn is_redirect(uri: &str) -> bool {
    let parsed: Result<http::Uri, _> = uri.parse();
    parsed.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("https" | "http")) && uri.authority().is_some()
    }) && !uri.contains('#')
}

/// `scope-token` of RFC 6749, section 3.3.
fn is_scope(scope: &str) -> bool {
    !scope.is_empty()
        && scope
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
}

/// What to write instead of a parameter that every request of this kind has.
fn taken(parameter: &str) -> Option<&'static str> {
    Some(match parameter {
        "client_id" => "write it as `clientId`",
        "client_secret" => "write where it comes from as `clientSecret`",
        "scope" => "write `scopes`",
        "redirect_uri" => "write `login.redirectUri`",
        "grant_type" => "write `grant`",
        "refresh_token"
        | "assertion"
        | "code"
        | "code_verifier"
        | "code_challenge"
        | "code_challenge_method"
        | "response_type"
        | "state"
        | "device_code" => "remove it: its value is made for each request",
        _ => return None,
    })
}

#[cfg(test)]
#[path = "check_oauth_tests.rs"]
mod tests;
