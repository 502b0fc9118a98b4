//! Agents that call a token endpoint themselves get placeholders, logins that they run are kept here, and
//! no real token is ever among what they see.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use serde_json::{Value, json};

use super::http::Speaks;
use super::support::lent::{CLAUDE, Lent, Login, Program, owning};
use super::support::operator::{PATIENCE, until};
use super::support::proxy::proxy;
use super::support::recorded::{Recorded, sha256};
use super::support::reply::full;
use super::support::token_server::api::Verdict;
use super::support::token_server::fault::{Fault, Stage};
use super::support::token_server::login::Asked;
use super::support::token_server::server::{TokenServer, token_server};
use super::support::tunnel;
use super::support::wire::{self, Answer};

const TOKEN: &str = "/v1/oauth/token";
const HOST: &str = "platform.claude.com";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

impl Lent {
    /// Posts to a token endpoint, as an agent does.
    async fn post(&self, host: &str, path: &str, kind: &str, body: &str) -> Answer {
        self.send(Speaks::Http1, host, path, kind, body).await
    }

    async fn send(&self, speaks: Speaks, host: &str, path: &str, kind: &str, body: &str) -> Answer {
        let request = Request::post(match speaks {
            Speaks::Http1 => path.to_owned(),
            Speaks::Http2 => format!("https://{host}{path}"),
        });
        let request = request
            .header("content-type", kind)
            .header("user-agent", "axios/1.15.2");
        let request = match speaks {
            Speaks::Http1 => request.header("host", host),
            Speaks::Http2 => request,
        };
        let request = request.body(full(body.to_owned())).unwrap();
        let answer = match speaks {
            Speaks::Http1 => {
                tunnel::http1(&self.door, host)
                    .await
                    .send_request(request)
                    .await
            }
            Speaks::Http2 => {
                tunnel::http2(&self.door, host)
                    .await
                    .send_request(request)
                    .await
            }
        };
        let answer = Answer::of(answer.unwrap()).await;
        self.assert_harmless(&answer);
        answer
    }

    /// Asks the API with what an agent holds.
    async fn ask(&self, host: &str, path: &str, bearer: &str) -> Answer {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {bearer}\r\n\r\n"
        );
        let mut stream = tunnel::tls(&self.door, host, &[b"http/1.1"]).await;
        let answer = wire::say(&mut stream, request.as_bytes()).await;
        self.assert_harmless(&answer);
        answer
    }

    #[track_caller]
    fn assert_harmless(&self, answer: &Answer) {
        let seen = format!("{:?}\n{}", answer.headers, answer.text());
        for needle in self.server.needles() {
            let found = needle.find(seen.as_bytes());
            assert!(found.is_none(), "{} is in {seen}", needle.name);
        }
    }

    /// What the provider was asked at its token endpoint.
    fn asked(&self) -> Vec<Recorded> {
        self.server.origin.requests()
    }

    /// The record of the token call of this number.
    async fn record(&self, number: usize) -> Value {
        let mut found = None;
        until("the record of a token call", PATIENCE, async || {
            let records = self.proxy.access_log(1).await;
            let mut calls = records
                .into_iter()
                .filter(|r| r.get("token_call").is_some());
            found = calls.nth(number - 1);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    async fn calls(&self, credential: &str, kind: &str) -> Option<f64> {
        let labels = format!("{{credential=\"{credential}\",kind=\"{kind}\"}}");
        let series = format!("tollgate_token_calls_total{labels}");
        self.proxy.metric(&series).await
    }

    /// Nothing that was written down anywhere holds a token; the proxy's end looks once more.
    fn forbid_tokens(&mut self) {
        for token in self.server.minted() {
            self.proxy.forbid(&token);
        }
    }
}

/// Agents' logins are not wanted.
async fn never(login: Login) -> Lent {
    let server = token_server().claude().start().await;
    let api = server.protected_api(&["api.anthropic.com"]).await;
    let program = Program {
        more: ", agentLogin: Never",
        ..CLAUDE
    };
    let proxy = owning(&server, &api, &program, login);
    Lent::of(server, api, proxy).await
}

#[track_caller]
fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some(JSON), "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"))
}

/// As Claude Code refreshes, showing this refresh token.
fn refresh(token: &str) -> String {
    json!({
        "grant_type": "refresh_token",
        "refresh_token": token,
        "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
        "scope": "user:profile user:inference",
    })
    .to_string()
}

/// A code that a person has agreed to, and the request that Claude Code makes with it.
fn code_request(server: &TokenServer, scope: &str) -> (String, Value) {
    let verifier = "v".repeat(43);
    let redirect_uri = "https://platform.claude.com/oauth/code/callback";
    let asked = Asked {
        challenge: URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())),
        redirect_uri: redirect_uri.to_owned(),
        state: "s".repeat(43),
        scope: scope.to_owned(),
    };
    let code = server.code(asked).code;
    let request = json!({
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "client_id": server.client_id(),
        "code_verifier": verifier,
        "state": "s".repeat(43),
    });
    (code, request)
}

fn form(parameters: &Value) -> String {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let pairs: BTreeMap<&String, &Value> = parameters.as_object().unwrap().iter().collect();
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value.as_str().unwrap())));
    pairs.collect::<Vec<_>>().join("&")
}

#[tokio::test]
async fn an_agent_that_refreshes_gets_placeholders_and_the_provider_hears_nothing() {
    let mut stage = Lent::claude(Login::Held).await;
    let placeholder = stage.placeholder("claude-login").await;
    let before = stage.asked().len();
    let real = stage.server.truth().refresh_token().to_owned();
    let mut refreshes = Vec::new();
    for (number, (speaks, path, shown)) in [
        (Speaks::Http1, TOKEN, "sk-ant-ort01-somebody-elses-real-one"),
        (Speaks::Http2, TOKEN, ""),
        (Speaks::Http1, "/v1/oauth/token", placeholder.as_str()),
        // Not even its own real one changes anything.
        (Speaks::Http2, TOKEN, real.as_str()),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = stage.send(speaks, HOST, path, JSON, &refresh(shown)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let told = json_of(&answer);
        assert_eq!(told["access_token"], placeholder);
        assert_eq!(told["token_type"], "Bearer");
        assert_eq!(told["expires_in"], 28800);
        assert_eq!(told["scope"], "user:profile user:inference");
        let stands = told["refresh_token"].as_str().unwrap();
        assert!(stands.starts_with("sk-ant-ort01-"), "{stands}");
        refreshes.push(stands.to_owned());
        let record = stage.record(number + 1).await;
        assert_eq!(record["token_call"], "refresh", "{record}");
        assert_eq!(record["credentials"], json!(["claude-login"]));
        assert_eq!(
            (&record["status"], &record["decision"]),
            (&json!(200), &json!("allow"))
        );
    }
    refreshes.dedup();
    assert_eq!(refreshes.len(), 1, "the same one each time");
    let answer = stage.post(HOST, TOKEN, JSON, &refresh(&refreshes[0])).await;
    assert_eq!(json_of(&answer)["refresh_token"], refreshes[0]);
    let old = "console.anthropic.com";
    assert_eq!(
        stage.post(old, TOKEN, JSON, &refresh("x")).await.status,
        200
    );
    let as_form = "grant_type=refresh_token&refresh_token=x";
    let answer = stage.post(HOST, TOKEN, FORM, as_form).await;
    let scope = json_of(&answer)["scope"].as_str().unwrap().to_owned();
    assert!(scope.contains("user:inference"), "what is held: {scope}");
    assert_eq!(stage.calls("claude-login", "refresh").await, Some(7.0));
    assert_eq!(stage.asked().len(), before, "{:#?}", stage.asked());
    stage.server.truth().assert_one_clean_grant();

    // What it got works at once, in its place and nowhere else.
    let answer = stage
        .ask("api.anthropic.com", "/v1/models", &placeholder)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stage.api.seen().last().unwrap().verdict, Verdict::Live);
    for stolen in [refreshes[0].as_str(), "tollgate"] {
        let seen = stage.api.seen().len();
        let answer = stage.ask("api.anthropic.com", "/v1/models", stolen).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(stage.api.seen().len(), seen);
    }
    let canaries = "tollgate_refusals_total{agent=\"agent\",reason=\"canary\"}";
    assert_eq!(stage.proxy.metric(canaries).await, Some(1.0));
    stage.forbid_tokens();
}

/// Claude Code would empty its credentials file if it heard of it.
#[tokio::test]
async fn an_agent_hears_nothing_of_a_grant_that_is_gone() {
    let stage = Lent::claude(Login::None).await;
    let answer = stage.post(HOST, TOKEN, JSON, &refresh("old")).await;
    assert_eq!(answer.status, 200);
    let told = json_of(&answer);
    let scope = told["scope"].as_str().unwrap();
    assert!(scope.contains("user:inference"), "{told}");
    assert!(stage.asked().is_empty());
    let placeholder = told["access_token"].as_str().unwrap();
    let answer = stage
        .ask("api.anthropic.com", "/v1/models", placeholder)
        .await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("there is no login yet"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn another_agents_placeholder_is_refused_and_counted() {
    let server = token_server().claude().start().await;
    let api = server.protected_api(&["api.anthropic.com"]).await;
    let builder = owning(&server, &api, &CLAUDE, Login::Held);
    let mut agents = String::new();
    for name in ["scan", "fix"] {
        let file = builder.file(&format!("token-of-{name}"));
        std::fs::write(&file, format!("the-token-of-{name}")).unwrap();
        let token = format!("{{file: {{path: {}}}}}", file.display());
        agents.push_str(&format!("{{name: {name}, token: {token}}}, "));
    }
    let proxy = builder.setting(&format!("identity: {{agents: [{agents}]}}"));
    let stage = Lent::of(server, api, proxy).await;
    let placeholder = async |agent: &str| {
        let args = ["creds", "placeholder", "claude-login", "--agent", agent];
        stage.proxy.cli(&args).await.ok().trim().to_owned()
    };
    let (own, others) = (placeholder("scan").await, placeholder("fix").await);
    assert_ne!(own, others);
    let before = stage.asked().len();
    for (host, path, shown, status) in [
        (HOST, TOKEN, &own, 200),
        (HOST, TOKEN, &others, 403),
        (HOST, "/v1/oauth/token/revoke", &others, 403),
    ] {
        let mut stream = tokio::net::TcpStream::connect(stage.proxy.addr)
            .await
            .unwrap();
        let authorization =
            base64::engine::general_purpose::STANDARD.encode("scan:the-token-of-scan");
        let connect = format!(
            "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: Basic {authorization}\r\n\r\n"
        );
        assert_eq!(wire::say(&mut stream, connect.as_bytes()).await.status, 200);
        let mut tls = tunnel::handshake(&stage.door, host, &[b"http/1.1"], stream)
            .await
            .unwrap();
        let body = refresh(shown);
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = wire::say(&mut tls, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 403 {
            let told = json_of(&answer);
            assert_eq!(told["error"], "access_denied", "{told}");
            let words = told["error_description"].as_str().unwrap();
            assert!(words.contains("made for another agent"), "{words}");
        }
    }
    let canaries = "tollgate_refusals_total{agent=\"scan\",reason=\"canary\"}";
    assert_eq!(stage.proxy.metric(canaries).await, Some(2.0));
    assert_eq!(stage.record(2).await["token_call"], "refused");
    assert_eq!(stage.asked().len(), before);
}

#[tokio::test]
async fn a_login_while_one_is_held_gets_placeholders_and_changes_nothing() {
    let stage = never(Login::Held).await;
    let before = stage.asked().len();
    let (code, mut request) = code_request(&stage.server, "user:profile user:inference");
    request["expires_in"] = json!(31_536_000);
    let answer = stage.post(HOST, TOKEN, JSON, &request.to_string()).await;
    assert_eq!(answer.status, 200);
    let told = json_of(&answer);
    assert_eq!(
        told["access_token"],
        stage.placeholder("claude-login").await
    );
    assert_eq!(told["expires_in"], 31_536_000);
    assert!(!answer.text().contains(&code));
    assert_eq!(stage.asked().len(), before);
    assert_eq!(stage.server.truth().logins, 1);
    assert_eq!(stage.record(1).await["token_call"], "login");
}

#[tokio::test]
async fn a_login_that_is_wanted_is_kept_here_and_the_agent_gets_placeholders() {
    let mut stage = Lent::claude(Login::None).await;
    let placeholder = stage.placeholder("claude-login").await;
    let (_, request) = code_request(&stage.server, "user:profile user:inference");
    // Byte for byte, spaces included.
    let body = format!(" {request}\n");
    let answer = stage.post(HOST, TOKEN, JSON, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let told = json_of(&answer);
    assert_eq!(told["access_token"], placeholder);
    assert!(
        told["refresh_token"]
            .as_str()
            .unwrap()
            .starts_with("sk-ant-ort01-")
    );
    assert_eq!(told["scope"], "user:profile user:inference");
    assert_eq!(told["account"]["uuid"], stage.server.account());
    let asked = stage.server.origin.only(TOKEN);
    assert_eq!(asked.body, body.as_bytes());
    assert_eq!(asked.header("user-agent"), Some("axios/1.15.2"));
    assert_eq!(asked.header("content-type"), Some(JSON));

    stage.server.truth().assert_one_clean_grant();
    let answer = stage
        .ask("api.anthropic.com", "/v1/models", &placeholder)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    stage.api.assert_no_stale_token();
    let record = stage.record(1).await;
    assert_eq!(record["token_call"], "captured", "{record}");
    assert_eq!(stage.calls("claude-login", "captured").await, Some(1.0));
    let kept = stage.proxy.credential("claude-login").await;
    assert_eq!(kept["state"], "ok", "{kept}");

    // The next login finds it held.
    let (_, request) = code_request(&stage.server, "user:inference");
    let answer = stage.post(HOST, TOKEN, JSON, &request.to_string()).await;
    assert_eq!(json_of(&answer)["access_token"], placeholder);
    assert_eq!(stage.server.truth().logins, 1);
    stage.forbid_tokens();
}

/// A code works once: what the provider gave for it must not be lost with the agent's connection.
#[tokio::test]
async fn a_login_ends_well_although_the_agent_left_and_a_second_try_finds_it() {
    let stage = Lent::claude(Login::None).await;
    let gate = stage.server.gate(Stage::Rotated);
    let (_, request) = code_request(&stage.server, "user:inference");
    let body = request.to_string();
    let mut stream = tunnel::tls(&stage.door, HOST, &[b"http/1.1"]).await;
    let head = format!(
        "POST {TOKEN} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
        .await
        .unwrap();
    gate.arrived(1).await;
    drop(stream);
    until("the first one has left", PATIENCE, async || {
        let open = "tollgate_open_connections{kind=\"intercepted\"}";
        stage.proxy.metric(open).await == Some(0.0)
    })
    .await;
    let second = stage.post(HOST, TOKEN, JSON, &body);
    let opening = async {
        until("the second try is there", PATIENCE, async || {
            let open = "tollgate_open_connections{kind=\"intercepted\"}";
            stage.proxy.metric(open).await == Some(1.0)
        })
        .await;
        assert_eq!(gate.waiting(), 1, "it waits for the first one's outcome");
        gate.open();
    };
    let (answer, ()) = tokio::join!(second, opening);
    assert_eq!(answer.status, 200, "{answer:?}");
    let truth = stage.server.truth();
    assert_eq!(truth.logins, 1);
    truth.assert_one_clean_grant();
    stage.server.origin.only(TOKEN);
    assert_eq!(stage.calls("claude-login", "login").await, Some(1.0));
}

#[tokio::test]
async fn codex_logs_in_refreshes_and_never_gets_a_key() {
    let mut stage = Lent::codex().await;
    let host = "auth.openai.com";
    let placeholder = stage.placeholder("codex-login").await;
    let (_, mut request) = code_request(&stage.server, "openid profile email offline_access");
    request.as_object_mut().unwrap().remove("state");
    let answer = stage
        .post(host, "/oauth/token", FORM, &form(&request))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = json_of(&answer);
    assert_eq!(told["access_token"], placeholder);
    let claims = |token: &Value| -> Value {
        let parts: Vec<&str> = token.as_str().unwrap().split('.').collect();
        assert_eq!(parts.len(), 3, "{token}");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap()
    };
    let auth = &claims(&told["id_token"])["https://api.openai.com/auth"];
    assert_eq!(auth["chatgpt_account_id"], stage.server.account());
    let far = claims(&told["access_token"])["exp"].as_u64().unwrap();
    assert!(far > 4_000_000_000, "Codex asks for a new one before {far}");
    stage.server.truth().assert_one_clean_grant();

    let refresh = json!({
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
        "grant_type": "refresh_token",
        "refresh_reason": "proactive_expiry",
        "refresh_token": told["refresh_token"],
    });
    let again = stage
        .post(host, "/oauth/token", JSON, &refresh.to_string())
        .await;
    let again = json_of(&again);
    for name in ["access_token", "refresh_token", "id_token"] {
        assert_eq!(again[name], told[name], "{name}");
    }

    let exchange = json!({
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token": "openai-api-key",
        "subject_token": told["id_token"],
    });
    let refused = stage
        .post(host, "/oauth/token", FORM, &form(&exchange))
        .await;
    assert_eq!(refused.status, 400);
    assert_eq!(json_of(&refused)["error"], "unsupported_grant_type");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    stage.server.origin.only("/oauth/token");

    let answer = stage
        .ask("chatgpt.com", "/backend-api/codex/models", &placeholder)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    stage.forbid_tokens();
}

#[tokio::test]
async fn a_logout_is_confirmed_and_ends_nothing() {
    let stage = Lent::claude(Login::Held).await;
    let before = stage.asked().len();
    let placeholder = stage.placeholder("claude-login").await;
    let body = json!({"token": placeholder, "token_type_hint": "refresh_token"});
    let answer = stage
        .post(HOST, "/v1/oauth/token/revoke", JSON, &body.to_string())
        .await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    assert_eq!(stage.record(1).await["token_call"], "revocation");
    assert_eq!(stage.asked().len(), before);
    stage.server.truth().assert_one_clean_grant();
}

#[tokio::test]
async fn a_providers_no_is_passed_on() {
    let stage = Lent::claude(Login::None).await;
    let (_, mut request) = code_request(&stage.server, "user:inference");
    request["code_verifier"] = json!("w".repeat(43));
    let answer = stage.post(HOST, TOKEN, JSON, &request.to_string()).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.text().contains("invalid_grant"), "{answer:?}");
    assert_eq!(stage.record(1).await["token_call"], "declined");

    stage.server.fault_next(1, Fault::RateLimit(7));
    let (_, request) = code_request(&stage.server, "user:inference");
    let answer = stage.post(HOST, TOKEN, JSON, &request.to_string()).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("7"))
    );
    for fault in [
        Fault::html(500),
        Fault::Cut(Stage::Received),
        Fault::Truncated,
    ] {
        stage.server.fault_next(1, fault.clone());
        let (_, request) = code_request(&stage.server, "user:inference");
        let answer = stage.post(HOST, TOKEN, JSON, &request.to_string()).await;
        assert_eq!(answer.status, 502, "{fault:?}: {answer:?}");
        let told = json_of(&answer);
        assert_eq!(told["error"], "server_error", "{told}");
        assert!(!answer.text().contains("html"), "{told}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_rewritten_whole_is_held_back_and_its_tokens_are_kept() {
    let stage = Lent::claude(Login::None).await;
    let real = json!({
        "access_token": "sk-ant-oat01-REAL-0123456789abcdef",
        "refresh_token": "sk-ant-ort01-REAL-0123456789abcdef",
        "expires_in": 28800,
        "raw_key": "sk-ant-api03-REAL-0123456789abcdef",
    });
    stage.server.fault_next(1, Fault::json(200, &real));
    let (_, request) = code_request(&stage.server, "user:inference");
    let answer = stage.post(HOST, TOKEN, JSON, &request.to_string()).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(!answer.text().contains("REAL"), "{answer:?}");
    let record = stage.record(1).await;
    assert_eq!(record["reason"], "token_answer_withheld", "{record}");
    let answer = stage.post(HOST, TOKEN, JSON, &request.to_string()).await;
    assert_eq!(answer.status, 200, "the login is there: {answer:?}");
    stage.server.origin.only(TOKEN);
}

/// Two logins of one provider share its endpoint; the placeholder says which one is meant.
#[tokio::test]
async fn an_agent_with_two_logins_gets_the_placeholders_of_the_one_it_shows() {
    let server = token_server().claude().start().await;
    let api = server.protected_api(&["api.anthropic.com"]).await;
    let mut builder = proxy()
        .origin(&server.origin)
        .origin(&api.origin)
        .policy("- {preset: claude-login, credentials: [work, home]}");
    for name in ["work", "home"] {
        let spec = "preset: claude-login\nsource: {oauth: {client: claude-code}}\noptional: true";
        builder = builder.document("EgressCredential", name, spec);
    }
    let stage = Lent::of(server, api, builder).await;
    let (work, home) = (
        stage.placeholder("work").await,
        stage.placeholder("home").await,
    );
    assert_ne!(work, home);
    for (shown, meant) in [
        (&work, &work),
        (&home, &home),
        (&"unknown".to_owned(), &work),
    ] {
        let answer = stage.post(HOST, TOKEN, JSON, &refresh(shown)).await;
        let told = json_of(&answer);
        assert_eq!(told["access_token"], **meant, "{shown}");
        let stands = told["refresh_token"].as_str().unwrap();
        let again = stage.post(HOST, TOKEN, JSON, &refresh(stands)).await;
        assert_eq!(json_of(&again)["access_token"], **meant, "{shown}");
    }
    assert_eq!(stage.calls("home", "refresh").await, Some(2.0));
}

/// The one kind of call that goes on to the provider carries nothing of ours there.
#[tokio::test]
async fn a_placeholder_within_a_login_is_refused_and_counted() {
    let stage = Lent::claude(Login::None).await;
    let placeholder = stage.placeholder("claude-login").await;
    let (_, request) = code_request(&stage.server, "user:inference");
    for parameter in ["code", "state", "refresh_token"] {
        let mut request = request.clone();
        request[parameter] = json!(format!("x{placeholder}"));
        let escaped = request.to_string().replace(&placeholder[..1], "\\u0073");
        for body in [request.to_string(), escaped] {
            let answer = stage.post(HOST, TOKEN, JSON, &body).await;
            assert_eq!(answer.status, 403, "{parameter}: {answer:?}");
            let told = json_of(&answer);
            let words = told["error_description"].as_str().unwrap();
            assert!(
                words.contains("the placeholder of the credential"),
                "{words}"
            );
        }
    }
    assert!(stage.asked().is_empty());
    let canaries = "tollgate_refusals_total{agent=\"agent\",reason=\"canary\"}";
    assert_eq!(stage.proxy.metric(canaries).await, Some(6.0));
}

#[tokio::test]
async fn a_login_that_nobody_wants_is_refused_in_plain_words() {
    let stage = never(Login::None).await;
    let (_, request) = code_request(&stage.server, "user:inference");
    let answer = stage.post(HOST, TOKEN, JSON, &request.to_string()).await;
    assert_eq!(answer.status, 403);
    let told = json_of(&answer);
    assert_eq!(told["error"], "access_denied");
    let words = told["error_description"].as_str().unwrap();
    assert!(
        words.contains("`tollgate creds login claude-login`"),
        "{words}"
    );
    assert!(stage.asked().is_empty());
    let record = stage.record(1).await;
    assert_eq!(
        (&record["reason"], &record["decision"]),
        (&json!("login_needed"), &json!("deny"))
    );
}

#[tokio::test]
async fn what_is_no_token_request_gets_a_token_endpoints_error() {
    let stage = Lent::claude(Login::Held).await;
    let before = stage.asked().len();
    let long = format!(
        "{{\"grant_type\":\"refresh_token\",\"x\":\"{}\"}}",
        "y".repeat(65_000)
    );
    let longer = format!(
        "{{\"grant_type\":\"refresh_token\",\"x\":\"{}\"}}",
        "y".repeat(70_000)
    );
    let twice = r#"{"grant_type":"refresh_token","grant_type":"authorization_code"}"#;
    assert_eq!(stage.post(HOST, TOKEN, JSON, &long).await.status, 200);
    for (path, kind, body, error) in [
        (TOKEN, JSON, longer.as_str(), "invalid_request"),
        (TOKEN, JSON, "{}", "invalid_request"),
        (TOKEN, JSON, twice, "invalid_request"),
        (
            TOKEN,
            FORM,
            "grant_type=refresh_token&grant_type=x",
            "invalid_request",
        ),
        (TOKEN, FORM, "", "invalid_request"),
        (
            TOKEN,
            "text/plain",
            "grant_type=refresh_token",
            "invalid_request",
        ),
        (
            "/v1/oauth/token?grant_type=refresh_token",
            JSON,
            r#"{"a":"b"}"#,
            "invalid_request",
        ),
        (
            TOKEN,
            FORM,
            "grant_type=client_credentials",
            "unsupported_grant_type",
        ),
        (
            TOKEN,
            FORM,
            "grant_type=password&username=a&password=b",
            "unsupported_grant_type",
        ),
    ] {
        let answer = stage.post(HOST, path, kind, body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let told = json_of(&answer);
        assert_eq!(told["error"], error, "{told}");
        assert!(
            told["error_description"].as_str().unwrap().ends_with('.'),
            "{told}"
        );
    }
    assert_eq!(stage.asked().len(), before);
}

/// Other spellings of its path, another method, and the clear.
#[tokio::test]
async fn a_token_endpoint_cannot_be_reached_around_its_answers() {
    let server = token_server().claude().start().await;
    let api = server.protected_api(&["api.anthropic.com"]).await;
    let proxy = owning(&server, &api, &CLAUDE, Login::Held).policy(
        "
        - {hosts: [platform.claude.com], ports: [80, 443], ambiguousPaths: Pass, credentials: [claude-login]}
        ",
    );
    let stage = Lent::of(server, api, proxy).await;
    let before = stage.asked().len();
    for path in [
        "/v1/oauth/token/",
        "/v1/oauth/%74oken",
        "//v1/oauth/token",
        "/V1/oauth/token",
    ] {
        let answer = stage.post(HOST, path, JSON, &refresh("x")).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(json_of(&answer).get("access_token").is_some(), "{path}");
    }
    // The API's host has the endpoint as well, and is allowed whole.
    for path in [TOKEN, "/v1/oauth/token/revoke"] {
        let answer = stage
            .post("api.anthropic.com", path, JSON, &refresh("x"))
            .await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    assert_eq!(stage.api.seen().len(), 0);
    let mut stream = tunnel::tls(&stage.door, HOST, &[b"http/1.1"]).await;
    let body = refresh("x");
    let request = format!(
        "PUT {TOKEN}/ HTTP/1.1\r\nHost: {HOST}\r\nX-HTTP-Method-Override: POST\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = wire::say(&mut stream, request.as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for method in ["PUT", "GET", "OPTIONS", "PATCH", "post"] {
        let mut stream = tunnel::tls(&stage.door, HOST, &[b"http/1.1"]).await;
        let request = format!(
            "{method} {TOKEN} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = wire::say(&mut stream, request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{method}: {answer:?}");
        let why = match method {
            "post" => "methods are written in capitals",
            _ => "its method is not POST",
        };
        assert!(answer.text().contains(why), "{answer:?}");
    }

    let mut stream = tokio::net::TcpStream::connect(stage.proxy.addr)
        .await
        .unwrap();
    let request = format!(
        "POST http://{HOST}{TOKEN} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = wire::say(&mut stream, request.as_bytes()).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.text().contains("cleartext"), "{answer:?}");
    assert_eq!(stage.asked().len(), before, "{:#?}", stage.asked());
}

#[tokio::test]
async fn a_token_that_is_sent_without_its_beta_gets_it() {
    let stage = Lent::claude(Login::Held).await;
    let placeholder = stage.placeholder("claude-login").await;
    for (path, sent, arrives) in [
        ("/v1/none", "", Some("oauth-2025-04-20")),
        (
            "/v1/other",
            "anthropic-beta: a,b\r\n",
            Some("a,b,oauth-2025-04-20"),
        ),
        (
            "/v1/there",
            "anthropic-beta: oauth-2025-04-20,b\r\n",
            Some("oauth-2025-04-20,b"),
        ),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: api.anthropic.com\r\n{sent}Authorization: Bearer {placeholder}\r\n\r\n"
        );
        let mut stream = tunnel::tls(&stage.door, "api.anthropic.com", &[b"http/1.1"]).await;
        wire::say(&mut stream, request.as_bytes()).await;
        let seen = stage.api.origin.only(path);
        assert_eq!(seen.header("anthropic-beta"), arrives, "{path}");
    }
    // Where no token goes in, nothing is said.
    let request = "GET /v1/bare HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n";
    let mut stream = tunnel::tls(&stage.door, "api.anthropic.com", &[b"http/1.1"]).await;
    wire::say(&mut stream, request.as_bytes()).await;
    assert_eq!(
        stage.api.origin.only("/v1/bare").header("anthropic-beta"),
        None
    );
}

/// The answer to that request is an API key, in the clear.
#[tokio::test]
async fn a_login_is_not_turned_into_a_key_for_the_agent() {
    let stage = Lent::claude(Login::Held).await;
    let placeholder = stage.placeholder("claude-login").await;
    for path in [
        "/api/oauth/claude_cli/create_api_key",
        "/api/oauth/claude_cli/create_api_key/",
    ] {
        let answer = stage.ask("api.anthropic.com", path, &placeholder).await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    assert!(stage.api.seen().is_empty());
}
