//! `tollgate denied`: what was refused, and an edit that does allow it.

use http::{Request, StatusCode};
use serde_json::Value;

use crate::support::door::Door;
use crate::support::operator::{PATIENCE, until};
use crate::support::origin::Origin;
use crate::support::proxy::{Proxy, proxy};
use crate::support::{reply, tunnel};

const RULES: &str = "
- hosts: [api.example.com]
  http:
    - methods: [GET]
      paths: [/v1/**, /same]
- hosts: [ports.example.com]
  tls: Intercept
- hosts: [paths.example.com]
  http:
    - paths: [/a/**]
- hosts: [shut.example.com]
  action: Deny
";

const NAMES: [&str; 5] = [
    "api.example.com",
    "ports.example.com",
    "paths.example.com",
    "shut.example.com",
    "new.example.com",
];

async fn origin() -> Origin {
    Origin::tls(&NAMES, |mut exchange| async move {
        exchange.body().await;
        reply::text(200, "reached")
    })
    .await
}

/// One request through the door; 403 also where the tunnel is refused.
async fn ask(door: &Door, method: &str, host: &str, port: u16, path: &str) -> u16 {
    let (stream, status) = tunnel::connect(door, &format!("{host}:{port}")).await;
    if !status.starts_with("HTTP/1.1 200") {
        return status.split(' ').nth(1).unwrap().parse().unwrap();
    }
    let Ok(stream) = tunnel::handshake(door, host, &[b"http/1.1"], stream).await else {
        // A tunnel leads to the origin itself, whose certificate this client does not trust.
        return StatusCode::OK.as_u16();
    };
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", format!("{host}:{port}"))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    sender
        .send_request(request)
        .await
        .unwrap()
        .status()
        .as_u16()
}

impl Proxy {
    async fn denied(&self, args: &[&str]) -> Vec<Value> {
        let mut all = vec!["denied", "--json"];
        all.extend(args);
        let said = self.cli(&all).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        said.json().as_array().unwrap().clone()
    }

    /// The group of this host, once it is there.
    async fn denied_at(&self, host: &str) -> Value {
        let mut found = None;
        until(&format!("{host} is denied"), PATIENCE, async || {
            let groups = self.denied(&[]).await;
            let of_host = |group: &&Value| {
                group["authority"]
                    .as_str()
                    .unwrap_or_default()
                    .starts_with(host)
            };
            found = groups.iter().find(of_host).cloned();
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

/// Does with a document what an edit says, as a person with an editor does.
fn applied(documents: &str, edit: &Value) -> String {
    let yaml = edit["yaml"].as_str().unwrap();
    let Some(rule) = edit["rule"].as_str() else {
        return format!("{documents}---\n{yaml}");
    };
    let line: usize = rule
        .strip_prefix("documents.yaml:")
        .unwrap()
        .parse()
        .unwrap();
    let mut lines: Vec<String> = documents.lines().map(ToOwned::to_owned).collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    let field = edit["field"].as_str().unwrap();
    let rule_depth = depth(&lines[line - 1]);
    let (at, indent) = match field {
        "http" => {
            let below = lines[line - 1..]
                .iter()
                .position(|l| l.trim() == "http:")
                .unwrap();
            (line + below, rule_depth + 4)
        }
        _ => (line, rule_depth + 2),
    };
    for (offset, new) in yaml.lines().enumerate() {
        lines.insert(at + offset, format!("{}{new}", " ".repeat(indent)));
    }
    lines.join("\n") + "\n"
}

#[tokio::test]
async fn the_edit_that_is_shown_makes_the_same_request_pass_and_not_its_neighbour() {
    let origin = origin().await;
    // What is asked, the rule's field that is to be edited, and a neighbour that stays refused.
    let cases = [
        (
            "POST",
            "api.example.com",
            443,
            "/v1/merge",
            Some("http"),
            ("PUT", "/v1/merge"),
        ),
        (
            "GET",
            "api.example.com",
            443,
            "/v2/list",
            Some("http"),
            ("GET", "/v2/other"),
        ),
        (
            "DELETE",
            "api.example.com",
            443,
            "/same",
            Some("http"),
            ("PUT", "/same"),
        ),
        (
            "GET",
            "paths.example.com",
            443,
            "/b/y:z",
            Some("http"),
            ("GET", "/b/other"),
        ),
        ("GET", "new.example.com", 443, "/x", None, ("", "")),
    ];
    for (method, host, port, path, field, (other_method, other_path)) in cases {
        let mut builder = proxy().origin(&origin).policy(RULES);
        builder = builder.resolve(&format!("{host}:{port}"), origin.addr);
        let proxy = builder.start().await;
        let door = proxy.bare_door();
        let case = format!("{method} {host}:{port}{path}");
        assert_eq!(ask(&door, method, host, port, path).await, 403, "{case}");
        let group = proxy.denied_at(host).await;
        assert_eq!(
            (&group["count"], &group["agent"]),
            (&1.into(), &"agent".into()),
            "{group}"
        );
        let edit = &group["edit"];
        assert_eq!(edit["field"].as_str(), field, "{case}: {group}");
        let documents = std::fs::read_to_string(proxy.file("documents.yaml")).unwrap();
        let new = applied(&documents, edit);
        proxy.reload(&new).await;
        assert_eq!(
            ask(&door, method, host, port, path).await,
            200,
            "{case}:\n{new}"
        );
        if field.is_some() {
            let other = ask(&door, other_method, host, port, other_path).await;
            assert_eq!(
                other, 403,
                "{case} allows {other_method} {other_path}:\n{new}"
            );
        }
        let group = proxy.denied(&[]).await;
        let same = |g: &&Value| g["reason"] == edit_reason(&group, host);
        let now = group.iter().find(same).unwrap();
        if field.is_none() {
            assert_eq!(
                (&now["allowedNow"], &now["edit"]),
                (&true.into(), &Value::Null),
                "{now}"
            );
        }
    }
}

fn edit_reason(groups: &[Value], host: &str) -> Value {
    let own = |g: &&Value| {
        g["authority"]
            .as_str()
            .unwrap_or_default()
            .starts_with(host)
    };
    groups.iter().find(own).unwrap()["reason"].clone()
}

#[tokio::test]
async fn ports_agents_and_paths_that_read_two_ways_have_their_edit_too() {
    let origin = origin().await;
    let proxy = proxy()
        .origin(&origin)
        .resolve("ports.example.com:8443", origin.addr)
        .policy(RULES)
        .start()
        .await;
    let door = proxy.bare_door();
    for (host, port, path, yaml) in [
        ("ports.example.com", 8443, "/x", "ports: [443, 80, 8443]"),
        ("paths.example.com", 443, "/a/b%2Fc", "ambiguousPaths: Pass"),
    ] {
        assert_eq!(ask(&door, "GET", host, port, path).await, 403, "{path}");
        let edit = proxy.denied_at(host).await["edit"].clone();
        assert_eq!(edit["yaml"], yaml);
        let documents = std::fs::read_to_string(proxy.file("documents.yaml")).unwrap();
        let new = applied(&documents, &edit);
        proxy.reload(&new).await;
        assert_eq!(ask(&door, "GET", host, port, path).await, 200, "{new}");
    }
    assert_eq!(ask(&door, "GET", "shut.example.com", 443, "/x").await, 403);
    let shut = proxy.denied_at("shut.example.com").await;
    assert_eq!(
        shut["edit"],
        Value::Null,
        "no rule that refuses is undone unasked"
    );
    assert!(
        shut["advice"].as_str().unwrap().contains("documents.yaml:"),
        "{shut}"
    );
    // A policy for nobody who asks.
    let documents = std::fs::read_to_string(proxy.file("documents.yaml")).unwrap();
    let others = documents.replacen("  egress:", "  agents: {names: [somebody]}\n  egress:", 1);
    proxy.reload(&others).await;
    assert_eq!(ask(&door, "GET", "new.example.com", 443, "/x").await, 403);
    let edit = proxy.denied_at("new.example.com").await["edit"].clone();
    proxy.reload(&applied(&others, &edit)).await;
    assert_eq!(ask(&door, "GET", "new.example.com", 443, "/x").await, 200);
}

#[tokio::test]
async fn refusals_are_grouped_and_outlive_the_process_in_the_audit_log() {
    let origin = origin().await;
    let mut proxy = proxy().origin(&origin).policy(RULES).start().await;
    let door = proxy.bare_door();
    for _ in 0..3 {
        ask(&door, "GET", "new.example.com", 443, "/").await;
    }
    for path in ["/x/one", "/x/sk-ant-api03-abcdefghij", "/x/one?token=abc"] {
        ask(&door, "GET", "api.example.com", 443, path).await;
    }
    let groups = proxy.denied(&[]).await;
    let told: Vec<(String, u64)> = groups
        .iter()
        .map(|g| (g["authority"].to_string(), g["count"].as_u64().unwrap()))
        .collect();
    let named = |host: &str| (format!("\"{host}:443\""), 3);
    assert_eq!(told, [named("api.example.com"), named("new.example.com")]);
    let examples = groups[0]["examples"].to_string();
    assert!(
        !examples.contains("sk-ant") && !examples.contains("token"),
        "{examples}"
    );
    let yaml = groups[0]["edit"]["yaml"].as_str().unwrap();
    assert_eq!(yaml, "- { methods: [GET], paths: [\"/x/*\", /x/one] }");
    let people = proxy.cli(&["denied", "--since", "1h"]).await.stdout;
    assert!(
        people.contains("3× new.example.com:443  agent  host_not_allowed"),
        "{people}"
    );
    assert!(people.contains("kind: EgressPolicy"), "{people}");

    proxy.terminate().await;
    proxy.ended().await;
    let offline = proxy.denied(&[]).await;
    let counts =
        |groups: &[Value]| -> Vec<Value> { groups.iter().map(|g| g["count"].clone()).collect() };
    assert_eq!(counts(&offline), counts(&groups), "read off the audit log");
    assert_eq!(offline[1]["edit"], groups[1]["edit"]);
    proxy.restart().await;
    until("it is read back", PATIENCE, async || {
        counts(&proxy.denied(&[]).await) == counts(&groups)
    })
    .await;
    assert_eq!(proxy.denied(&["--agent", "nobody"]).await.len(), 0);
}
