//! Each alert fires for what it is about and stays quiet for what only looks like it, in Prometheus's own
//! tool and from series such as a proxy gives.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use tollgate::telemetry::alerts::{ALERTS, Alert, RECORDINGS, yaml};

/// Where all series come from.
const PLACE: &[(&str, &str)] = &[("job", "tollgate"), ("instance", "a:9090")];

struct Case {
    alert: &'static str,
    /// Name with labels, and its values minute by minute in promtool's notation.
    series: &'static [(&'static str, &'static str)],
    /// When it is looked at, in minutes.
    at: u32,
    outcome: Outcome,
}

#[derive(Clone, Copy)]
enum Outcome {
    /// With these labels besides the severity, and with the value shown so.
    Fires(&'static [(&'static str, &'static str)], &'static str),
    Quiet,
}
use Outcome::{Fires, Quiet};

const fn case(
    alert: &'static str,
    series: &'static [(&'static str, &'static str)],
    at: u32,
    outcome: Outcome,
) -> Case {
    Case {
        alert,
        series,
        at,
        outcome,
    }
}

const POT: &[(&str, &str)] = &[
    ("budget", "daily"),
    ("scope", "agent=scan"),
    ("job", "tollgate"),
    ("instance", "a:9090"),
];
const KEY: &[(&str, &str)] = &[
    ("credential", "login"),
    ("job", "tollgate"),
    ("instance", "a:9090"),
];
const SCAN: &[(&str, &str)] = &[("agent", "scan"), ("job", "tollgate")];
const API: &[(&str, &str)] = &[("host", "api.example.com"), ("job", "tollgate")];
const JOB: &[(&str, &str)] = &[("job", "tollgate")];

const LEFT: &str = r#"tollgate_budget_remaining_ratio{budget="daily",scope="agent=scan"}"#;
const FORECAST: &str = r#"tollgate_budget_forecast_ratio{budget="daily",scope="agent=scan"}"#;
const EXPIRY: &str = r#"tollgate_credential_expiry_seconds{credential="login"}"#;
const EXPIRING: &str = r#"tollgate_credential_state{credential="login",state="expiring"}"#;
const DENIED: &str =
    r#"tollgate_requests_total{agent="scan",host="other",decision="deny",code="4xx"}"#;
const WELL: &str =
    r#"tollgate_requests_total{agent="scan",host="api.example.com",decision="allow",code="2xx"}"#;
const FAILED: &str =
    r#"tollgate_requests_total{agent="scan",host="api.example.com",decision="allow",code="5xx"}"#;
const REFUSED_503: &str =
    r#"tollgate_requests_total{agent="scan",host="api.example.com",decision="deny",code="5xx"}"#;
const REJECTED: &str = r#"tollgate_credential_errors_total{credential="login",kind="rejected"}"#;
const REDACTED: &str = r#"tollgate_redactions_total{sink="spans"}"#;
const DROPPED: &str = r#"tollgate_telemetry_dropped_total{sink="access_log",reason="queue_full"}"#;

const CASES: &[Case] = &[
    case(
        "TollgateBudgetNearlySpent",
        &[(LEFT, "0.15+0x20")],
        10,
        Fires(POT, "15%"),
    ),
    case(
        "TollgateBudgetNearlySpent",
        &[(LEFT, "0.2+0x20")],
        10,
        Fires(POT, "20%"),
    ),
    case(
        "TollgateBudgetNearlySpent",
        &[(LEFT, "0.21+0x20")],
        10,
        Quiet,
    ),
    // That is for the next one to say.
    case("TollgateBudgetNearlySpent", &[(LEFT, "0+0x20")], 10, Quiet),
    case(
        "TollgateBudgetSpent",
        &[(LEFT, "0+0x20")],
        10,
        Fires(POT, ""),
    ),
    case("TollgateBudgetSpent", &[(LEFT, "0.02+0x20")], 10, Quiet),
    // A call in flight had reserved the rest for a moment.
    case(
        "TollgateBudgetSpent",
        &[(LEFT, "0.5+0x9 0 0.5+0x9")],
        10,
        Quiet,
    ),
    case(
        "TollgateBudgetRefusesCalls",
        &[(
            r#"tollgate_refusals_total{agent="scan",reason="budget_exhausted"}"#,
            "0+0x5 1+0x10",
        )],
        10,
        Fires(SCAN, ""),
    ),
    case(
        "TollgateBudgetRefusesCalls",
        &[(
            r#"tollgate_refusals_total{agent="scan",reason="canary"}"#,
            "0+1x15",
        )],
        10,
        Quiet,
    ),
    case(
        "TollgateBudgetForecastExceedsCap",
        &[(FORECAST, "1.4+0x60"), (LEFT, "0.5+0x60")],
        45,
        Fires(POT, "140%"),
    ),
    case(
        "TollgateBudgetForecastExceedsCap",
        &[(FORECAST, "0.9+0x60"), (LEFT, "0.5+0x60")],
        45,
        Quiet,
    ),
    // It is no forecast any more.
    case(
        "TollgateBudgetForecastExceedsCap",
        &[(FORECAST, "1.4+0x60"), (LEFT, "0+0x60")],
        45,
        Quiet,
    ),
    case(
        "TollgateLedgerUnwritable",
        &[("tollgate_ledger_ok", "1 0+0x10")],
        5,
        Fires(PLACE, ""),
    ),
    case(
        "TollgateLedgerUnwritable",
        &[("tollgate_ledger_ok", "1+0x10")],
        5,
        Quiet,
    ),
    case(
        "TollgateAuditLogUnwritable",
        &[("tollgate_audit_ok", "1 0+0x10")],
        5,
        Fires(PLACE, ""),
    ),
    case(
        "TollgateAuditLogUnwritable",
        &[("tollgate_audit_ok", "1+0x10")],
        5,
        Quiet,
    ),
    case(
        "TollgateCredentialExpires",
        &[(EXPIRY, "50000-60x30"), (EXPIRING, "1+0x30")],
        10,
        Fires(KEY, "13h 43m 20s"),
    ),
    // An hour is all the life it has, and more than a tenth of that is left.
    case(
        "TollgateCredentialExpires",
        &[(EXPIRY, "3600-60x30"), (EXPIRING, "0+0x30")],
        10,
        Quiet,
    ),
    case(
        "TollgateCredentialExpires",
        &[(EXPIRY, "200000-60x30"), (EXPIRING, "1+0x30")],
        10,
        Quiet,
    ),
    case(
        "TollgateCredentialRefreshFailing",
        &[(
            r#"tollgate_credential_source_failing{credential="login"}"#,
            "1+0x20",
        )],
        15,
        Fires(KEY, ""),
    ),
    case(
        "TollgateCredentialRefreshFailing",
        &[(
            r#"tollgate_credential_source_failing{credential="login"}"#,
            "1+0x6 0+0x4 1+0x6",
        )],
        15,
        Quiet,
    ),
    case(
        "TollgateCredentialNeedsLogin",
        &[(
            r#"tollgate_credential_state{credential="login",state="needs_login"}"#,
            "1+0x20",
        )],
        5,
        Fires(
            &[
                ("credential", "login"),
                ("state", "needs_login"),
                ("job", "tollgate"),
                ("instance", "a:9090"),
            ],
            "",
        ),
    ),
    case(
        "TollgateCredentialNeedsLogin",
        &[(
            r#"tollgate_credential_state{credential="login",state="failing"}"#,
            "1+0x20",
        )],
        5,
        Quiet,
    ),
    case(
        "TollgateCredentialRejected",
        &[(REJECTED, "0+1x20")],
        15,
        Fires(&[("credential", "login"), ("job", "tollgate")], ""),
    ),
    // One 401 may come of a token that was just being renewed.
    case(
        "TollgateCredentialRejected",
        &[(REJECTED, "0+0x10 1+0x10")],
        15,
        Quiet,
    ),
    // An agent that is new here.
    case(
        "TollgateDenialsSpike",
        &[(DENIED, "0+5x20")],
        15,
        Fires(SCAN, "50"),
    ),
    // One that is used to one a minute, and now has thirty.
    case(
        "TollgateDenialsSpike",
        &[(DENIED, "0+1x420 450+30x15")],
        435,
        Fires(SCAN, "300"),
    ),
    case("TollgateDenialsSpike", &[(DENIED, "0+30x450")], 440, Quiet),
    case("TollgateDenialsSpike", &[(DENIED, "0+1x30")], 15, Quiet),
    case(
        "TollgateOriginErrors",
        &[(FAILED, "0+30x30"), (WELL, "0+30x30")],
        25,
        Fires(API, "50%"),
    ),
    case(
        "TollgateOriginErrors",
        &[(FAILED, "0+3x30"), (WELL, "0+30x30")],
        25,
        Quiet,
    ),
    // Refused here: the origin has nothing to do with it.
    case(
        "TollgateOriginErrors",
        &[(REFUSED_503, "0+30x30"), (WELL, "0+30x30")],
        25,
        Quiet,
    ),
    case(
        "TollgateAgentsDistrustCa",
        &[(
            r#"tollgate_tls_handshake_failures_total{side="agent",cause="untrusted_ca"}"#,
            "0+1x20",
        )],
        15,
        Fires(JOB, ""),
    ),
    case(
        "TollgateAgentsDistrustCa",
        &[(
            r#"tollgate_tls_handshake_failures_total{side="origin",cause="unknown_issuer"}"#,
            "0+1x20",
        )],
        15,
        Quiet,
    ),
    case(
        "TollgateCaExpires",
        &[
            ("tollgate_ca_expiry_seconds", "100000+0x5"),
            ("tollgate_ca_lifetime_seconds", "315360000+0x5"),
        ],
        3,
        Fires(PLACE, "1d 3h 46m 40s"),
    ),
    case(
        "TollgateCaExpires",
        &[
            ("tollgate_ca_expiry_seconds", "1300000+0x5"),
            ("tollgate_ca_lifetime_seconds", "315360000+0x5"),
        ],
        3,
        Quiet,
    ),
    // It lives in memory, and was made yesterday for a week.
    case(
        "TollgateCaExpires",
        &[
            ("tollgate_ca_expiry_seconds", "518400+0x5"),
            ("tollgate_ca_lifetime_seconds", "604800+0x5"),
        ],
        3,
        Quiet,
    ),
    case(
        "TollgatePolicyReloadFailed",
        &[("tollgate_policy_last_reload_successful", "1 0+0x5")],
        2,
        Fires(PLACE, ""),
    ),
    case(
        "TollgatePolicyReloadFailed",
        &[("tollgate_policy_last_reload_successful", "1 0 1+0x5")],
        4,
        Quiet,
    ),
    case(
        "TollgateNotReady",
        &[("tollgate_ready", "1 0+0x9")],
        5,
        Fires(PLACE, ""),
    ),
    case(
        "TollgateNotReady",
        &[("tollgate_ready", "0 1+0x9")],
        5,
        Quiet,
    ),
    case(
        "TollgateDown",
        &[
            ("up", "1+0x5 0+0x10"),
            (r#"tollgate_build_info{version="1"}"#, "1+0x5 stale"),
        ],
        12,
        Fires(PLACE, ""),
    ),
    // Something else that is down.
    case("TollgateDown", &[("up", "1+0x5 0+0x10")], 12, Quiet),
    case(
        "TollgateRedactions",
        &[(REDACTED, "0+0x5 1+0x5")],
        9,
        Fires(
            &[
                ("sink", "spans"),
                ("job", "tollgate"),
                ("instance", "a:9090"),
            ],
            "",
        ),
    ),
    case("TollgateRedactions", &[(REDACTED, "0+0x10")], 9, Quiet),
    case(
        "TollgateTelemetryDropping",
        &[(DROPPED, "0+0x5 7+0x5")],
        9,
        Fires(
            &[
                ("sink", "access_log"),
                ("job", "tollgate"),
                ("instance", "a:9090"),
            ],
            "",
        ),
    ),
    // What was lost long ago.
    case(
        "TollgateTelemetryDropping",
        &[(DROPPED, "7+0x30")],
        25,
        Quiet,
    ),
];

fn alert(name: &str) -> &'static Alert {
    let found = ALERTS.iter().find(|alert| alert.name == name);
    found.unwrap_or_else(|| panic!("there is no alert {name}"))
}

/// `name{a="b"}` with the labels of the place it comes from.
fn placed(series: &str) -> String {
    let place: Vec<String> = PLACE.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
    let place = place.join(",");
    match series.split_once('{') {
        Some((name, labels)) => format!("{name}{{{place},{labels}"),
        None => format!("{series}{{{place}}}"),
    }
}

/// A text of an alert as Prometheus renders it. What is left of a template names a label that the alert
/// does not have.
fn rendered(text: &str, labels: &[(&str, &str)], value: &str) -> String {
    let mut text = text.to_owned();
    for (name, label) in labels {
        text = text.replace(&format!("{{{{ $labels.{name} }}}}"), label);
    }
    for form in ["humanize", "humanizePercentage", "humanizeDuration"] {
        text = text.replace(&format!("{{{{ $value | {form} }}}}"), value);
    }
    assert!(!text.contains("{{"), "{text}");
    text
}

fn unit_test(case: &Case) -> Value {
    let expected = match case.outcome {
        Quiet => json!([]),
        Fires(labels, value) => {
            let alert = alert(case.alert);
            let mut all: Map<String, Value> = labels
                .iter()
                .map(|(name, label)| ((*name).to_owned(), json!(label)))
                .collect();
            let severity = format!("{:?}", alert.severity).to_lowercase();
            all.insert("severity".to_owned(), severity.into());
            json!([{
                "exp_labels": all,
                "exp_annotations": {
                    "summary": rendered(alert.summary, labels, value),
                    "description": rendered(alert.description, labels, value),
                },
            }])
        }
    };
    let series = case
        .series
        .iter()
        .map(|(series, values)| json!({ "series": placed(series), "values": values }));
    json!({
        "interval": "1m",
        "input_series": series.collect::<Vec<_>>(),
        "alert_rule_test": [{
            "eval_time": format!("{}m", case.at),
            "alertname": case.alert,
            "exp_alerts": expected,
        }],
    })
}

#[track_caller]
fn promtool(program: &Path, args: &[&str], directory: &Path) {
    let ran = Command::new(program)
        .args(args)
        .current_dir(directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
}

#[test]
fn every_alert_fires_for_what_it_is_about_and_for_nothing_else() {
    for alert in ALERTS {
        let mut cases = CASES.iter().filter(|case| case.alert == alert.name);
        let fires = cases.clone().any(|case| matches!(case.outcome, Fires(..)));
        let is_quiet = cases.any(|case| matches!(case.outcome, Quiet));
        assert!(fires && is_quiet, "{} wants both", alert.name);
    }
    let promtool_path = client!("promtool");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yaml"), yaml()).unwrap();
    let tests: Vec<Value> = CASES.iter().map(unit_test).collect();
    let file = json!({
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        // Alerts are made of what is recorded.
        "group_eval_order": ["tollgate-recordings", "tollgate-alerts"],
        "tests": tests,
    });
    // JSON is YAML.
    std::fs::write(dir.path().join("tests.yaml"), file.to_string()).unwrap();
    promtool(
        &promtool_path,
        &["check", "rules", "rules.yaml"],
        dir.path(),
    );
    promtool(&promtool_path, &["test", "rules", "tests.yaml"], dir.path());
}

#[test]
fn recorded_series_say_level_metric_and_operation() {
    let mut names: Vec<&str> = RECORDINGS.iter().map(|r| r.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RECORDINGS.len(), "a name is recorded twice");
    for name in names {
        let (level, rest) = name.split_once(':').unwrap();
        let (metric, operation) = rest.split_once(':').unwrap();
        assert!(["job", "agent", "host"].contains(&level), "{name}");
        assert!(
            metric.starts_with("tollgate_") && !operation.is_empty(),
            "{name}"
        );
    }
}
