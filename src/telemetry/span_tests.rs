//! Spans, read back with the official types of OTLP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::access_log::{Kind, Record, Verdict};
use super::gate::SecretSearch;
use super::redact::{SafeId, SafeTarget, SafeText};
use super::semconv::ATTRIBUTES;
use super::span::SpanWriter;
use super::span_notes::{
    BudgetNotes, Certainty, Invocation, ModelNotes, Pieces, Present, SpanNotes,
};
use super::trace_context::{SpanId, TraceContext, TraceId};
use super::vocabulary::Kind as ValueKind;
use crate::policy::decision::RuleRef;
use crate::types::host::Authority;
use crate::types::model_api::ModelApi;
use crate::types::money::NanoUsd;
use crate::types::said::{Said, Stop};
use crate::types::usage::{TokenClass, Usage};

fn record() -> Record {
    let target = PathAndQuery::from_static("/v1/messages?beta=true");
    Record {
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_000_000),
        id: "abc-1".to_owned(),
        peer: ([127, 0, 0, 1], 4000).into(),
        method: Some(Method::POST),
        scheme: "https",
        authority: Authority::parse("api.anthropic.com:443", None).ok(),
        target: SafeTarget::of(Some(&target), |_| false),
        protocol: Some("HTTP/1.1"),
        decision: Verdict::Allow,
        reason: None,
        rule: Some(RuleRef {
            policy: "scan".into(),
            file: "scan.yaml".into(),
            line: 14,
        }),
        credentials: vec!["anthropic".into()],
        replayed: true,
        request_bytes: 12,
        response_bytes: 345,
        duration: Some(Duration::from_millis(1_500)),
        ..super::access_log::tests::record("team-a/scan", 200)
    }
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::try_from(*value).unwrap(),
        )
    };
    fields.iter().map(field).collect()
}

fn notes() -> SpanNotes {
    let sent = headers(&[
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "vendor=value"),
        ("x-api-key", "placeholder"),
        ("authorization", "Bearer placeholder"),
    ]);
    let context = TraceContext::of(&sent).unwrap();
    let mut usage = Usage::default();
    usage[TokenClass::Input] = 10;
    usage[TokenClass::CacheRead] = 200;
    usage[TokenClass::CacheWrite5m] = 30;
    usage[TokenClass::CacheWrite1h] = 4;
    usage[TokenClass::Output] = 50;
    let mut said = Said::default().reasoned(Some(7));
    said.stopped(Stop::of("end_turn"));
    SpanNotes {
        trace: context.parent.trace,
        span: SpanId([9; 8]),
        parent: Some(context.parent.span),
        state: context.state,
        invocation: Invocation::Trace(context.parent.trace),
        present: Present::of(&sent),
        user_agent: Some(SafeText::of("claude-cli/2.1.197 (external, sdk-cli)")),
        conversation: SafeId::parse("0195f3a0-7c1b-7d2e-8f3a-00000000abcd"),
        execution: Some("run-1".into()),
        versions: vec![3],
        protocol: Some("2"),
        first_chunk: Some(Duration::from_millis(250)),
        pieces: Pieces::Many,
        model: Some(Box::new(ModelNotes {
            api: ModelApi::Anthropic,
            operation: "chat",
            asked: Some(SafeText::of("claude-sonnet-4-5")),
            answered: Some(SafeText::of("claude-sonnet-4-5-20250929")),
            usage: Some(usage),
            said,
            cost: Some(NanoUsd(16_800_000)),
            certainty: Certainty::Estimated,
            budget: Some(BudgetNotes {
                name: "cap".into(),
                remaining: "$4.98".to_owned(),
                ratio: 0.15,
            }),
        })),
    }
}

fn nothing() -> SecretSearch {
    Arc::new(|_| false)
}

fn written(record: &Record, notes: &SpanNotes, search: &SecretSearch) -> (Span, u64) {
    let mut writer = SpanWriter::default();
    let (bytes, found) = writer.write(record, notes, search);
    (Span::decode(bytes).unwrap(), found)
}

fn span(record: &Record, notes: &SpanNotes) -> Span {
    written(record, notes, &nothing()).0
}

fn attributes(span: &Span) -> BTreeMap<String, Value> {
    let pairs = span.attributes.iter().map(|pair| {
        let value = pair.value.clone().and_then(|value| value.value);
        (pair.key.clone(), value.unwrap())
    });
    let all: BTreeMap<String, Value> = pairs.collect();
    assert_eq!(all.len(), span.attributes.len(), "an attribute stands once");
    all
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn texts(value: &Value) -> Vec<String> {
    let Value::ArrayValue(array) = value else {
        panic!("{value:?}")
    };
    let one = |value: &opentelemetry_proto::tonic::common::v1::AnyValue| match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    };
    array.values.iter().map(one).collect()
}

#[test]
fn a_span_is_the_agents_child_and_covers_the_exchange() {
    let span = span(&record(), &notes());
    assert_eq!(span.trace_id, notes().trace.0);
    assert_eq!(span.span_id, [9; 8]);
    assert_eq!(span.parent_span_id, notes().parent.unwrap().0);
    assert_eq!(span.trace_state, "vendor=value");
    assert_eq!(span.name, "chat claude-sonnet-4-5");
    assert_eq!(span.kind, 3, "client");
    assert_eq!(span.start_time_unix_nano, 1_763_000_000_000_000_000);
    assert_eq!(
        span.end_time_unix_nano - span.start_time_unix_nano,
        1_500_000_000
    );
    assert_eq!(span.flags, 0x301, "sampled, and the parent is remote");
    assert!(span.status.is_none());
    let mut root = notes();
    root.parent = None;
    root.state = None;
    let span = self::span(&record(), &root);
    assert!(span.parent_span_id.is_empty() && span.trace_state.is_empty());
    assert_eq!(span.flags, 0x101);
}

/// Names and types as the conventions publish them; what is ours is below `tollgate.`.
#[test]
fn a_span_says_what_the_conventions_ask_for() {
    let found = attributes(&span(&record(), &notes()));
    for (key, value) in [
        ("http.request.method", text("POST")),
        (
            "url.full",
            text("https://api.anthropic.com/v1/messages?beta=[redacted]"),
        ),
        ("url.scheme", text("https")),
        ("server.address", text("api.anthropic.com")),
        ("server.port", Value::IntValue(443)),
        ("http.response.status_code", Value::IntValue(200)),
        ("network.protocol.version", text("2")),
        ("http.request.resend_count", Value::IntValue(1)),
        ("http.request.body.size", Value::IntValue(12)),
        ("http.response.body.size", Value::IntValue(345)),
        (
            "user_agent.original",
            text("claude-cli/2.1.197 (external, sdk-cli)"),
        ),
        ("gen_ai.operation.name", text("chat")),
        ("gen_ai.provider.name", text("anthropic")),
        ("gen_ai.system", text("anthropic")),
        ("gen_ai.request.model", text("claude-sonnet-4-5")),
        ("gen_ai.response.model", text("claude-sonnet-4-5-20250929")),
        ("gen_ai.request.stream", Value::BoolValue(true)),
        (
            "gen_ai.conversation.id",
            text("0195f3a0-7c1b-7d2e-8f3a-00000000abcd"),
        ),
        ("gen_ai.agent.name", text("team-a/scan")),
        (
            "gen_ai.response.time_to_first_chunk",
            Value::DoubleValue(0.25),
        ),
        ("gen_ai.usage.input_tokens", Value::IntValue(244)),
        ("gen_ai.usage.output_tokens", Value::IntValue(50)),
        ("gen_ai.usage.cache_read.input_tokens", Value::IntValue(200)),
        (
            "gen_ai.usage.cache_creation.input_tokens",
            Value::IntValue(34),
        ),
        ("gen_ai.usage.reasoning.output_tokens", Value::IntValue(7)),
        ("invocation.id", text("0af7651916cd43dd8448eb211c80319c")),
        ("tollgate.request.id", text("abc-1")),
        ("tollgate.decision", text("allow")),
        ("tollgate.rule", text("scan.yaml:14")),
        ("tollgate.policy", text("scan")),
        ("tollgate.agent.name", text("team-a/scan")),
        ("tollgate.agent.namespace", text("team-a")),
        ("tollgate.agent.execution", text("run-1")),
        ("tollgate.cost.usd", Value::DoubleValue(0.0168)),
        ("tollgate.cost.estimated", Value::BoolValue(true)),
        ("tollgate.budget.name", text("cap")),
        ("tollgate.budget.remaining", text("$4.98")),
        ("tollgate.budget.remaining_ratio", Value::DoubleValue(0.15)),
        ("tollgate.budget.state", text("low")),
    ] {
        assert_eq!(found.get(key), Some(&value), "{key}");
    }
    for (key, values) in [
        ("http.request.header.x-api-key", ["[redacted]"]),
        ("http.request.header.authorization", ["[redacted]"]),
        ("tollgate.credential.names", ["anthropic"]),
        ("tollgate.credential.versions", ["3"]),
        ("gen_ai.response.finish_reasons", ["end_turn"]),
    ] {
        assert_eq!(texts(&found[key]), values, "{key}");
    }
    assert!(!found.contains_key("http.request.header.cookie"));
    assert!(!found.contains_key("error.type"));
}

#[test]
fn every_attribute_is_on_the_reference_page_with_its_type() {
    let mut failed = record();
    failed.decision = Verdict::Deny;
    failed.reason = Some("host_not_allowed");
    failed.end = Some("agent_left");
    failed.token_call = Some("refresh");
    let all = [span(&record(), &notes()), span(&failed, &notes())];
    let mut seen = 0;
    for (key, value) in all.iter().flat_map(attributes) {
        let key = match key.starts_with("http.request.header.") {
            true => "http.request.header.<name>",
            false => &key,
        };
        let item = ATTRIBUTES.iter().find(|item| item.name == key);
        let item = item.unwrap_or_else(|| panic!("{key} is not declared"));
        let kind = match value {
            Value::StringValue(_) => ValueKind::Text,
            Value::BoolValue(_) => ValueKind::Boolean,
            Value::IntValue(_) => ValueKind::Integer,
            Value::DoubleValue(_) => ValueKind::Number,
            Value::ArrayValue(_) => ValueKind::Texts,
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(item.kind, kind, "{key}");
        seen += 1;
    }
    assert!(seen > 2 * 40, "{seen}");
    let written: Vec<String> = all
        .iter()
        .flat_map(|span| attributes(span).into_keys())
        .collect();
    for item in ATTRIBUTES.iter().filter(|item| !item.name.contains('<')) {
        assert!(
            written.iter().any(|key| key == item.name),
            "{} is never written",
            item.name
        );
    }
}

#[test]
fn a_failure_is_an_error_with_its_type_and_a_report_is_none() {
    for (decision, reason, end, status, expected) in [
        (Verdict::Allow, None, None, Some(200), None),
        (Verdict::Allow, None, None, Some(302), None),
        (Verdict::Allow, None, None, Some(404), Some("404")),
        (Verdict::Allow, None, None, Some(529), Some("529")),
        (
            Verdict::Deny,
            Some("path_not_allowed"),
            None,
            Some(403),
            Some("path_not_allowed"),
        ),
        (
            Verdict::Allow,
            Some("origin_unreachable"),
            None,
            Some(502),
            Some("origin_unreachable"),
        ),
        (
            Verdict::Allow,
            None,
            Some("agent_left"),
            Some(200),
            Some("agent_left"),
        ),
        (
            Verdict::Report,
            Some("path_not_allowed"),
            None,
            Some(200),
            None,
        ),
        (
            Verdict::Report,
            Some("path_not_allowed"),
            None,
            Some(500),
            Some("500"),
        ),
    ] {
        let mut record = record();
        (record.decision, record.reason) = (decision, reason);
        (record.end, record.status) = (end, status);
        let span = span(&record, &notes());
        let code = span.status.as_ref().map(|status| status.code);
        assert_eq!(code, expected.map(|_| 2), "{reason:?} {end:?} {status:?}");
        let found = attributes(&span);
        assert_eq!(found.get("error.type"), expected.map(text).as_ref());
    }
}

#[test]
fn without_a_model_a_span_is_named_by_its_method() {
    let mut plain = notes();
    plain.model = None;
    assert_eq!(span(&record(), &plain).name, "POST");
    let mut tunnel = record();
    tunnel.kind = Kind::Tunnel;
    (tunnel.method, tunnel.target) = (None, None);
    let tunnel = span(&tunnel, &plain);
    assert_eq!(tunnel.name, "CONNECT");
    assert!(!attributes(&tunnel).contains_key("url.full"));
    let mut odd = record();
    odd.method = Method::from_bytes(b"_OTHER").ok();
    assert_eq!(span(&odd, &plain).name, "HTTP");
    let mut port = record();
    port.authority = Authority::parse("example.com:8443", None).ok();
    let found = attributes(&span(&port, &plain));
    let url = "https://example.com:8443/v1/messages?beta=[redacted]";
    assert_eq!(found["url.full"], text(url));
    plain.model = notes().model.map(|mut model| {
        model.asked = None;
        model
    });
    assert_eq!(span(&record(), &plain).name, "chat");
}

#[test]
fn where_no_agent_names_a_trace_the_connection_joins_calls() {
    let mut unnamed = notes();
    unnamed.invocation = Invocation::Connection {
        boot: 0xabc,
        connection: 16,
        request: 2,
    };
    let found = attributes(&span(&record(), &unnamed));
    assert_eq!(found["invocation.id"], text("abc-10-2"));
}

#[test]
fn the_last_gate_takes_a_secret_out_wherever_it_stands_and_leaves_the_rest() {
    let known = |secret: &'static str| -> SecretSearch {
        Arc::new(move |hay| memchr::memmem::find(hay, secret.as_bytes()).is_some())
    };
    for (secret, key) in [
        ("claude-cli/2.1.197", "user_agent.original"),
        ("api.anthropic.com/v1", "url.full"),
        ("sonnet-4-5-2025", "gen_ai.response.model"),
        ("run-1", "tollgate.agent.execution"),
        ("4.98", "tollgate.budget.remaining"),
    ] {
        let (span, found) = written(&record(), &notes(), &known(secret));
        assert_eq!(found, 1, "{key}");
        let all = attributes(&span);
        assert_eq!(all[key], text("[redacted]"));
        assert_eq!(all["tollgate.request.id"], text("abc-1"));
        assert_eq!(
            all.len(),
            attributes(&self::span(&record(), &notes())).len()
        );
    }
    // In a name and in two attributes.
    let (span, found) = written(&record(), &notes(), &known("claude-sonnet-4-5"));
    assert_eq!((span.name.as_str(), found), ("[redacted]", 3));
    let (span, found) = written(&record(), &notes(), &known("anthropic"));
    assert_eq!(
        texts(&attributes(&span)["tollgate.credential.names"]),
        ["[redacted]"]
    );
    assert_eq!(found, 3, "the host, the URL and the credential");
    let (span, found) = written(&record(), &notes(), &known("vendor=value"));
    assert_eq!((span.trace_state.as_str(), found), ("[redacted]", 1));
    assert_eq!(written(&record(), &notes(), &known("not there")).1, 0);
}

#[test]
fn memory_is_used_again_and_nothing_stays_from_the_span_before() {
    let mut writer = SpanWriter::default();
    let mut small = notes();
    (small.model, small.user_agent) = (None, None);
    let once = writer.write(&record(), &notes(), &nothing()).0.to_vec();
    let between = writer.write(&record(), &small, &nothing()).0.to_vec();
    let again = writer.write(&record(), &notes(), &nothing()).0.to_vec();
    assert_eq!(once, again);
    assert!(between.len() < once.len());
    assert_eq!(TraceId([1; 16]).to_string(), "01".repeat(16));
}
