//! Owns the token endpoints that are answered for agents: which requests are meant, what is done with a
//! call, and the answers that hold placeholders only.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::agent_call::{AgentCall, AgentGrant};
use super::asking::Asking;
use super::call_error::CallError;
use super::endpoint::Endpoint;
use super::owner::{About, GrantOwner, Standing};
use super::phantom::Phantoms;
use super::transport::TokenTransport;
use crate::config::source::{AgentLogin, KnownClient};
use crate::types::host::{Authority, Host};

/// The token endpoints of all grants that are owned here.
#[derive(Debug, Clone, Default)]
pub struct LocalEndpoints(Vec<LocalEndpoint>);

/// One of them.
#[derive(Debug, Clone)]
pub struct LocalEndpoint {
    /// What is asked there.
    pub role: Role,
    /// Where it is.
    pub address: Endpoint,
    /// Whose it is.
    pub grant: Arc<LocalGrant>,
}

/// What an endpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It gives tokens (RFC 6749, section 3.2).
    Token,
    /// It takes them back (RFC 7009).
    Revocation,
}

/// A grant, as far as agents' calls need it.
#[derive(Debug)]
pub struct LocalGrant {
    /// Whoever renews it.
    pub owner: GrantOwner,
    /// How its tokens are asked for, and how answers are read.
    pub asking: Arc<Asking>,
    /// The way to the real endpoint, for a login that is taken over.
    pub transport: Arc<dyn TokenTransport>,
    /// One login is taken over at a time: a second try of an agent finds what the first one brought.
    pub capture: Arc<Mutex<()>>,
}

impl LocalGrant {
    /// The endpoints that agents may ask instead of the real ones.
    pub fn endpoints(self: &Arc<Self>) -> impl Iterator<Item = LocalEndpoint> + use<'_> {
        let settings = self.asking.grant().settings();
        let tokens = settings.agent_endpoints.iter().map(|a| (Role::Token, a));
        let revocations = settings.agent_revocations.iter();
        let all = tokens.chain(revocations.map(|a| (Role::Revocation, a)));
        all.map(|(role, address)| LocalEndpoint {
            role,
            address: address.clone(),
            grant: self.clone(),
        })
    }
}

impl FromIterator<LocalEndpoint> for LocalEndpoints {
    fn from_iter<I: IntoIterator<Item = LocalEndpoint>>(endpoints: I) -> Self {
        Self(endpoints.into_iter().collect())
    }
}

impl LocalEndpoints {
    /// The endpoints of the credentials `granted` that a request for this path may mean, in the order in
    /// which those are granted.
    pub fn find<'a>(
        &'a self,
        authority: &Authority,
        path: &str,
        granted: &[Arc<str>],
    ) -> Vec<&'a LocalEndpoint> {
        let rank = |endpoint: &LocalEndpoint| {
            let credential = endpoint.grant.owner.credential();
            granted.iter().position(|granted| granted == credential)
        };
        let there = self.at(authority, path);
        let mut found: Vec<_> = there.filter(|endpoint| rank(endpoint).is_some()).collect();
        found.sort_by_key(|endpoint| rank(endpoint));
        found
    }

    /// Whether tokens are asked for there, whosever they are.
    pub fn has(&self, authority: &Authority, path: &str) -> bool {
        self.at(authority, path).next().is_some()
    }

    /// The credential of an endpoint on this host: in the clear nothing may be said to it.
    pub fn on_host(&self, host: &Host) -> Option<&Arc<str>> {
        let mut there = self.0.iter();
        let found = there.find(|endpoint| endpoint.address.authority().host == *host)?;
        Some(found.grant.owner.credential())
    }

    fn at<'a>(
        &'a self,
        authority: &Authority,
        path: &str,
    ) -> impl Iterator<Item = &'a LocalEndpoint> {
        let here = self
            .0
            .iter()
            .filter(move |endpoint| endpoint.address.authority() == authority);
        here.filter(move |endpoint| is_same_path(endpoint.address.target().path(), path))
    }
}

/// Whether some server takes one path for the other: escapes, also of escapes, dot segments, doubled and
/// trailing slashes, letters of either case, and parameters of a segment (RFC 3986, section 3.3).
fn is_same_path(known: &str, asked: &str) -> bool {
    // Most paths are spelled in one way only, and are asked about with every request.
    if is_plain(known) && is_plain(asked) {
        let (known, asked) = (known.trim_matches('/'), asked.trim_matches('/'));
        return known.eq_ignore_ascii_case(asked);
    }
    known == asked || {
        let once = percent_decode_str(asked).decode_utf8_lossy();
        let twice = percent_decode_str(&once).decode_utf8_lossy();
        segments(known) == segments(&twice)
    }
}

/// Whether a path holds nothing that a server may leave out or decode.
fn is_plain(path: &str) -> bool {
    let bare = |byte| !matches!(byte, b'%' | b';' | b'\\' | b'.');
    path.bytes().all(bare) && !path.contains("//")
}

fn segments(path: &str) -> Vec<String> {
    let mut segments = Vec::new();
    for segment in path.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name.to_ascii_lowercase()),
        }
    }
    segments
}

/// What is done with an agent's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is answered with placeholders.
    Answer,
    /// It goes to the real endpoint, and what that gives stays here.
    Capture,
}

/// Decides. An agent that refreshes always gets placeholders, whatever it showed and however the grant
/// stands: told `invalid_grant`, Claude Code empties its credentials file.
pub fn decide(
    grant: AgentGrant,
    standing: Standing,
    login: AgentLogin,
    credential: &Arc<str>,
) -> Result<Decision, CallError> {
    match (grant, standing, login) {
        (AgentGrant::Refresh, ..) | (AgentGrant::Login, Standing::Held, _) => Ok(Decision::Answer),
        (AgentGrant::Login, Standing::Unknown, _) => Err(CallError::NotReady(credential.clone())),
        (AgentGrant::Login, Standing::Absent | Standing::NeedsLogin, AgentLogin::WhenNeeded) => {
            Ok(Decision::Capture)
        }
        (AgentGrant::Login, Standing::Absent | Standing::NeedsLogin, AgentLogin::Never) => {
            Err(CallError::LoginNeeded(credential.clone()))
        }
        (AgentGrant::Other, ..) => Err(CallError::Unsupported(credential.clone())),
    }
}

/// How long an agent is told that its placeholder is good: eight hours, as Claude's access tokens are. It
/// does not end; five minutes before, Claude Code asks for another one.
const LIFETIME: u64 = 8 * 3600;

/// The answer with placeholders, in the shape of the provider's own. Claude Code drops one that lacks a
/// refresh token, `expires_in` or `scope`; Codex wants an identity token with a login.
pub fn answer(
    call: &AgentCall,
    about: &About,
    phantoms: &Phantoms,
    client: Option<KnownClient>,
    configured: &[String],
) -> Vec<u8> {
    let mut answer = json!({
        "access_token": phantoms.access,
        "refresh_token": phantoms.refresh,
        "token_type": "Bearer",
        "expires_in": call.lifetime.unwrap_or(LIFETIME),
    });
    let scopes = [&about.scopes[..], configured];
    let known = scopes.into_iter().find(|scopes| !scopes.is_empty());
    let scope = call.scope.clone().or(known.map(|known| known.join(" ")));
    if let Some(scope) = scope {
        answer["scope"] = scope.into();
    }
    // What an agent knows of the account already stands, if nothing better is known here.
    let account = about.profile.contains_key("account_id");
    if client == Some(KnownClient::Codex) && (call.grant == AgentGrant::Login || account) {
        answer["id_token"] = phantoms.identity(&about.profile).into();
    }
    if call.grant == AgentGrant::Login {
        for party in ["account", "organization"] {
            if let Some(Value::Object(known)) = about.profile.get(party) {
                answer[party] = plain(known).into();
            }
        }
    }
    answer.to_string().into_bytes()
}

/// Texts and numbers only.
fn plain(known: &Map<String, Value>) -> Map<String, Value> {
    let scalars = known
        .iter()
        .filter(|(_, value)| value.is_string() || value.is_number());
    scalars
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn call(body: &str) -> AgentCall {
        let kind = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        AgentCall::read(&headers, None, body.as_bytes()).unwrap()
    }

    fn phantoms() -> Phantoms {
        Phantoms {
            access: "ph-access".to_owned(),
            refresh: "ph-refresh".to_owned(),
            signature: "ph-signature".to_owned(),
        }
    }

    fn told(body: &str, about: &About, client: Option<KnownClient>) -> Value {
        let configured = ["user:inference".to_owned()];
        let answer = answer(&call(body), about, &phantoms(), client, &configured);
        serde_json::from_slice(&answer).unwrap()
    }

    const REFRESH: &str = r#"{"grant_type":"refresh_token","refresh_token":"x"}"#;
    const LOGIN: &str = r#"{"grant_type":"authorization_code","code":"x"}"#;

    #[test]
    fn what_is_done_depends_on_the_grant_and_how_it_stands() {
        use AgentGrant::{Login, Other, Refresh};
        use AgentLogin::{Never, WhenNeeded};
        use Standing::{Absent, Held, NeedsLogin, Unknown};
        let name: Arc<str> = "login".into();
        let needed = Err(CallError::LoginNeeded(name.clone()));
        let unknown = Err(CallError::NotReady(name.clone()));
        let unsupported = Err(CallError::Unsupported(name.clone()));
        for (grant, standing, login, decision) in [
            (Refresh, Unknown, Never, Ok(Decision::Answer)),
            (Refresh, Absent, Never, Ok(Decision::Answer)),
            (Refresh, Held, WhenNeeded, Ok(Decision::Answer)),
            (Refresh, NeedsLogin, WhenNeeded, Ok(Decision::Answer)),
            (Login, Held, WhenNeeded, Ok(Decision::Answer)),
            (Login, Held, Never, Ok(Decision::Answer)),
            (Login, Absent, WhenNeeded, Ok(Decision::Capture)),
            (Login, NeedsLogin, WhenNeeded, Ok(Decision::Capture)),
            (Login, Absent, Never, needed.clone()),
            (Login, NeedsLogin, Never, needed),
            (Login, Unknown, WhenNeeded, unknown.clone()),
            (Login, Unknown, Never, unknown),
            (Other, Held, WhenNeeded, unsupported.clone()),
            (Other, Absent, WhenNeeded, unsupported),
        ] {
            let decided = decide(grant, standing, login, &name);
            assert_eq!(decided, decision, "{grant:?} {standing:?} {login:?}");
        }
    }

    #[test]
    fn claude_code_gets_all_it_insists_on() {
        let told = told(REFRESH, &About::default(), Some(KnownClient::ClaudeCode));
        let expected = json!({
            "access_token": "ph-access",
            "refresh_token": "ph-refresh",
            "token_type": "Bearer",
            "expires_in": 28800,
            "scope": "user:inference",
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn scopes_are_the_ones_that_were_asked_for_or_are_held() {
        let about = About {
            scopes: ["a".to_owned(), "b".to_owned()].into(),
            ..About::default()
        };
        assert_eq!(told(REFRESH, &about, None)["scope"], "a b");
        let asked = r#"{"grant_type":"refresh_token","scope":"user:profile"}"#;
        assert_eq!(told(asked, &about, None)["scope"], "user:profile");
        let bare = answer(&call(REFRESH), &About::default(), &phantoms(), None, &[]);
        assert!(!String::from_utf8(bare).unwrap().contains("scope"));
    }

    #[test]
    fn a_login_is_told_whose_it_is() {
        let Value::Object(profile) = json!({
            "account": {"uuid": "u", "email_address": "me@example.com", "odd": ["x"]},
            "organization": {"uuid": "o"},
            "account_id": "acc-1",
        }) else {
            unreachable!()
        };
        let about = About {
            profile: Arc::new(profile),
            ..About::default()
        };
        let claude = told(LOGIN, &about, Some(KnownClient::ClaudeCode));
        let account = json!({"uuid": "u", "email_address": "me@example.com"});
        assert_eq!(
            (&claude["account"], &claude["organization"]["uuid"]),
            (&account, &json!("o"))
        );
        assert_eq!(claude.get("id_token"), None);
        let refreshed = told(REFRESH, &about, Some(KnownClient::ClaudeCode));
        assert_eq!(refreshed.get("account"), None);

        let codex = Some(KnownClient::Codex);
        let identity = phantoms().identity(&about.profile);
        assert_eq!(told(LOGIN, &about, codex)["id_token"], identity);
        assert_eq!(told(REFRESH, &about, codex)["id_token"], identity);
        assert_eq!(
            told(REFRESH, &About::default(), codex).get("id_token"),
            None
        );
        let unknown = told(LOGIN, &About::default(), codex);
        assert_eq!(unknown["id_token"].as_str().unwrap().split('.').count(), 3);
        let year = r#"{"grant_type":"authorization_code","code":"x","expires_in":31536000}"#;
        assert_eq!(told(year, &about, None)["expires_in"], 31_536_000);
    }

    #[test]
    fn the_short_way_to_compare_paths_answers_as_the_long_one() {
        let paths = [
            "", "/", "/a", "/a/", "/A/b", "/a/b", "/ab", "a/b", "/a/b/c", "/a-b/C_d",
        ];
        for (known, asked) in paths
            .iter()
            .flat_map(|k| paths.iter().map(move |a| (*k, *a)))
        {
            assert!(is_plain(known) && is_plain(asked));
            let long = segments(known) == segments(asked);
            assert_eq!(is_same_path(known, asked), long, "{known} {asked}");
        }
        assert!(
            ["/a;b", "/a%62", "/a/../b", "/a//b", "/a\\b"]
                .iter()
                .all(|p| !is_plain(p))
        );
    }

    #[test]
    fn other_spellings_of_a_path_mean_the_same_endpoint() {
        for asked in [
            "/v1/oauth/token",
            "/v1/oauth/token/",
            "//v1//oauth/token",
            "/v1/oauth/%74oken",
            "/v1/oauth/%2574oken",
            "/v1/x/../oauth/token",
            "/V1/OAuth/Token",
            "/v1/oauth;x=y/token;z",
            "/v1/./oauth/token",
        ] {
            assert!(is_same_path("/v1/oauth/token", asked), "{asked}");
        }
        for asked in [
            "/v1/oauth/token/revoke",
            "/v1/oauth",
            "/v1/oauth/tokens",
            "/",
        ] {
            assert!(!is_same_path("/v1/oauth/token", asked), "{asked}");
        }
    }
}
