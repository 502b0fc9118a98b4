//! Spans reach a collector as the conventions have them, and a collector in trouble is nobody else's.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;

use super::claude_code::{assert_conversed, converse};
use super::support::agent::Agent;
use super::support::anthropic::{self, Account};
use super::support::budgeted::{Budgeted, cap};
use super::support::door::Door;
use super::support::echo::{self, HOST, PLACEHOLDER, REAL_KEY, echo};
use super::support::needles::Needle;
use super::support::operator::{PATIENCE, until};
use super::support::provider::conduct::Conduct;
use super::support::provider::server::Provider;
use super::support::proxy::Proxy;
use super::support::reply::full;
use super::support::spans::{Collector, Mood, Rotel, Seen};
use super::support::spender::{Ask, message, streamed};
use super::support::tunnel;
use super::support::visitor::Visitor;

/// Names and types as the conventions publish them:
/// <https://github.com/open-telemetry/semantic-conventions/blob/main/docs/http/http-spans.md#http-client-span>,
/// <https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-spans.md>.
const PUBLISHED: &[(&str, &str)] = &[
    ("error.type", "Str"),
    ("http.request.method", "Str"),
    ("http.request.resend_count", "Int"),
    ("http.request.body.size", "Int"),
    ("http.response.body.size", "Int"),
    ("http.response.status_code", "Int"),
    ("network.protocol.version", "Str"),
    ("server.address", "Str"),
    ("server.port", "Int"),
    ("url.full", "Str"),
    ("url.scheme", "Str"),
    ("user_agent.original", "Str"),
    ("gen_ai.operation.name", "Str"),
    ("gen_ai.provider.name", "Str"),
    ("gen_ai.system", "Str"),
    ("gen_ai.request.model", "Str"),
    ("gen_ai.request.stream", "Bool"),
    ("gen_ai.response.model", "Str"),
    ("gen_ai.response.finish_reasons", "Slice"),
    ("gen_ai.response.time_to_first_chunk", "Double"),
    ("gen_ai.conversation.id", "Str"),
    ("gen_ai.agent.name", "Str"),
    ("gen_ai.usage.input_tokens", "Int"),
    ("gen_ai.usage.output_tokens", "Int"),
    ("gen_ai.usage.reasoning.output_tokens", "Int"),
    ("gen_ai.usage.cache_read.input_tokens", "Int"),
    ("gen_ai.usage.cache_creation.input_tokens", "Int"),
];

/// What every HTTP client span must have.
const REQUIRED: &[&str] = &[
    "http.request.method",
    "server.address",
    "server.port",
    "url.full",
];

/// Nothing is made up: what is not ours is published, with this type.
#[track_caller]
fn assert_conventional(spans: &[Seen]) {
    for span in spans {
        assert_eq!(span.kind, "SPAN_KIND_CLIENT");
        assert_eq!((span.trace.len(), span.id.len()), (32, 16));
        if span.text("tollgate.kind") == "request" {
            REQUIRED
                .iter()
                .for_each(|key| assert!(!span.get(key).is_empty()));
        }
        for (key, value) in &span.attributes {
            if key.starts_with("tollgate.") || key == "invocation.id" {
                continue;
            }
            if key.starts_with("http.request.header.") {
                assert_eq!(value, "Slice(Str([redacted]))", "{key}");
                continue;
            }
            let published = PUBLISHED.iter().find(|(name, _)| name == key);
            let (_, kind) = published.unwrap_or_else(|| panic!("{key} is not published"));
            assert!(value.starts_with(&format!("{kind}(")), "{key}: {value}");
        }
    }
}

/// Sends so many requests over so many connections; all of them must be answered well.
async fn load(door: &Door, requests: usize, connections: usize) -> Duration {
    let begun = Instant::now();
    let each = requests / connections;
    let one = |door: Door| async move {
        let mut visitor = Visitor::http1(&door, PLACEHOLDER).await;
        for _ in 0..each {
            assert_eq!(visitor.get("/load").await.unwrap().0, 200);
        }
    };
    let all: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(one(door.clone())))
        .collect();
    for task in all {
        task.await.unwrap();
    }
    begun.elapsed()
}

async fn dropped(proxy: &Proxy, reason: &str) -> f64 {
    let series = format!("tollgate_telemetry_dropped_total{{reason=\"{reason}\",sink=\"spans\"}}");
    proxy.metric(&series).await.unwrap()
}

async fn sent(proxy: &Proxy) -> f64 {
    proxy.metric("tollgate_spans_sent_total").await.unwrap()
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_claude_code_run_arrives_at_a_real_collector() {
    let claude = client!("claude");
    let Some(rotel) = Rotel::start().await else {
        return;
    };
    let origin = anthropic::anthropic(Account::ApiKey).await;
    let proxy = anthropic::in_front_of(&origin, Account::ApiKey)
        .spans_to(rotel.addr)
        .start()
        .await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("ANTHROPIC_API_KEY").to_owned();
    converse(&claude, &agent).await;
    assert_conversed(&origin, Account::ApiKey);

    let records = proxy.access_log(origin.requests().len()).await;
    let spans = rotel.spans(records.len()).await;
    assert_conventional(&spans);
    let calls: Vec<&Seen> = spans
        .iter()
        .filter(|span| span.text("tollgate.kind") == "request")
        .filter(|span| span.text("url.full").contains("/v1/messages"))
        .collect();
    assert!(
        calls.len() >= 2,
        "a question, and a tool's result: {}",
        calls.len()
    );
    for call in &calls {
        assert_eq!(call.name, "chat");
        assert_eq!(call.text("gen_ai.provider.name"), "anthropic");
        assert_eq!(call.text("gen_ai.system"), "anthropic");
        assert_eq!(
            call.get("http.request.header.x-api-key"),
            "Slice(Str([redacted]))"
        );
        assert_eq!(
            call.get("tollgate.credential.names"),
            "Slice(Str(anthropic))"
        );
        assert_eq!(call.get("tollgate.credential.versions"), "Slice(Str(1))");
        assert!(call.text("tollgate.rule").starts_with("documents.yaml:"));
        assert!(call.text("user_agent.original").starts_with("claude-cli/"));
        assert!(call.text("gen_ai.response.model").starts_with("claude-"));
        assert_eq!(call.get("gen_ai.usage.input_tokens"), "Int(12)");
        assert_eq!(call.get("gen_ai.usage.output_tokens"), "Int(7)");
        assert_eq!(call.text("gen_ai.conversation.id").len(), 36);
    }
    let sessions: BTreeSet<&str> = calls
        .iter()
        .map(|c| c.text("gen_ai.conversation.id"))
        .collect();
    assert_eq!(sessions.len(), 1, "one run is one session");
    for (name, secret) in [("key", anthropic::REAL_KEY), ("placeholder", &placeholder)] {
        let found = Needle::new(name, secret).find(rotel.printed().as_bytes());
        assert_eq!(found, None, "the {name} is in a span");
    }
    // A log line leads to its span.
    let traces: BTreeSet<&str> = spans.iter().map(|span| span.trace.as_str()).collect();
    for record in proxy.access_log(records.len()).await {
        assert!(
            traces.contains(record["trace_id"].as_str().unwrap()),
            "{record}"
        );
    }
}

#[tokio::test]
async fn a_thousand_exchanges_arrive_each_once_at_a_real_collector() {
    let Some(rotel) = Rotel::start().await else {
        return;
    };
    let echo = echo().await;
    let proxy = echo::in_front_of(&echo).spans_to(rotel.addr).start().await;
    load(&proxy.bare_door(), 1_000, 10).await;
    let spans = rotel.spans(1_000).await;
    assert_eq!(spans.len(), 1_000);
    assert_conventional(&spans);
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let traces: BTreeSet<&str> = spans.iter().map(|span| span.trace.as_str()).collect();
    let invocations: BTreeSet<&str> = spans.iter().map(|s| s.text("invocation.id")).collect();
    assert_eq!(
        (ids.len(), traces.len(), invocations.len()),
        (1_000, 1_000, 1_000)
    );
    let connections: BTreeSet<&str> = invocations
        .iter()
        .map(|id| id.rsplit_once('-').unwrap().0)
        .collect();
    assert_eq!(
        connections.len(),
        10,
        "requests of one connection are told to be so"
    );
    for span in &spans {
        assert_eq!((span.name.as_str(), span.failed), ("GET", false));
        assert_eq!(span.text("url.full"), "https://echo.example.com/load");
        assert_eq!(
            span.get("http.request.header.authorization"),
            "Slice(Str([redacted]))"
        );
    }
    assert_eq!(sent(&proxy).await, 1_000.0);
    for reason in ["queue_full", "unreachable", "refused", "shutdown"] {
        assert_eq!(dropped(&proxy, reason).await, 0.0, "{reason}");
    }
    assert!(!rotel.printed().contains(REAL_KEY) && !rotel.printed().contains(PLACEHOLDER));
}

#[tokio::test]
async fn a_call_under_a_budget_says_what_it_used_cost_and_left() {
    let collector = Collector::start(Mood::Well).await;
    let provider = Provider::start().await;
    let proxy = provider
        .budgets(&[("cap", &cap("1.00"))])
        .spans_to(collector.addr())
        .start()
        .await;
    let scene = Budgeted { provider, proxy };
    scene
        .provider
        .usually(Conduct::says(600).input(40).cached(0, 0, 200));
    let spender = scene.spender();
    let whole = spender
        .ask(&Ask::message(&message("claude-sonnet-4-5", 600)))
        .await;
    assert_eq!(whole.status, 200, "{}", whole.text());
    let stream = streamed(message("claude-sonnet-4-5", 600));
    let stream = spender.ask(&Ask::message(&stream)).await;
    assert_eq!(stream.status, 200, "{}", stream.text());
    scene.agree().await;

    let spans = collector.spans(2).await;
    assert_conventional(&spans);
    let billed = scene.provider.truth.total() as f64 / 1e9;
    let mut told = 0.0;
    for span in &spans {
        assert_eq!(span.name, "chat claude-sonnet-4-5");
        assert_eq!(span.get("gen_ai.usage.input_tokens"), "Int(240)");
        assert_eq!(span.get("gen_ai.usage.cache_read.input_tokens"), "Int(200)");
        assert_eq!(span.get("gen_ai.usage.output_tokens"), "Int(600)");
        let stopped = span.get("gen_ai.response.finish_reasons");
        assert!(stopped.contains("end_turn"), "{stopped}");
        assert_eq!(span.text("tollgate.budget.name"), "cap");
        assert_eq!(span.text("tollgate.budget.state"), "open");
        assert!(span.text("tollgate.budget.remaining").starts_with("$0."));
        let cost = span.get("tollgate.cost.usd").trim_start_matches("Double(");
        told += cost.trim_end_matches(')').parse::<f64>().unwrap();
    }
    assert!((told - billed).abs() < 1e-9, "{told} told, {billed} billed");
    let timed = |span: &&Seen| {
        span.attributes
            .contains_key("gen_ai.response.time_to_first_chunk")
    };
    let streams: Vec<&Seen> = spans.iter().filter(timed).collect();
    assert_eq!(streams.len(), 1, "only a stream has a first chunk");
    assert_eq!(streams[0].get("gen_ai.request.stream"), "Bool(true)");
}

#[tokio::test]
async fn a_refusal_is_a_failed_span_with_its_reason() {
    let collector = Collector::start(Mood::Well).await;
    let provider = Provider::start().await;
    let proxy = provider
        .budgets(&[("cap", &cap("0.000001"))])
        .spans_to(collector.addr())
        .start()
        .await;
    let answer = proxy
        .spender_by_base_url()
        .ask(&Ask::message(&message("claude-sonnet-4-5", 600)))
        .await;
    assert_eq!(answer.status, 402);
    let (_, refused) = tunnel::connect(&proxy.bare_door(), "elsewhere.example.com:443").await;
    assert!(refused.contains("403"), "{refused}");

    let spans = collector.spans(2).await;
    assert_conventional(&spans);
    let budget = &spans[0];
    assert!(budget.failed);
    assert_eq!(budget.name, "chat claude-sonnet-4-5");
    assert_eq!(budget.text("error.type"), "budget_exhausted");
    assert_eq!(budget.text("tollgate.decision"), "deny");
    assert_eq!(budget.text("tollgate.budget.name"), "cap");
    let host = &spans[1];
    assert!(host.failed);
    assert_eq!(host.name, "CONNECT");
    assert_eq!(host.text("tollgate.reason"), "host_not_allowed");
    assert_eq!(host.text("server.address"), "elsewhere.example.com");
    assert!(!host.attributes.contains_key("url.full"));
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A request of an agent that is traced.
async fn traced(door: &Door, path: &str, flags: &str) {
    let mut sender = tunnel::http1(door, HOST).await;
    let request = Request::get(path)
        .header("host", HOST)
        .header("authorization", format!("Bearer {PLACEHOLDER}"))
        .header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"))
        .header("tracestate", "vendor=value,tollgate=1111111111111111")
        .header("baggage", "user=alice")
        .body(full(Bytes::new()))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap();
}

/// What an origin was told of a trace.
fn told(echo: &echo::Echo, path: &str) -> [Option<String>; 3] {
    let request = echo.origin.only(path);
    ["traceparent", "tracestate", "baggage"].map(|name| request.header(name).map(str::to_owned))
}

fn policy(mode: &str) -> String {
    format!("- {{hosts: [echo.example.com], credentials: [echo], {mode}}}")
}

fn in_front_of(echo: &echo::Echo, mode: &str) -> super::support::proxy::ProxyBuilder {
    super::support::proxy::proxy()
        .origin(&echo.origin)
        .policy(&policy(mode))
        .credential_file(
            "echo",
            REAL_KEY,
            "
            hosts: [echo.example.com]
            placements: [{bearer: {}}]
            placeholder: {value: echo-placeholder-0001}
            ",
        )
}

#[tokio::test]
async fn an_agents_trace_goes_on_in_our_span_and_at_the_origin_only_where_the_rule_says() {
    let collector = Collector::start(Mood::Well).await;
    for (mode, parent_goes_on, baggage) in [
        ("", false, None),
        ("traceContext: Drop", false, None),
        ("traceContext: Propagate", true, None),
        (
            "traceContext: PropagateWithBaggage",
            true,
            Some("user=alice"),
        ),
    ] {
        let echo = echo().await;
        let proxy = in_front_of(&echo, mode)
            .spans_to(collector.addr())
            .start()
            .await;
        let before = collector.taken().len();
        traced(&proxy.bare_door(), "/traced", "01").await;
        let span = collector.spans(before + 1).await.remove(before);
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, PARENT));
        assert_eq!(span.text("invocation.id"), TRACE);
        let own = &span.id;
        let expected = parent_goes_on.then(|| {
            [
                format!("00-{TRACE}-{own}-01"),
                format!("tollgate={own},vendor=value"),
            ]
        });
        let [parent, state, said] = told(&echo, "/traced");
        assert_eq!(parent.zip(state).map(|(p, s)| [p, s]), expected, "{mode}");
        assert_eq!(said.as_deref(), baggage, "{mode}");
    }
}

/// An id is 32 or 16 hexadecimal digits, and so are many keys.
#[tokio::test]
async fn a_secret_as_the_id_of_a_trace_or_a_span_is_in_no_span_and_no_log() {
    const KEY: &str = "4BF92F3577B34DA6A3CE929D0E0E4736";
    const SHORT: &str = "00f067aa0ba902b7";
    let collector = Collector::start(Mood::Well).await;
    let echo = echo().await;
    let described =
        "hosts: [echo.example.com]\nplacements: [{header: {name: x-key}}]\nplaceholder: {value: ";
    let proxy = in_front_of(&echo, "traceContext: Propagate")
        .credential_file("long", KEY, &format!("{described}long-placeholder-0001}}"))
        .credential_file(
            "short",
            SHORT,
            &format!("{described}short-placeholder-0001}}"),
        )
        .spans_to(collector.addr())
        .start()
        .await;
    let door = proxy.bare_door();
    let small = KEY.to_ascii_lowercase();
    for (number, ids) in [format!("{small}-{PARENT}"), format!("{TRACE}-{SHORT}")]
        .iter()
        .enumerate()
    {
        let path = format!("/{number}");
        let mut sender = tunnel::http1(&door, HOST).await;
        let request = Request::get(&path)
            .header("host", HOST)
            .header("authorization", format!("Bearer {PLACEHOLDER}"))
            .header("traceparent", format!("00-{ids}-01"))
            .body(full(Bytes::new()))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
        let [parent, _, _] = told(&echo, &path);
        let span = collector.spans(number + 1).await.remove(number);
        assert_eq!(parent, Some(format!("00-{}-{}-01", span.trace, span.id)));
        assert_eq!(span.parent, "");
        assert!(!ids.contains(&span.trace), "{}", span.trace);
    }
    let needles = [("long", &*small), ("short", SHORT)].map(|(n, key)| Needle::new(n, key));
    let log = format!("{:?}", proxy.access_log(2).await);
    assert!(log.contains("trace_id"), "{log}");
    for needle in &needles {
        assert_eq!(needle.find(log.as_bytes()), None, "{log}");
        for request in collector.requests() {
            assert_eq!(needle.find(&request.body), None);
        }
    }
}

#[tokio::test]
async fn an_agent_that_does_not_record_its_trace_makes_no_span_and_the_origin_is_told_so() {
    let collector = Collector::start(Mood::Well).await;
    let echo = echo().await;
    let proxy = in_front_of(&echo, "traceContext: Propagate")
        .spans_to(collector.addr())
        .start()
        .await;
    let door = proxy.bare_door();
    traced(&door, "/unrecorded", "00").await;
    traced(&door, "/recorded", "01").await;
    let spans = collector.spans(1).await;
    assert_eq!(spans.len(), 1);
    assert_eq!(
        spans[0].text("url.full"),
        "https://echo.example.com/recorded"
    );
    let [parent, _, _] = told(&echo, "/unrecorded");
    let parent = parent.unwrap();
    assert!(
        parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-00"),
        "{parent}"
    );
    let log = proxy.access_log(2).await;
    let ids: Vec<_> = log
        .iter()
        .map(|record| record["trace_id"].as_str())
        .collect();
    assert_eq!(ids, [None, Some(TRACE)]);
}

#[tokio::test]
async fn without_a_collector_traces_pass_as_they_are_where_the_rule_says() {
    let echo = echo().await;
    let proxy = in_front_of(&echo, "traceContext: Propagate").start().await;
    traced(&proxy.bare_door(), "/untouched", "01").await;
    let [parent, state, baggage] = told(&echo, "/untouched");
    assert_eq!(parent, Some(format!("00-{TRACE}-{PARENT}-01")));
    assert_eq!(
        state.as_deref(),
        Some("vendor=value,tollgate=1111111111111111")
    );
    assert_eq!(baggage, None);
    assert_eq!(sent(&proxy).await, 0.0);
}

#[tokio::test]
async fn a_collector_in_trouble_costs_requests_nothing_and_memory_is_bounded() {
    const QUEUE: f64 = 200.0;
    let echo = echo().await;
    let closed = Collector::start(Mood::Well).await;
    let nowhere = closed.addr();
    drop(closed);
    for (what, mood) in [
        ("down", None),
        ("silent", Some(Mood::Silent)),
        ("busy", Some(Mood::Says(503))),
        ("refusing", Some(Mood::Says(400))),
    ] {
        let collector = match mood {
            Some(mood) => Some(Collector::start(mood).await),
            None => None,
        };
        let addr = collector.as_ref().map_or(nowhere, Collector::addr);
        let proxy = echo::in_front_of(&echo)
            .spans_to(addr)
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "200")
            .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")
            .start()
            .await;
        let door = proxy.bare_door();
        load(&door, 1_000, 10).await;
        let before = resident_kib(proxy.pid());
        load(&door, 2_000, 10).await;
        let grown = resident_kib(proxy.pid()).saturating_sub(before);
        assert!(
            grown < 16 << 10,
            "{what}: {grown} KiB more after 2,000 requests"
        );
        if mood == Some(Mood::Says(400)) {
            until("what it refuses is counted", PATIENCE, async || {
                dropped(&proxy, "refused").await > 0.0
            })
            .await;
        } else {
            let lost = dropped(&proxy, "queue_full").await;
            // All but what waits and what is on its way.
            assert!(lost >= 3_000.0 - QUEUE - 2.0 * 100.0, "{what}: {lost}");
        }
        assert_eq!(sent(&proxy).await, 0.0, "{what}");
        assert_eq!(proxy.admin("GET", "/readyz").await.status, 200, "{what}");
        let said = proxy.output().matches("spans cannot be sent").count();
        assert!(said <= 1, "{what}: it is said once, not {said} times");
        if what == "silent" {
            // The others have shown it; it ends as soon as it is asked to.
            let mut proxy = proxy;
            let begun = Instant::now();
            proxy.terminate().await;
            proxy.ended().await;
            assert!(
                begun.elapsed() < Duration::from_secs(15),
                "{:?}",
                begun.elapsed()
            );
        }
    }
}

#[tokio::test]
async fn spans_go_on_when_a_collector_is_well_again() {
    let collector = Collector::start(Mood::Says(503)).await;
    let echo = echo().await;
    let proxy = echo::in_front_of(&echo)
        .spans_to(collector.addr())
        .start()
        .await;
    load(&proxy.bare_door(), 20, 2).await;
    until("it was asked more than once", PATIENCE, async || {
        collector.requests().len() > 1
    })
    .await;
    collector.now(Mood::Well);
    assert_eq!(
        collector.spans(20).await.len(),
        20,
        "nothing was lost meanwhile"
    );
    // The collector knows it a moment before the proxy says so.
    until("it says so", PATIENCE, async || {
        proxy.output().contains("spans are sent again")
    })
    .await;
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_process_ends() {
    let collector = Collector::start(Mood::Well).await;
    let echo = echo().await;
    let mut proxy = echo::in_front_of(&echo)
        .spans_to(collector.addr())
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        .start()
        .await;
    load(&proxy.bare_door(), 30, 3).await;
    assert_eq!(collector.taken().len(), 0);
    proxy.terminate().await;
    proxy.ended().await;
    assert_eq!(collector.taken().len(), 30);
}

#[tokio::test]
async fn what_the_configuration_says_is_done_and_its_secrets_stay_inside() {
    const TOKEN: &str = "collector-token-4f9a1c7e2b8d6f3a";
    const TENANT: &str = "tenant-secret-1b2c3d4e5f6a7b8c";
    let collector = Collector::start(Mood::Well).await;
    let echo = echo().await;
    let proxy = echo::in_front_of(&echo)
        .setting(&format!(
            "telemetry:\n  otlp:\n    endpoint: http://{}\n    compression: gzip\n    serviceName: gate\n    \
             headers: {{authorization: {{env: {{name: COLLECTOR_TOKEN}}}}}}",
            collector.addr()
        ))
        .env("COLLECTOR_TOKEN", TOKEN)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_EXPORTER_OTLP_HEADERS", &format!("x-tenant={TENANT},authorization=overridden-by-the-file"))
        .env("OTEL_SERVICE_NAME", "not-this")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .secret(TOKEN)
        .secret(TENANT)
        .start()
        .await;
    load(&proxy.bare_door(), 5, 1).await;
    collector.spans(5).await;
    let request = collector.requests().remove(0);
    assert_eq!(request.header("authorization"), Some(TOKEN));
    assert_eq!(request.header("x-tenant"), Some(TENANT));
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    let environ = std::fs::read(format!("/proc/{}/environ", proxy.pid())).unwrap();
    let environ = String::from_utf8_lossy(&environ);
    assert!(
        environ.contains("OTEL_SERVICE_NAME"),
        "the search looks at something"
    );
    assert!(!environ.contains(TOKEN) && !environ.contains(TENANT));
}

#[tokio::test]
async fn spans_are_off_unless_something_asks_for_them() {
    let collector = Collector::start(Mood::Well).await;
    let echo = echo().await;
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        let proxy = echo::in_front_of(&echo)
            .spans_to(collector.addr())
            .env(name, value)
            .start()
            .await;
        load(&proxy.bare_door(), 3, 1).await;
        let mut proxy = proxy;
        proxy.terminate().await;
        proxy.ended().await;
    }
    assert_eq!(collector.requests().len(), 0);
}

#[tokio::test]
async fn what_cannot_work_ends_the_start_with_what_to_do() {
    let echo = echo().await;
    for (name, value, said) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "http"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem", "https"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "no-pair-sk-ant-0123456789",
            "name=value",
        ),
    ] {
        let finished = echo::in_front_of(&echo)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
            .env(name, value)
            .serve_ends()
            .await;
        assert_ne!(finished.code, Some(0));
        assert!(
            finished.stderr.contains(said),
            "{name}: {}",
            finished.stderr
        );
        assert!(!finished.stderr.contains("sk-ant-"), "{}", finished.stderr);
    }
}

/// An agent puts the real secret, which it must never have, wherever it can; nothing of it gets into a span.
#[tokio::test]
async fn a_secret_that_an_agent_sends_anywhere_is_in_no_span() {
    let collector = Collector::start(Mood::Well).await;
    let echo = echo().await;
    let proxy = in_front_of(&echo, "traceContext: Propagate, ambiguousPaths: Pass")
        .spans_to(collector.addr())
        .start()
        .await;
    let door = proxy.bare_door();
    let base64 = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("user:{REAL_KEY}"))
    };
    let percent: String = REAL_KEY.bytes().map(|b| format!("%{b:02X}")).collect();
    let mut asked = 0;
    for form in [REAL_KEY, &base64, &percent] {
        for (path, field, value) in [
            (format!("/x/{form}"), "accept", "*/*".to_owned()),
            (format!("/x?{form}=1"), "accept", "*/*".to_owned()),
            ("/x".to_owned(), "user-agent", format!("me {form}")),
            (
                "/x".to_owned(),
                "tracestate",
                format!("a={}", form.replace(['=', '+'], "x")),
            ),
            ("/x".to_owned(), "x-claude-code-session-id", form.to_owned()),
            ("/x".to_owned(), "cookie", format!("a={form}")),
            ("/x".to_owned(), "x-api-key", form.to_owned()),
        ] {
            let mut sender = tunnel::http1(&door, HOST).await;
            let request = Request::get(&path)
                .header("host", HOST)
                .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
                .header(field, value)
                .body(full(Bytes::new()))
                .unwrap();
            let answer = sender.send_request(request).await.unwrap();
            answer.into_body().collect().await.unwrap();
            asked += 1;
        }
    }
    let spans = collector.spans(asked).await;
    let needle = Needle::new("the key", REAL_KEY);
    for request in collector.requests() {
        assert_eq!(needle.find(&request.body), None);
    }
    // The search looked at something.
    let shown: Vec<&str> = spans.iter().map(|span| span.text("url.full")).collect();
    assert!(
        shown.iter().any(|url| url.contains("[redacted]")),
        "{shown:?}"
    );
    assert!(
        spans
            .iter()
            .any(|span| span.attributes.contains_key("http.request.header.cookie"))
    );
}
