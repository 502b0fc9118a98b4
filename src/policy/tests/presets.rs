//! The built-in presets compiled: alone, all together, and what those for logins let agents ask.

use http::Method;

use crate::config::load::load_bundle;
use crate::config::located::Located;
use crate::config::presets;
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

#[test]
fn a_login_preset_brings_its_credential_to_the_api_and_to_the_endpoints_answered_here() {
    let claude = with(&["claude-login"]);
    let codex = with(&["codex-login"]);
    let own = |name: &str| Some(vec![name.to_owned()]);
    for host in ["platform.claude.com", "console.anthropic.com"] {
        for path in ["/v1/oauth/token", "/v1/oauth/token/revoke"] {
            let applied = asked(&claude, Method::POST, host, path);
            assert_eq!(applied, own("claude-login"), "{host}{path}");
        }
        // The probe of the terminal UI carries no token, and none is put into it.
        let probe = asked(&claude, Method::GET, host, "/v1/oauth/hello");
        assert_eq!(probe, Some(Vec::new()));
        assert_eq!(asked(&claude, Method::GET, host, "/v1/oauth/token"), None);
        assert_eq!(asked(&claude, Method::POST, host, "/v1/other"), None);
    }
    for (method, host, path) in [
        (Method::GET, "chatgpt.com", "/backend-api/codex/responses"),
        (Method::POST, "auth.openai.com", "/oauth/token"),
        (Method::POST, "auth.openai.com", "/oauth/revoke"),
    ] {
        assert_eq!(
            asked(&codex, method, host, path),
            own("codex-login"),
            "{path}"
        );
    }
    assert_eq!(asked(&codex, Method::GET, "chatgpt.com", "/"), None);
    let begin = "/api/accounts/deviceauth/usercode";
    let begun = asked(&codex, Method::POST, "auth.openai.com", begin);
    assert_eq!(begun, Some(Vec::new()));
}
