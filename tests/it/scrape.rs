//! What real proxies tell after real traffic: Prometheus's own tools read it without a complaint, it has every
//! metric of the reference, and a real Prometheus finds in it what dashboard and rules ask for.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tollgate::telemetry::{alerts, dashboard, reference};

use super::observability::as_asked;
use super::support::budgeted::Budgeted;
use super::support::lent::{Lent, Login};
use super::support::operator::{PATIENCE, until};
use super::support::provider::conduct::Conduct;
use super::support::proxy::Proxy;
use super::support::scene::{self, HOST, PLACEHOLDER, REAL_KEY, Scene, TUNNEL};
use super::support::spender::{Ask, message};
use super::support::tunnel;
use super::support::wire;

/// Three proxies that together have met everything there is to count.
struct Town {
    budgeted: Budgeted,
    lent: Lent,
    scene: Scene,
}

impl Town {
    async fn after_traffic() -> Self {
        let (budgeted, lent, scene) = tokio::join!(spending(), renewing(), carrying());
        Self {
            budgeted,
            lent,
            scene,
        }
    }

    fn proxies(&self) -> [&Proxy; 3] {
        [&self.budgeted.proxy, &self.lent.proxy, &self.scene.proxy]
    }
}

/// A budget that warns and is then used up. Of two windows at least one is not at its beginning, where no
/// forecast is made.
async fn spending() -> Budgeted {
    let scene = Budgeted::new(
        "limits:\n  - {unit: usd, max: \"0.05\", window: {calendar: day}}\n  - {unit: usd, max: \"0.05\", window: {fixed: 7h}}\nalerts: [10, 50]\n",
    )
    .await;
    scene.provider.usually(Conduct::says(600).input(40));
    let spender = scene.spender();
    let asked = Ask::message(&message("claude-sonnet-4-5", 600));
    while spender.ask(&asked).await.status == 200 {}
    scene.agree().await;
    scene
}

/// A login that is renewed because its origin refuses it, and an agent that refreshes by itself.
async fn renewing() -> Lent {
    let lent = Lent::claude(Login::Held).await;
    let placeholder = lent.placeholder("claude-login").await;
    let truth = lent.server.truth();
    lent.server.revoke_access(truth.access_token());
    let host = "api.anthropic.com";
    let head = format!(
        "GET /v1/models HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {placeholder}\r\n\r\n"
    );
    let mut stream = tunnel::tls(&lent.door, host, &[b"http/1.1"]).await;
    let answer = wire::say(&mut stream, head.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let host = "platform.claude.com";
    let body = format!(
        "{{\"grant_type\":\"refresh_token\",\"refresh_token\":\"{placeholder}\",\"client_id\":\"{}\"}}",
        lent.server.client_id()
    );
    let head = format!(
        "POST /v1/oauth/token HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = tunnel::tls(&lent.door, host, &[b"http/1.1"]).await;
    let answer = wire::say(&mut stream, head.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    lent
}

const CLOSED: &str = "closed.example.com";
const WRONG: &str = "wrong.example.com";

/// Requests that pass, are refused, tunnelled, and meet origins that are away or show another name.
async fn carrying() -> Scene {
    let origin = scene::origin().await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = nobody.local_addr().unwrap();
    drop(nobody);
    let proxy = scene::in_front_of(&origin)
        .policy(
            "
            - {hosts: [closed.example.com, wrong.example.com, '*.wide.example.com'], tls: Intercept}
            ",
        )
        .resolve(CLOSED, nowhere)
        .resolve(WRONG, origin.addr)
        .start()
        .await;
    let scene = Scene::with(origin, proxy).await;
    scene.still_serves().await;
    let get = |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (host, status) in [(CLOSED, 502), (WRONG, 502)] {
        let answer = scene.ask(host, &get(host, "/")).await;
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
    }
    let misplaced = format!("GET / HTTP/1.1\r\nHost: {CLOSED}\r\nX-Other: {PLACEHOLDER}\r\n\r\n");
    assert_eq!(scene.ask(CLOSED, &misplaced).await.status, 403);
    let (_, status) = tunnel::connect(&scene.door, "no.example.net:443").await;
    assert!(status.starts_with("HTTP/1.1 403"), "{status}");
    let (unread, status) = tunnel::connect(&scene.door, &format!("{TUNNEL}:443")).await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    drop(unread);
    // Nothing of it is in what is told.
    assert!(
        !scene
            .proxy
            .admin("GET", "/metrics")
            .await
            .text
            .contains(REAL_KEY)
    );
    scene
}

async fn scrape(proxy: &Proxy) -> String {
    proxy.admin("GET", "/metrics").await.text
}

/// Names of the metrics that have a value, by their `TYPE` line.
fn told(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

/// Standard input to a program, and what it says.
async fn say_to(program: &Path, args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let ended = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    (ended.status.success(), said.into_owned())
}

#[tokio::test]
async fn a_scrape_after_traffic_is_without_fault_and_has_every_metric_of_the_reference() {
    let town = Town::after_traffic().await;
    let mut seen = BTreeSet::new();
    for proxy in town.proxies() {
        until("a forecast, or no budget", PATIENCE, async || {
            let text = scrape(proxy).await;
            !text.contains("tollgate_budget_remaining_ratio{")
                || text.contains("tollgate_budget_forecast_ratio{")
        })
        .await;
        seen.extend(told(&scrape(proxy).await));
    }
    let page: BTreeSet<String> = reference::metric_names()
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(seen, page, "what is told, and what the reference lists");
    let promtool = client!("promtool");
    for proxy in town.proxies() {
        let text = scrape(proxy).await;
        let (is_well, said) = say_to(&promtool, &["check", "metrics"], &text).await;
        assert!(is_well && said.is_empty(), "{said}");
    }
}

#[tokio::test]
async fn what_happened_is_counted_under_the_names_that_rules_give() {
    let scene = carrying().await;
    let count = async |series: &str| scene.proxy.metric(series).await;
    let requests = |host: &str, decision: &str, code: &str| {
        format!(
            "tollgate_requests_total{{agent=\"agent\",code=\"{code}\",decision=\"{decision}\",host=\"{host}\"}}"
        )
    };
    assert_eq!(count(&requests(HOST, "allow", "2xx")).await, Some(1.0));
    assert_eq!(count(&requests(CLOSED, "allow", "5xx")).await, Some(1.0));
    assert_eq!(count(&requests(CLOSED, "deny", "4xx")).await, Some(1.0));
    // No rule names it: what an agent makes up is no label.
    assert_eq!(count(&requests("other", "deny", "4xx")).await, Some(1.0));
    for (series, expected) in [
        (
            "tollgate_upstream_failures_total{host=\"closed.example.com\",stage=\"connect\"}",
            1.0,
        ),
        (
            "tollgate_upstream_failures_total{host=\"wrong.example.com\",stage=\"tls\"}",
            1.0,
        ),
        (
            "tollgate_tls_handshake_failures_total{cause=\"other_name\",side=\"origin\"}",
            1.0,
        ),
        (
            "tollgate_refusals_total{agent=\"agent\",reason=\"canary\"}",
            1.0,
        ),
        ("tollgate_added_latency_seconds_count", 1.0),
        ("tollgate_upstream_connect_seconds_count", 1.0),
        ("tollgate_tunnels_total", 1.0),
        ("tollgate_leaf_cache_total{result=\"minted\"}", 3.0),
        ("tollgate_leaf_cache_total{result=\"hit\"}", 1.0),
        ("tollgate_policy_last_reload_successful", 1.0),
        (
            "tollgate_telemetry_dropped_total{reason=\"queue_full\",sink=\"access_log\"}",
            0.0,
        ),
        ("tollgate_ready", 1.0),
    ] {
        assert_eq!(count(series).await, Some(expected), "{series}");
    }
    until("nothing is under way", PATIENCE, async || {
        count("tollgate_requests_in_flight").await == Some(0.0)
    })
    .await;
    assert_eq!(
        count("tollgate_ledger_ok").await,
        None,
        "there is no budget"
    );
    let left = count("tollgate_ca_expiry_seconds").await.unwrap();
    let life = count("tollgate_ca_lifetime_seconds").await.unwrap();
    assert!(left > 0.9 * life && left < life, "{left} of {life}");
    let record = scene.proxy.access_log(1).await;
    let honest = record.iter().find(|r| r["status"] == 200).unwrap();
    let (added, upstream) = (&honest["added_ms"], &honest["upstream_ms"]);
    assert!(added.as_f64().unwrap() > 0.0, "{honest}");
    assert!(added.as_f64() < upstream.as_f64(), "{honest}");
}

#[tokio::test]
async fn a_reload_keeps_counts_and_drops_what_is_no_longer_in_force() {
    let mut scene = carrying().await;
    let ok = "tollgate_credential_ok{credential=\"scene\"}";
    assert_eq!(scene.proxy.metric(ok).await, Some(1.0));
    let requests = "tollgate_added_latency_seconds_count";
    let before = scene.proxy.metric(requests).await;
    std::fs::write(scene.proxy.file("documents.yaml"), "kind: Nonsense\n").unwrap();
    assert_eq!(scene.proxy.admin("POST", "/v1/reload").await.status, 422);
    let latest = "tollgate_policy_last_reload_successful";
    assert_eq!(scene.proxy.metric(latest).await, Some(0.0));
    let bare = "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: bare}\nspec:\n  egress:\n  \
                - {hosts: [bare.example.com], tls: Intercept}\n";
    scene.proxy.reload(bare).await;
    assert_eq!(scene.proxy.metric(latest).await, Some(1.0));
    assert_eq!(
        scene.proxy.metric(ok).await,
        None,
        "there is no such credential"
    );
    assert_eq!(scene.proxy.metric(requests).await, before);
    assert!(scene.proxy.runs());
}

/// A real Prometheus. It is killed when this is dropped.
struct Prometheus {
    address: SocketAddr,
    _child: Child,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes these proxies and evaluates the rules, every second.
    async fn start(program: &Path, targets: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let targets: Vec<String> = targets.iter().map(|t| format!("\"{t}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yaml]\n\
             scrape_configs: [{{job_name: tollgate, static_configs: [{{targets: [{}]}}]}}]\n",
            targets.join(", ")
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        std::fs::write(dir.path().join("rules.yaml"), alerts::yaml()).unwrap();
        // It does not say which port it was given, so one that is free is looked for; another process may
        // be quicker.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let mut child = Command::new(program)
                .arg("--config.file=prometheus.yml")
                .arg("--storage.tsdb.path=data")
                .arg(format!("--web.listen-address={address}"))
                .current_dir(dir.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut runs = true;
            until("Prometheus is ready", 2 * PATIENCE, async || {
                runs = child.try_wait().unwrap().is_none();
                !runs || is_ready(address).await
            })
            .await;
            if runs {
                return Self {
                    address,
                    _child: child,
                    _dir: dir,
                };
            }
        }
        panic!("Prometheus finds no port");
    }

    /// What its API answers with.
    async fn ask(&self, path: &str) -> Value {
        let answer = get(self.address, path).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{path}: {e}: {answer}"))
    }

    /// What a query finds now.
    async fn query(&self, expr: &str) -> Vec<Value> {
        let encoded = utf8_percent_encode(expr, NON_ALPHANUMERIC);
        let said = self.ask(&format!("/api/v1/query?query={encoded}")).await;
        assert_eq!(said["status"], "success", "{expr}: {said}");
        said["data"]["result"].as_array().unwrap().clone()
    }

    /// The alerts that wait or fire.
    async fn alerts(&self) -> BTreeSet<String> {
        let said = self.ask("/api/v1/alerts").await;
        let alerts = said["data"]["alerts"].as_array().into_iter().flatten();
        let names = alerts.map(|a| a["labels"]["alertname"].as_str().unwrap().to_owned());
        names.collect()
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    let answer = get(address, "/-/ready").await;
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.0 200"))
}

/// An answer as it came. Of HTTP/1.0, so that it ends with the connection and is in one piece.
async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    Ok(String::from_utf8(wire::rest(&mut stream).await).unwrap())
}

#[tokio::test]
async fn a_real_prometheus_finds_what_dashboard_and_rules_ask_for() {
    let program = client!("prometheus");
    let town = Town::after_traffic().await;
    let targets = town.proxies().map(|proxy| proxy.admin);
    let prometheus = Prometheus::start(&program, &targets).await;
    // Scrapes before the next refusals, and after them: an increase needs a beginning.
    let scrapes = async |count: u32| {
        let expr = format!("count_over_time(tollgate_ready[1m]) >= {count}");
        until("scrapes", 2 * PATIENCE, async || {
            prometheus.query(&expr).await.len() == targets.len()
        })
        .await;
    };
    scrapes(2).await;
    let spender = town.budgeted.spender();
    let asked = Ask::message(&message("claude-sonnet-4-5", 600));
    assert_eq!(spender.ask(&asked).await.status, 402);
    let head = format!("GET / HTTP/1.1\r\nHost: {CLOSED}\r\n\r\n");
    assert_eq!(town.scene.ask(CLOSED, &head).await.status, 502);
    scrapes(5).await;
    let empty = async |expr: &str| prometheus.query(&as_asked(expr)).await.is_empty();
    let mut without = Vec::new();
    for (panel, expr) in dashboard::queries() {
        if empty(expr).await {
            without.push((panel, expr));
        }
    }
    // Nothing of this kind happened while Prometheus looked.
    without.retain(|(panel, _)| *panel != "Leaf cache hits");
    assert!(without.is_empty(), "panels without data: {without:#?}");
    for recording in alerts::RECORDINGS {
        assert!(
            !empty(recording.name).await,
            "{} is not recorded",
            recording.name
        );
    }
    let rules = prometheus.ask("/api/v1/rules").await;
    let groups = rules["data"]["groups"].as_array().unwrap();
    let all = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let ill: Vec<&Value> = all.filter(|rule| rule["health"] != "ok").collect();
    assert!(ill.is_empty(), "{ill:#?}");
    // Of three proxies that are well, one has a budget that is used up.
    let told = prometheus.alerts().await;
    assert!(told.contains("TollgateBudgetRefusesCalls"), "{told:?}");
    for quiet in [
        "TollgateNotReady",
        "TollgateDown",
        "TollgateCaExpires",
        "TollgatePolicyReloadFailed",
    ] {
        assert!(!told.contains(quiet), "{told:?}");
    }
}
