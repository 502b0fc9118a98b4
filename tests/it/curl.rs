//! curl through every door: what an agent with a shell does first.

use super::support::agent::{Agent, Finished};
use super::support::anthropic::{self, Account, FINAL_TEXT, REAL_KEY};
use super::support::echo;
use super::support::origin::Origin;
use super::support::proxy::Proxy;

use std::path::Path;

const BODY: &str =
    r#"{"model":"claude-test","max_tokens":16,"messages":[{"role":"user","content":"hi \u00e4"}]}"#;

/// Asks for one message; extra arguments choose protocol and placement of the key.
pub async fn ask(curl: &Path, agent: &Agent, url: &str, extra: &[&str]) -> Finished {
    let mut args = vec!["-sS", "--path-as-is", "--max-time", "30", "-d", BODY];
    args.extend(["-H", "content-type: application/json"]);
    args.extend(["-H", "anthropic-version: 2023-06-01"]);
    args.extend(extra);
    args.push(url);
    agent.run(curl, &args).await
}

/// What must hold of every successful question.
pub fn assert_asked_once(origin: &Origin, finished: &Finished, target: &str) {
    assert_eq!(finished.json()["content"][0]["text"], FINAL_TEXT);
    let request = origin.only("/v1/messages");
    assert_eq!(request.target, target);
    assert_eq!(request.body, BODY.as_bytes());
    assert_eq!(request.authority, "api.anthropic.com");
    assert_eq!(request.sni.as_deref(), Some("api.anthropic.com"));
    assert!(request.complete);
    for hop_by_hop in [
        "proxy-connection",
        "proxy-authorization",
        "via",
        "forwarded",
    ] {
        assert_eq!(request.header(hop_by_hop), None);
    }
}

async fn anthropic_proxy() -> (Origin, Proxy) {
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = anthropic::in_front_of(&origin, Account::ApiKey)
        .start()
        .await;
    (origin, proxy)
}

#[tokio::test]
async fn http2_through_connect_gets_the_key_where_the_placeholder_stood() {
    let curl = client!("curl");
    let (origin, proxy) = anthropic_proxy().await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    let key = format!("x-api-key: {placeholder}");
    let url = "https://api.anthropic.com/v1/messages?beta=true";
    let finished = ask(&curl, &agent, url, &["--http2", "-H", &key]).await;
    assert_asked_once(&origin, &finished, "/v1/messages?beta=true");
    let request = origin.only("/v1/messages");
    assert_eq!(request.header("x-api-key"), Some(REAL_KEY));
    assert_eq!(request.header("authorization"), None);
    origin.assert_no_head_mentions(&placeholder);
    let records = proxy.access_log(1).await;
    assert!(
        records[0].to_string().contains("api.anthropic.com"),
        "{records:#?}"
    );
}

#[tokio::test]
async fn http1_through_connect_keeps_the_bearer_placement() {
    let curl = client!("curl");
    let (origin, proxy) = anthropic_proxy().await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    let key = format!("Authorization: Bearer {placeholder}");
    let url = "https://api.anthropic.com/v1/messages";
    let finished = ask(&curl, &agent, url, &["--http1.1", "-H", &key]).await;
    assert_asked_once(&origin, &finished, "/v1/messages");
    let request = origin.only("/v1/messages");
    assert_eq!(request.bearer(), Some(REAL_KEY));
    assert_eq!(request.header("x-api-key"), None);
    origin.assert_no_head_mentions(&placeholder);
}

#[tokio::test]
async fn the_base_url_door_needs_neither_proxy_nor_ca() {
    let curl = client!("curl");
    let (origin, proxy) = anthropic_proxy().await;
    let door = proxy.door().await;
    let placeholder = door.env["ANTHROPIC_API_KEY"].clone();
    let agent = Agent::alone();
    let key = format!("x-api-key: {placeholder}");
    let url = format!("{}/v1/messages?beta=true", proxy.base_url("anthropic"));
    let finished = ask(&curl, &agent, &url, &["-H", &key]).await;
    assert_asked_once(&origin, &finished, "/v1/messages?beta=true");
    assert_eq!(
        origin.only("/v1/messages").header("x-api-key"),
        Some(REAL_KEY)
    );
    origin.assert_no_head_mentions(&placeholder);
}

#[tokio::test]
async fn path_and_query_stay_byte_exact() {
    let curl = client!("curl");
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let agent = Agent::at(&proxy.door().await);
    let targets = [
        "/a%2Fb/%2f/c",
        "/a//b///c",
        "/x?q=%20+%2B&empty=&&=v&%zz",
        "/caf%C3%A9;v=1/~user/!$&'()*+,=:@",
        "/trailing/?",
    ];
    let key = format!("authorization: Bearer {}", echo::PLACEHOLDER);
    for target in targets {
        for protocol in ["--http1.1", "--http2"] {
            let url = format!("https://{}{target}", echo::HOST);
            let args = ["-sS", "-g", "--path-as-is", protocol, "-H", &key, &url];
            let answer = agent.run(&curl, &args).await.json();
            assert_eq!(answer["target"], target, "{protocol}");
        }
    }
    echo.origin.assert_no_head_mentions(echo::PLACEHOLDER);
}

#[tokio::test]
async fn absolute_form_reaches_a_plain_origin() {
    let curl = client!("curl");
    let echo = echo::echo_plain().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let agent = Agent::at(&proxy.door().await);
    let url = format!("http://{}/open/plain?x=%2F", echo::HOST);
    let args = ["-sS", "-d", "some body", &url];
    let answer = agent.run(&curl, &args).await.json();
    assert_eq!(answer["target"], "/open/plain?x=%2F");
    let request = echo.origin.only("/open/plain");
    assert_eq!(request.body, b"some body");
    assert_eq!(request.authority, echo::HOST);
    assert_eq!(request.header("proxy-connection"), None);
}

/// Not even where a rule and the credential name port 80: cleartext is read by everyone on the way.
#[tokio::test]
async fn no_credential_goes_out_in_cleartext() {
    let curl = client!("curl");
    let echo = echo::echo_plain().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let agent = Agent::at(&proxy.door().await);
    let key = format!("authorization: Bearer {}", echo::PLACEHOLDER);
    let url = format!("http://{}/plain", echo::HOST);
    let args = ["-sS", "-w", "%{http_code}", "-H", &key, &url];
    let finished = agent.run(&curl, &args).await;
    let answer = finished.ok();
    assert!(
        answer.ends_with("403") && answer.contains("cleartext"),
        "{answer}"
    );
    assert!(echo.origin.requests().is_empty());
}

#[tokio::test]
async fn a_denied_host_never_reaches_the_origin() {
    let curl = client!("curl");
    let echo = echo::echo().await;
    let other = Origin::tls(&["elsewhere.example.net"], |_| async {
        super::support::reply::text(200, "reached")
    })
    .await;
    let proxy = echo::in_front_of(&echo).origin(&other).start().await;
    let agent = Agent::at(&proxy.door().await);
    let url = "https://elsewhere.example.net/";
    let args = ["-sS", "-o", "/dev/null", "-w", "%{http_connect}", url];
    let finished = agent.run(&curl, &args).await;
    assert_eq!(finished.stdout, "403", "{}", finished.stderr);
    assert_ne!(finished.code, Some(0));
    assert!(other.requests().is_empty());
    let plain = agent
        .run(
            &curl,
            &[
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "http://elsewhere.example.net/",
            ],
        )
        .await;
    assert_eq!(plain.stdout, "403", "{}", plain.stderr);
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_key_of_the_agents_own_is_refused_inside_tls() {
    let curl = client!("curl");
    let (origin, proxy) = anthropic_proxy().await;
    let agent = Agent::at(&proxy.door().await);
    let key = "x-api-key: sk-ant-api03-of-somebody-else";
    let url = "https://api.anthropic.com/v1/messages";
    let finished = ask(&curl, &agent, url, &["-w", "\n%{http_code}", "-H", key]).await;
    let (body, code) = finished.ok().rsplit_once('\n').unwrap();
    assert_eq!(code, "403");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        body["type"], "error",
        "an answer in Anthropic's shape: {body}"
    );
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_placeholder_in_the_body_is_only_text() {
    let curl = client!("curl");
    let (origin, proxy) = anthropic_proxy().await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    let key = format!("x-api-key: {placeholder}");
    let body = format!(
        r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":"{placeholder}"}}]}}"#
    );
    let args = [
        "-sS",
        "-H",
        &key,
        "-H",
        "anthropic-version: 2023-06-01",
        "-d",
        &body,
        "https://api.anthropic.com/v1/messages",
    ];
    agent.run(&curl, &args).await.ok();
    let request = origin.only("/v1/messages");
    assert_eq!(request.body, body.as_bytes(), "no body byte changes");
    assert_eq!(request.header("x-api-key"), Some(REAL_KEY));
}
