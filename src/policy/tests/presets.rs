//! The built-in presets compiled: alone, all together, and what those for logins let agents ask.

use http::Method;

use crate::config::known_clients::facts;
use crate::config::load::load_bundle;
use crate::config::located::Located;
use crate::config::presets;
use crate::config::source::KnownClient;
use crate::config::url::secure_url;
use crate::policy::compile::compile;
use crate::policy::engine::Engine;
use crate::types::agent::Agent;
use crate::types::host::Authority;
use crate::types::intent::{EgressIntent, RequestLine, Scheme};

fn with(names: &[&str]) -> Engine {
    let names: Vec<Located<String>> = names
        .iter()
        .map(|name| Located::unwritten((*name).to_owned()))
        .collect();
    let bundle = load_bundle(&[], &names).unwrap_or_else(|errors| panic!("{errors:#?}"));
    compile(&bundle).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// The credentials that apply to a request, or nothing if it is refused.
fn asked(engine: &Engine, method: Method, host: &str, path: &str) -> Option<Vec<String>> {
    let authority = Authority::parse(host, Some(443)).unwrap();
    let agent = Agent::parse("agent").unwrap();
    let permit = engine.authorize(&EgressIntent {
        agent: &agent,
        authority: &authority,
        scheme: Scheme::Https,
        request: Some(RequestLine {
            method: &method,
            path,
        }),
    });
    let permit = permit.ok()?;
    Some(
        permit
            .credentials()
            .iter()
            .map(ToString::to_string)
            .collect(),
    )
}

#[test]
fn presets_of_one_provider_go_together_and_so_do_all() {
    with(&presets::names());
    with(&["codex", "codex-login"]);
    let engine = with(&["claude-code", "claude-login"]);
    let path = "/v1/messages";
    let applied = asked(&engine, Method::POST, "api.anthropic.com", path).unwrap();
    for name in ["claude-oauth", "claude-login"] {
        assert!(applied.iter().any(|applied| applied == name), "{applied:?}");
    }
}

/// Host and path of an endpoint.
fn parts(url: &str) -> (String, &str) {
    let url = secure_url(url).unwrap();
    (url.authority.host.to_string(), url.path)
}

#[test]
fn a_login_preset_brings_its_credential_to_the_endpoints_that_are_answered_here() {
    for (preset, client) in [
        ("claude-login", KnownClient::ClaudeCode),
        ("codex-login", KnownClient::Codex),
    ] {
        let engine = with(&[preset]);
        let own = Some(vec![preset.to_owned()]);
        let facts = facts(client);
        for url in facts.agent_endpoints.iter().chain(facts.agent_revocations) {
            let (host, path) = parts(url);
            assert_eq!(asked(&engine, Method::POST, &host, path), own, "{url}");
            // The API's own host is open for models; there the data path refuses other methods.
            if host != "api.anthropic.com" {
                assert_eq!(asked(&engine, Method::GET, &host, path), None, "{url}");
                assert_eq!(asked(&engine, Method::POST, &host, "/other"), None, "{url}");
            }
        }
        // What carries no token gets none: the beginning of a login with a code.
        for url in facts
            .device
            .iter()
            .flat_map(|device| [device.start_endpoint, device.poll_endpoint])
        {
            let (host, path) = parts(url);
            assert_eq!(
                asked(&engine, Method::POST, &host, path),
                Some(Vec::new()),
                "{url}"
            );
        }
    }
}

#[test]
fn a_login_preset_lets_the_client_work_with_its_login() {
    let claude = with(&["claude-login"]);
    let path = "/api/claude_code/settings";
    let applied = asked(&claude, Method::GET, "api.anthropic.com", path);
    assert_eq!(applied, Some(vec!["claude-login".to_owned()]));
    for host in ["platform.claude.com", "console.anthropic.com"] {
        let probe = asked(&claude, Method::GET, host, "/v1/oauth/hello");
        assert_eq!(
            probe,
            Some(Vec::new()),
            "the probe of the terminal UI carries no token"
        );
    }
    let codex = with(&["codex-login"]);
    let path = "/backend-api/codex/responses";
    let applied = asked(&codex, Method::GET, "chatgpt.com", path);
    assert_eq!(applied, Some(vec!["codex-login".to_owned()]));
    assert_eq!(asked(&codex, Method::GET, "chatgpt.com", "/"), None);
}
