use super::*;
use crate::config::source::StoreSpec;

fn spec(yaml: &str) -> OAuthSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

fn resolve(yaml: &str) -> OAuthSettings {
    OAuthSettings::resolve(&spec(yaml)).unwrap()
}

fn urls(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(Endpoint::to_string).collect()
}

#[test]
fn claude_code_needs_only_its_name() {
    let settings = resolve("client: claude-code");
    assert_eq!(settings.grant, GrantSettings::RefreshToken);
    assert_eq!(
        settings.token_endpoint.to_string(),
        "https://platform.claude.com/v1/oauth/token"
    );
    assert_eq!(settings.request_body, RequestBodyForm::Json);
    assert!(settings.scopes.contains(&"user:inference".to_owned()));
    assert_eq!(
        urls(&settings.agent_endpoints),
        [
            "https://platform.claude.com/v1/oauth/token",
            "https://console.anthropic.com/v1/oauth/token",
            "https://api.anthropic.com/v1/oauth/token",
        ]
    );
    assert_eq!(settings.agent_revocations.len(), 3);
    assert_eq!(settings.timeout, Duration::from_secs(30));
    assert_eq!(settings.login.device, None);
    let code = settings.login.code.unwrap();
    assert_eq!(code.parameters["code"], "true");
    assert!(code.repeats_state);
    // What a refresh may name, a login has asked for.
    for scope in &settings.scopes {
        assert!(settings.login.scopes.contains(scope), "{scope}");
    }
}

#[test]
fn codex_refreshes_with_json_and_logs_in_with_a_form() {
    let settings = resolve("client: codex");
    assert_eq!(settings.request_body, RequestBodyForm::Json);
    assert_eq!(settings.login.code_body, RequestBodyForm::Form);
    assert_eq!(settings.scopes, [""; 0]);
    assert!(settings.login.scopes.contains(&"offline_access".to_owned()));
    assert!(matches!(
        settings.login.device,
        Some(DeviceSettings::Codex { .. })
    ));
}

#[test]
fn what_is_written_wins_over_what_is_known() {
    let settings = resolve(
        "client: codex
tokenEndpoint: https://auth.example.com/token
clientId: mine
requestBody: form
scopes: [one]
timeout: 5s
agentEndpoints: [https://auth.example.com/token]
store: { memory: {} }
login:
  authorizationEndpoint: https://auth.example.com/authorize
  deviceAuthorizationEndpoint: https://auth.example.com/device
  redirectUri: https://auth.example.com/shown
  parameters: { originator: tollgate }",
    );
    assert_eq!(
        settings.token_endpoint.to_string(),
        "https://auth.example.com/token"
    );
    assert_eq!(settings.client_id.as_deref(), Some("mine"));
    assert_eq!(settings.request_body, RequestBodyForm::Form);
    assert_eq!(settings.scopes, ["one"]);
    assert_eq!(settings.login.scopes, ["one"]);
    assert_eq!(settings.timeout, Duration::from_secs(5));
    assert_eq!(
        urls(&settings.agent_endpoints),
        ["https://auth.example.com/token"]
    );
    assert_eq!(settings.store, Some(StoreSpec::Memory {}));
    let code = settings.login.code.unwrap();
    assert_eq!(code.redirect_uri, "https://auth.example.com/shown");
    assert_eq!(code.parameters["originator"], "tollgate");
    assert_eq!(code.parameters["codex_cli_simplified_flow"], "true");
    assert!(matches!(
        settings.login.device,
        Some(DeviceSettings::Standard(_))
    ));
}

#[test]
fn a_github_app_is_asked_for_at_its_installation() {
    for (api, endpoint) in [
        (
            "",
            "https://api.github.com/app/installations/7/access_tokens",
        ),
        (
            ", api: https://git.example.com/api/v3/",
            "https://git.example.com/api/v3/app/installations/7/access_tokens",
        ),
    ] {
        let settings = resolve(&format!(
            "grant: {{ githubApp: {{ appId: Iv23, installationId: 7, key: {{ env: {{ name: KEY }} }}{api} }} }}"
        ));
        assert_eq!(settings.token_endpoint.to_string(), endpoint);
        assert_eq!(settings.client_id, None);
    }
}

#[test]
fn what_a_grant_cannot_do_without_is_named() {
    let app = "grant: { githubApp: { appId: Iv23, installationId: 7, key: { env: { name: KEY } }";
    for (yaml, said) in [
        ("clientId: x", "there is no `tokenEndpoint`"),
        (
            "tokenEndpoint: https://a.example.com/t",
            "there is no `clientId`",
        ),
        (
            "grant: { clientCredentials: {} }\ntokenEndpoint: https://a.example.com/t",
            "there is no `clientId`",
        ),
        (
            "client: codex\ntokenEndpoint: http://a.example.com/t",
            "`tokenEndpoint` is no https URL",
        ),
        (
            "client: codex\nagentEndpoints: [https://u@a.example.com/t]",
            "`agentEndpoints` holds a user name",
        ),
        (
            "clientId: x\ntokenEndpoint: https://a.example.com/t\nlogin: { authorizationEndpoint: https://a.example.com/a }",
            "no `redirectUri`",
        ),
        (
            &format!("{app}, api: https://git.example.com/?x }} }}"),
            "`api` has a query",
        ),
    ] {
        let error = OAuthSettings::resolve(&spec(yaml)).unwrap_err();
        assert!(error.what.contains(said), "{yaml}: {error}");
        assert!(!error.help.is_empty());
    }
}
