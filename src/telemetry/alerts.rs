//! Owns the recording and alerting rules that Prometheus loads
//! (<https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/>). Names of recorded series
//! say level, metric and operation (<https://prometheus.io/docs/practices/rules/>).

use std::fmt::Write as _;

/// A series that is computed ahead, for dashboards and alerts.
#[derive(Debug)]
pub struct Recording {
    /// Its name.
    pub name: &'static str,
    /// How it is computed.
    pub expr: &'static str,
}

/// Something that a person should know of.
#[derive(Debug)]
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// When it is so.
    pub expr: &'static str,
    /// For how long it must be so.
    pub wait: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// What is the matter, in a line.
    pub summary: &'static str,
    /// What it means, and what to do.
    pub description: &'static str,
}

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Agents are kept from working, or will be within hours.
    Critical,
    /// Somebody should look at it within the day.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// Every recorded series.
pub const RECORDINGS: &[Recording] = &[
    Recording {
        name: "job:tollgate_requests:rate5m",
        expr: "sum by (job, decision, code) (rate(tollgate_requests_total[5m]))",
    },
    Recording {
        name: "agent:tollgate_denials:increase10m",
        expr: r#"sum by (job, agent) (increase(tollgate_requests_total{decision="deny"}[10m]))"#,
    },
    Recording {
        name: "host:tollgate_answers:rate5m",
        expr: r#"sum by (job, host) (rate(tollgate_requests_total{decision!="deny"}[5m]))"#,
    },
    Recording {
        name: "host:tollgate_errors:ratio_rate5m",
        expr: r#"(
  sum by (job, host) (rate(tollgate_requests_total{decision!="deny", code="5xx"}[5m]))
/
  (host:tollgate_answers:rate5m > 0)
)"#,
    },
    Recording {
        name: "agent:tollgate_spend_usd:rate1h",
        expr: "sum by (job, agent) (rate(tollgate_spend_usd_total[1h]))",
    },
    Recording {
        name: "job:tollgate_added_latency_seconds:p50_rate5m",
        expr: "histogram_quantile(0.5, sum by (job, le) (rate(tollgate_added_latency_seconds_bucket[5m])))",
    },
    Recording {
        name: "job:tollgate_added_latency_seconds:p99_rate5m",
        expr: "histogram_quantile(0.99, sum by (job, le) (rate(tollgate_added_latency_seconds_bucket[5m])))",
    },
];

/// Every alert.
pub const ALERTS: &[Alert] = &[
    Alert {
        name: "TollgateBudgetNearlySpent",
        expr: "tollgate_budget_remaining_ratio <= 0.2 and tollgate_budget_remaining_ratio > 0.01",
        wait: "2m",
        severity: Severity::Warning,
        summary: "Budget {{ $labels.budget }} has {{ $value | humanizePercentage }} left ({{ $labels.scope }})",
        description: "80 % of the budget is spent or reserved. Calls are refused once it is all spent. `tollgate budget show {{ $labels.budget }}` \
                      tells when it resets; `tollgate budget raise` gives more, with an end.",
    },
    Alert {
        name: "TollgateBudgetSpent",
        expr: "tollgate_budget_remaining_ratio <= 0.01",
        wait: "1m",
        severity: Severity::Critical,
        summary: "Budget {{ $labels.budget }} is spent ({{ $labels.scope }})",
        description: "Less than a hundredth is left: calls that it counts are refused until it resets. `tollgate budget show {{ $labels.budget }}` \
                      tells when that is; `tollgate budget raise` gives more, with an end.",
    },
    Alert {
        name: "TollgateBudgetRefusesCalls",
        expr: r#"sum by (job, agent) (increase(tollgate_refusals_total{reason="budget_exhausted"}[10m])) > 0"#,
        wait: "0m",
        severity: Severity::Warning,
        summary: "{{ $labels.agent }} is refused calls for want of budget",
        description: "What is left of a budget is less than a call of this agent may cost. `tollgate denied --agent {{ $labels.agent }}` and \
                      `tollgate budget show` tell which one.",
    },
    Alert {
        name: "TollgateBudgetForecastExceedsCap",
        expr: "tollgate_budget_forecast_ratio > 1 and on (job, instance, budget, scope) tollgate_budget_remaining_ratio > 0.01",
        wait: "30m",
        severity: Severity::Warning,
        summary: "Budget {{ $labels.budget }} will be spent before it resets ({{ $labels.scope }})",
        description: "At the pace since its window began, {{ $value | humanizePercentage }} of the budget would be spent by the window's end.",
    },
    Alert {
        name: "TollgateLedgerUnwritable",
        expr: "tollgate_ledger_ok == 0",
        wait: "1m",
        severity: Severity::Critical,
        summary: "The spending ledger of {{ $labels.instance }} cannot be written",
        description: "Calls that a budget counts get 503, unless `onStoreUnavailable` lets some pass. Look at the disk of `stateDir`; \
                      `/readyz` of the admin port has the error.",
    },
    Alert {
        name: "TollgateCredentialExpires",
        expr: r#"tollgate_credential_expiry_seconds < 86400
and on (job, instance, credential)
(tollgate_credential_state{state=~"expiring|expired"} == 1)"#,
        wait: "5m",
        severity: Severity::Critical,
        summary: "Credential {{ $labels.credential }} ends in {{ $value | humanizeDuration }} and has no successor",
        description: "Less than a day and less than a tenth of its life is left. Renewals begin after two thirds, so this one is late. \
                      `tollgate creds list` tells why; without a new value, requests that need it are refused.",
    },
    Alert {
        name: "TollgateCredentialRefreshFailing",
        expr: "tollgate_credential_source_failing == 1",
        wait: "10m",
        severity: Severity::Warning,
        summary: "The source of credential {{ $labels.credential }} fails",
        description: "The last good value is used until it ends, never longer. `tollgate creds list` has the error.",
    },
    Alert {
        name: "TollgateCredentialNeedsLogin",
        expr: r#"tollgate_credential_state{state="needs_login"} == 1"#,
        wait: "1m",
        severity: Severity::Critical,
        summary: "Credential {{ $labels.credential }} needs a login",
        description: "Its provider does not accept the grant any more, and nothing is tried until a person logs in: \
                      `tollgate creds login {{ $labels.credential }}`.",
    },
    Alert {
        name: "TollgateCredentialRejected",
        expr: r#"sum by (job, credential) (increase(tollgate_credential_errors_total{kind="rejected"}[15m])) > 3"#,
        wait: "0m",
        severity: Severity::Warning,
        summary: "Origins answer 401 to credential {{ $labels.credential }}",
        description: "The key was revoked, or it is the wrong one for what agents ask. `tollgate creds list` shows the last 401.",
    },
    Alert {
        name: "TollgateDenialsSpike",
        // Without a past there is nothing to compare with, and the number alone counts.
        expr: r"agent:tollgate_denials:increase10m > 20
unless on (job, agent)
agent:tollgate_denials:increase10m
  <= 5 * avg_over_time(agent:tollgate_denials:increase10m[1d] offset 1h)",
        wait: "0m",
        severity: Severity::Warning,
        summary: "{{ $labels.agent }} was denied {{ $value | humanize }} requests in ten minutes",
        description: "More than five times what this agent was used to until an hour ago. It may have a new task, or somebody else's: \
                      `tollgate denied --agent {{ $labels.agent }}` groups them and shows what would allow them.",
    },
    Alert {
        name: "TollgateOriginErrors",
        expr: "host:tollgate_errors:ratio_rate5m > 0.2 and on (job, host) host:tollgate_answers:rate5m > 0.02",
        wait: "10m",
        severity: Severity::Warning,
        summary: "{{ $value | humanizePercentage }} of requests to {{ $labels.host }} end in 5xx",
        description: "The origin answers with errors or cannot be reached. `tollgate_upstream_failures_total` tells the stage that fails; \
                      where that counts nothing, the errors are the origin's own answers.",
    },
    Alert {
        name: "TollgateAgentsDistrustCa",
        expr: r#"sum by (job) (increase(tollgate_tls_handshake_failures_total{side="agent", cause="untrusted_ca"}[15m])) > 5"#,
        wait: "0m",
        severity: Severity::Warning,
        summary: "Agents do not trust the proxy's certificate authority",
        description: "They have another bundle than the proxy's, or none. `tollgate env` prints the variables that they need.",
    },
    Alert {
        name: "TollgateCaExpires",
        // An authority that is made for a week is not always about to end.
        expr: "tollgate_ca_expiry_seconds < 14 * 86400 and tollgate_ca_expiry_seconds < tollgate_ca_lifetime_seconds / 3",
        wait: "0m",
        severity: Severity::Warning,
        summary: "The certificate authority of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}",
        description: "After that, no intercepted connection works. `tollgate ca init --force` makes a new one (a restart does, where it is \
                      kept in memory); agents need the new bundle.",
    },
    Alert {
        name: "TollgatePolicyReloadFailed",
        expr: "tollgate_policy_last_reload_successful == 0",
        wait: "0m",
        severity: Severity::Warning,
        summary: "{{ $labels.instance }} refuses its new documents",
        description: "The last good policy stays in force, and a restart would fail. `tollgate check` names file, line and remedy.",
    },
    Alert {
        name: "TollgateNotReady",
        expr: "tollgate_ready == 0",
        wait: "2m",
        severity: Severity::Critical,
        summary: "{{ $labels.instance }} is not ready",
        description: "`/readyz` of the admin port says what is missing: most often a credential that is not optional.",
    },
    Alert {
        name: "TollgateDown",
        expr: "up == 0 and on (job, instance) last_over_time(tollgate_build_info[1h])",
        wait: "2m",
        severity: Severity::Critical,
        summary: "{{ $labels.instance }} does not answer any more",
        description: "It answered within the last hour. Its agents reach nothing.",
    },
    Alert {
        name: "TollgateAuditLogUnwritable",
        expr: "tollgate_audit_ok == 0",
        wait: "1m",
        severity: Severity::Critical,
        summary: "The audit log of {{ $labels.instance }} cannot be written",
        description: "Events wait in memory, and are lost once that is full. With `audit.onFailure: refuse`, requests that need a credential \
                      get 503. `/readyz` of the admin port has the error.",
    },
    Alert {
        name: "TollgateRedactions",
        expr: "sum by (job, instance, sink) (increase(tollgate_redactions_total[10m])) > 0",
        wait: "0m",
        severity: Severity::Critical,
        summary: "A secret came as far as the last gate before {{ $labels.sink }} of {{ $labels.instance }}",
        description: "It was taken out there, but it should not have come that far: this is a fault of Tollgate. Please report it, with the version.",
    },
    Alert {
        name: "TollgateTelemetryDropping",
        expr: "sum by (job, instance, sink) (increase(tollgate_telemetry_dropped_total[10m])) > 0",
        wait: "0m",
        severity: Severity::Warning,
        summary: "{{ $labels.instance }} loses records of {{ $labels.sink }}",
        description: "The sink is slow, full or away. Traffic goes on; what was lost cannot be had again.",
    },
];

/// The rule file.
pub fn yaml() -> String {
    let mut text = String::from(
        "# Recording and alerting rules of Tollgate. Printed by `tollgate gen alerts`.\ngroups:\n",
    );
    // Writing to a string does not fail.
    text.push_str("  - name: tollgate-recordings\n    rules:\n");
    for recording in RECORDINGS {
        writeln!(text, "      - record: {}", recording.name).ok();
        block(&mut text, recording.expr);
    }
    text.push_str("  - name: tollgate-alerts\n    rules:\n");
    for alert in ALERTS {
        writeln!(text, "      - alert: {}", alert.name).ok();
        block(&mut text, alert.expr);
        if alert.wait != "0m" {
            writeln!(text, "        for: {}", alert.wait).ok();
        }
        let severity = alert.severity.as_str();
        writeln!(text, "        labels:\n          severity: {severity}").ok();
        text.push_str("        annotations:\n");
        for (key, value) in [
            ("summary", alert.summary),
            ("description", alert.description),
        ] {
            // A JSON string is a YAML string (YAML 1.2, section 1.3).
            writeln!(text, "          {key}: {}", serde_json::json!(value)).ok();
        }
    }
    text
}

fn block(text: &mut String, expr: &str) {
    text.push_str("        expr: |-\n");
    for line in expr.lines() {
        writeln!(text, "          {line}").ok();
    }
}
