//! The tokens of a login that Tollgate owns stand in its store and in requests to their origin, and
//! nowhere else: logins, renewals, refusals, faults, agents' own calls, then a search through all that
//! was written, told or shown.

use http::Request;
use serde_json::json;

use super::no_leak::process;
use super::support::desk::{Desk, claude_file};
use super::support::needles::Haystack;
use super::support::proxy::Proxy;
use super::support::reply::full;
use super::support::token_server::fault::Fault;
use super::support::token_server::server::TokenServer;
use super::support::tunnel;
use super::support::wire::Answer;

const API: &str = "api.anthropic.com";
const LOGIN: &str = "platform.claude.com";
const TOKEN: &str = "/v1/oauth/token";

/// One request of an agent; what it sees goes on record.
async fn agent(
    proxy: &Proxy,
    hay: &mut Haystack,
    (host, path): (&str, &str),
    (name, value): (&str, &str),
    body: String,
) -> u16 {
    let request = Request::post(path)
        .header("host", host)
        .header(name, value)
        .header("anthropic-version", "2023-06-01")
        .body(full(body))
        .unwrap();
    let mut sender = tunnel::http1(&proxy.bare_door(), host).await;
    let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
    let seen = format!("{:?}\n{}", answer.headers, answer.text());
    hay.add(format!("an agent's answer from {host}{path}"), seen);
    answer.status
}

/// What agents ask the API and the token endpoint, well and badly.
async fn agents_ask(proxy: &Proxy, server: &TokenServer, placeholder: &str, hay: &mut Haystack) {
    let bearer = format!("Bearer {placeholder}");
    let question = json!({"model": "m", "max_tokens": 1, "messages": []}).to_string();
    let api = (API, "/v1/messages");
    agent(
        proxy,
        hay,
        api,
        ("authorization", &bearer),
        question.clone(),
    )
    .await;
    // A provider that ends an access token before its time.
    server.revoke_access(server.truth().access_token());
    let answered = agent(
        proxy,
        hay,
        api,
        ("authorization", &bearer),
        question.clone(),
    )
    .await;
    assert_ne!(answered, 401);
    for refused in [
        "Bearer sk-ant-oat01-foreign-foreign-foreign",
        "Basic bm86bm8=",
    ] {
        agent(
            proxy,
            hay,
            api,
            ("authorization", refused),
            question.clone(),
        )
        .await;
    }
    let json = ("content-type", "application/json");
    for body in [
        json!({"grant_type": "refresh_token", "refresh_token": placeholder, "client_id": "x"}),
        json!({"grant_type": "authorization_code", "code": "bad", "state": "s", "code_verifier": "v"}),
        json!({"grant_type": "client_credentials"}),
        json!({"token": placeholder, "token_type_hint": "refresh_token"}),
        json!([]),
    ] {
        for path in [TOKEN, "/v1/oauth/token/revoke", "/v1/oauth/other"] {
            agent(proxy, hay, (LOGIN, path), json, body.to_string()).await;
        }
    }
}

/// Everything an operator, a collector or another process can see.
async fn gather(proxy: &Proxy, hay: &mut Haystack) {
    for path in [
        "/readyz",
        "/metrics",
        "/v1/credentials",
        "/v1/policy",
        "/v1/environment?agent=agent",
        "/v1/why?url=https://platform.claude.com/v1/oauth/token&method=POST",
    ] {
        hay.add(format!("GET {path}"), proxy.admin("GET", path).await.text);
    }
    for line in [
        "creds list",
        "creds list -o json",
        "creds check",
        "creds placeholder claude-login --format claude",
        "check",
        "check -o json",
        "env",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let told = proxy.cli(&args).await;
        hay.add(format!("tollgate {line}"), told.stdout + &told.stderr);
    }
    process(proxy.pid(), hay);
    hay.add("what it printed", proxy.output());
    let log = std::fs::read(proxy.file("access.log")).unwrap();
    hay.add("the access log", log);
}

/// Answers of a token endpoint that name what they were asked with.
fn indiscreet(server: &TokenServer) -> Vec<Fault> {
    let truth = server.truth();
    let (access, refresh) = (truth.access_token(), truth.refresh_token());
    let said = format!("{refresh} is unknown, and so is {access}");
    let plain = |status, kind, text: &str| Fault::Answer(status, kind, text.to_owned());
    vec![
        plain(500, "text/html", &said),
        plain(503, "application/json", &json!({"error": said}).to_string()),
        plain(200, "text/plain", &said),
        plain(
            400,
            "application/json",
            &json!({"error": "invalid_request", "error_description": said}).to_string(),
        ),
        plain(
            400,
            "application/json",
            &json!({"error": "invalid_grant", "error_description": said}).to_string(),
        ),
    ]
}

#[tokio::test]
async fn tokens_of_an_owned_login_are_in_nothing_that_is_written_told_or_shown() {
    let mut hay = Haystack::default();
    let desk = Desk::claude().await;
    let file = desk.write("login.json", &claude_file(&desk.server.login()));
    let imported = desk
        .run(&format!("creds import {} -v", file.display()))
        .await;
    hay.add("tollgate creds import", imported.stdout + &imported.stderr);
    let Desk {
        server,
        api,
        builder,
        ..
    } = desk;
    let proxy = builder.env("TOLLGATE_LOG", "trace").start().await;
    let placeholder = proxy.cli(&["creds", "placeholder", "claude-login"]).await;
    let placeholder = placeholder.ok().trim().to_owned();

    // The API repeats what the login has: the token that came, and the one that it is renewed with.
    let bearer = format!("Bearer {placeholder}");
    let (path, auth) = ((API, "/v1/indiscreet"), ("authorization", &*bearer));
    let status = agent(&proxy, &mut hay, path, auth, String::new()).await;
    assert_eq!(status, 200);
    let told = format!("an agent's answer from {API}/v1/indiscreet");
    hay.assert_mentions(&told, &placeholder);

    agents_ask(&proxy, &server, &placeholder, &mut hay).await;
    for fault in indiscreet(&server) {
        server.fault_next(1, fault);
        let told = proxy.cli(&["creds", "refresh", "claude-login"]).await;
        assert_ne!(told.code, Some(0), "{}", told.stdout);
        hay.add("tollgate creds refresh", told.stdout + &told.stderr);
        gather(&proxy, &mut hay).await;
    }
    // The last of them ended the grant: agents hear of that, and one of them logs in.
    agents_ask(&proxy, &server, &placeholder, &mut hay).await;
    gather(&proxy, &mut hay).await;

    let needles = server.needles();
    assert!(needles.len() > 4, "there were tokens to search for");
    hay.assert_mentions("the access log", "\"token_call\"");
    hay.assert_mentions("what it printed", "DEBUG");
    hay.assert_mentions("tollgate creds list", "needs login");
    hay.assert_free_of(&needles);
    let store = std::fs::read(proxy.file("state/oauth/claude-login.json")).unwrap();
    assert!(
        needles.iter().any(|needle| needle.find(&store).is_some()),
        "the search finds them"
    );
    drop(api);
}
