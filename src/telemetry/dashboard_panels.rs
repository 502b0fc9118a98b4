//! Owns what the dashboard shows: its rows, and each panel with its queries. `$job`, `$agent` and `$host` are
//! chosen by whoever looks at it.

/// Columns of Grafana's grid.
pub const COLUMNS: u32 = 24;

/// Panels under one heading.
#[derive(Debug)]
pub struct Row {
    /// The heading.
    pub title: &'static str,
    /// From left to right.
    pub panels: &'static [Panel],
}

/// One panel.
#[derive(Debug)]
pub struct Panel {
    /// Its heading.
    pub title: &'static str,
    /// What it means, for whoever holds the pointer over it.
    pub about: &'static str,
    /// In which form.
    pub show: Show,
    /// In which unit.
    pub unit: Unit,
    /// From which value on in which colour; the first begins without a value.
    pub steps: &'static [(Option<f64>, &'static str)],
    /// Columns it takes.
    pub width: u32,
    /// Grid rows it takes.
    pub height: u32,
    /// What it shows.
    pub queries: &'static [Query],
}

/// One query of a panel.
#[derive(Debug)]
pub struct Query {
    /// In PromQL.
    pub expr: &'static str,
    /// How its series are called.
    pub legend: &'static str,
}

/// The form of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// One number, or one for each series.
    Number,
    /// A bar for each series.
    Bars,
    /// Lines over time.
    Lines,
    /// The same, one on top of the other.
    Stacked,
    /// A table.
    Table,
}

impl Show {
    /// The plugin that draws it.
    pub(super) fn plugin(self) -> &'static str {
        match self {
            Self::Number => "stat",
            Self::Bars => "bargauge",
            Self::Lines | Self::Stacked => "timeseries",
            Self::Table => "table",
        }
    }
}

/// The unit of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number.
    Count,
    /// A number in a second.
    PerSecond,
    /// A part of one.
    Share,
    /// Seconds.
    Seconds,
    /// US dollars.
    Dollars,
    /// Octets.
    Bytes,
    /// Octets in a second.
    BytesPerSecond,
}

impl Unit {
    /// Grafana's id of it.
    pub(super) fn grafana(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::PerSecond => "reqps",
            Self::Share => "percentunit",
            Self::Seconds => "s",
            Self::Dollars => "currencyUSD",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
        }
    }
}

const PLAIN: &[(Option<f64>, &str)] = &[(None, "green")];
/// Anything but nothing is bad.
const NONE_IS_WELL: &[(Option<f64>, &str)] = &[(None, "green"), (Some(1.0), "red")];
/// 1 is well.
const ONE_IS_WELL: &[(Option<f64>, &str)] = &[(None, "red"), (Some(1.0), "green")];
/// What is left: green, amber from 80 % spent, red from 99 %.
const LEFT: &[(Option<f64>, &str)] = &[(None, "red"), (Some(0.01), "orange"), (Some(0.2), "green")];
/// What will be spent.
const FORECAST: &[(Option<f64>, &str)] =
    &[(None, "green"), (Some(0.8), "orange"), (Some(1.0), "red")];
const SOON: &[(Option<f64>, &str)] = &[
    (None, "red"),
    (Some(86_400.0), "orange"),
    (Some(1_209_600.0), "green"),
];

const fn panel(
    title: &'static str,
    about: &'static str,
    show: Show,
    unit: Unit,
    queries: &'static [Query],
) -> Panel {
    let (width, height) = match show {
        Show::Number => (4, 4),
        Show::Bars | Show::Lines | Show::Stacked | Show::Table => (12, 8),
    };
    Panel {
        title,
        about,
        show,
        unit,
        steps: PLAIN,
        width,
        height,
        queries,
    }
}

impl Panel {
    const fn colored(mut self, steps: &'static [(Option<f64>, &'static str)]) -> Self {
        self.steps = steps;
        self
    }

    const fn wide(mut self, width: u32) -> Self {
        self.width = width;
        self
    }
}

const fn query(expr: &'static str, legend: &'static str) -> Query {
    Query { expr, legend }
}

/// The dashboard, from top to bottom.
pub const ROWS: &[Row] = &[
    Row {
        title: "Overview",
        panels: &[
            panel(
                "Not ready",
                "Processes that are not ready. `/readyz` says why.",
                Show::Number,
                Unit::Count,
                &[query(r#"count(tollgate_ready{job=~"$job"} == 0) or vector(0)"#, "")],
            )
            .colored(NONE_IS_WELL),
            panel(
                "Requests",
                "Exchanges and tunnels that end, per second.",
                Show::Number,
                Unit::PerSecond,
                &[query(
                    r#"sum(rate(tollgate_requests_total{job=~"$job", agent=~"$agent", host=~"$host"}[$__rate_interval]))"#,
                    "",
                )],
            ),
            panel(
                "Denied",
                "Of these, the ones that were refused.",
                Show::Number,
                Unit::PerSecond,
                &[query(
                    r#"sum(rate(tollgate_requests_total{job=~"$job", agent=~"$agent", host=~"$host", decision="deny"}[$__rate_interval])) or vector(0)"#,
                    "",
                )],
            ),
            panel(
                "Spent",
                "In the time that is shown. The ledger is exact: `tollgate spend`.",
                Show::Number,
                Unit::Dollars,
                &[query(
                    r#"sum(increase(tollgate_spend_usd_total{job=~"$job", agent=~"$agent"}[$__range])) or vector(0)"#,
                    "",
                )],
            ),
            panel(
                "Added latency, p99",
                "What the proxy adds before an answer begins.",
                Show::Number,
                Unit::Seconds,
                &[query(
                    r#"histogram_quantile(0.99, sum by (le) (rate(tollgate_added_latency_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                    "",
                )],
            ),
            panel(
                "Credentials in trouble",
                "Failing, expired, or waiting for a login.",
                Show::Number,
                Unit::Count,
                &[query(
                    r#"count(tollgate_credential_state{job=~"$job", state=~"expiring|failing|expired|needs_login"} == 1) or vector(0)"#,
                    "",
                )],
            )
            .colored(NONE_IS_WELL),
        ],
    },
    Row {
        title: "Budgets and spending",
        panels: &[
            panel(
                "Budget left",
                "The part of each budget that is left in its present window; of several limits, the least.",
                Show::Bars,
                Unit::Share,
                &[query(
                    r#"sort(min by (budget, scope) (tollgate_budget_remaining_ratio{job=~"$job"}))"#,
                    "{{budget}} {{scope}}",
                )],
            )
            .colored(LEFT)
            .wide(8),
            panel(
                "Forecast at reset",
                "The part that will be spent when the window ends, at the pace since it began.",
                Show::Bars,
                Unit::Share,
                &[query(
                    r#"sort_desc(max by (budget, scope) (tollgate_budget_forecast_ratio{job=~"$job"}))"#,
                    "{{budget}} {{scope}}",
                )],
            )
            .colored(FORECAST)
            .wide(8),
            panel(
                "Budget left over time",
                "A line that rises was reset or raised.",
                Show::Lines,
                Unit::Share,
                &[query(
                    r#"min by (budget, scope) (tollgate_budget_remaining_ratio{job=~"$job"})"#,
                    "{{budget}} {{scope}}",
                )],
            )
            .wide(8),
            panel(
                "Spending by agent",
                "US dollars an hour.",
                Show::Stacked,
                Unit::Dollars,
                &[query(
                    r#"sum by (agent) (rate(tollgate_spend_usd_total{job=~"$job", agent=~"$agent"}[$__rate_interval])) * 3600"#,
                    "{{agent}}",
                )],
            ),
            panel(
                "Spending by model",
                "US dollars an hour.",
                Show::Stacked,
                Unit::Dollars,
                &[query(
                    r#"sum by (model) (rate(tollgate_spend_usd_total{job=~"$job", agent=~"$agent"}[$__rate_interval])) * 3600"#,
                    "{{model}}",
                )],
            ),
            panel(
                "Tokens by class",
                "Tokens a second.",
                Show::Stacked,
                Unit::Count,
                &[query(
                    r#"sum by (type) (rate(tollgate_tokens_total{job=~"$job", agent=~"$agent"}[$__rate_interval]))"#,
                    "{{type}}",
                )],
            ),
            panel(
                "Refused for want of budget",
                "Calls a second, by agent and reason.",
                Show::Lines,
                Unit::PerSecond,
                &[query(
                    r#"sum by (agent, reason) (rate(tollgate_refusals_total{job=~"$job", agent=~"$agent", reason=~"budget_.*|ledger_unavailable"}[$__rate_interval]))"#,
                    "{{agent}} {{reason}}",
                )],
            ),
        ],
    },
    Row {
        title: "Traffic",
        panels: &[
            panel(
                "Requests by agent",
                "Per second.",
                Show::Stacked,
                Unit::PerSecond,
                &[query(
                    r#"sum by (agent) (rate(tollgate_requests_total{job=~"$job", agent=~"$agent", host=~"$host"}[$__rate_interval]))"#,
                    "{{agent}}",
                )],
            ),
            panel(
                "Requests by host",
                "Per second, by the host as rules name it; `other` is every host that no rule names.",
                Show::Stacked,
                Unit::PerSecond,
                &[query(
                    r#"sum by (host) (rate(tollgate_requests_total{job=~"$job", agent=~"$agent", host=~"$host"}[$__rate_interval]))"#,
                    "{{host}}",
                )],
            ),
            panel(
                "Answers by status",
                "Per second; refusals are not in it.",
                Show::Stacked,
                Unit::PerSecond,
                &[query(
                    r#"sum by (code) (rate(tollgate_requests_total{job=~"$job", agent=~"$agent", host=~"$host", decision!="deny"}[$__rate_interval]))"#,
                    "{{code}}",
                )],
            ),
            panel(
                "Refusals by agent and reason",
                "In the time that is shown. `tollgate denied` shows what would allow them.",
                Show::Table,
                Unit::Count,
                &[query(
                    r#"sort_desc(sum by (agent, reason) (increase(tollgate_refusals_total{job=~"$job", agent=~"$agent"}[$__range])) > 0)"#,
                    "",
                )],
            ),
            panel(
                "Bytes",
                "Of bodies and tunnels.",
                Show::Lines,
                Unit::BytesPerSecond,
                &[
                    query(
                        r#"sum(rate(tollgate_request_body_bytes_total{job=~"$job"}[$__rate_interval]))"#,
                        "from agents",
                    ),
                    query(
                        r#"sum(rate(tollgate_response_body_bytes_total{job=~"$job"}[$__rate_interval]))"#,
                        "to agents",
                    ),
                ],
            ),
            panel(
                "Open now",
                "Connections of agents, connections to origins, and what is under way on them.",
                Show::Lines,
                Unit::Count,
                &[
                    query(r#"sum by (kind) (tollgate_open_connections{job=~"$job"})"#, "{{kind}}"),
                    query(
                        r#"sum(tollgate_upstream_open_connections{job=~"$job"})"#,
                        "to origins",
                    ),
                    query(
                        r#"sum(tollgate_requests_in_flight{job=~"$job"})"#,
                        "requests under way",
                    ),
                ],
            ),
        ],
    },
    Row {
        title: "Credentials and certificates",
        panels: &[
            panel(
                "Credentials end in",
                "Time until the value held ends. Those that are renewed here are replaced after two thirds of their life.",
                Show::Bars,
                Unit::Seconds,
                &[query(
                    r#"sort(min by (credential) (tollgate_credential_expiry_seconds{job=~"$job"}))"#,
                    "{{credential}}",
                )],
            )
            .wide(8),
            panel(
                "Credential states",
                "One row for each credential.",
                Show::Table,
                Unit::Count,
                &[query(
                    r#"count by (credential, state) (tollgate_credential_state{job=~"$job"} == 1)"#,
                    "",
                )],
            )
            .wide(8),
            panel(
                "Credential errors",
                "In the time between two points: 401 answers, requests without a value to send, sources that fail.",
                Show::Lines,
                Unit::Count,
                &[query(
                    r#"sum by (credential, kind) (increase(tollgate_credential_errors_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{credential}} {{kind}}",
                )],
            )
            .wide(8),
            panel(
                "Renewals",
                "OAuth tokens renewed, per second, and second tries after a 401.",
                Show::Lines,
                Unit::PerSecond,
                &[
                    query(
                        r#"sum by (credential, result) (rate(tollgate_credential_refreshes_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{credential}} {{result}}",
                    ),
                    query(
                        r#"sum by (credential, result) (rate(tollgate_replays_total{job=~"$job"}[$__rate_interval]))"#,
                        "{{credential}} second try {{result}}",
                    ),
                ],
            ),
            panel(
                "Failed handshakes",
                "Per second, with agents and with origins, by cause. `untrusted_ca` means an agent without the proxy's bundle.",
                Show::Lines,
                Unit::PerSecond,
                &[query(
                    r#"sum by (side, cause) (rate(tollgate_tls_handshake_failures_total{job=~"$job"}[$__rate_interval]))"#,
                    "{{side}} {{cause}}",
                )],
            ),
            panel(
                "CA ends in",
                "Time until the certificate authority ends, of all processes the shortest.",
                Show::Number,
                Unit::Seconds,
                &[query(r#"min(tollgate_ca_expiry_seconds{job=~"$job"})"#, "")],
            )
            .colored(SOON)
            .wide(6),
            panel(
                "Leaf cache hits",
                "The part of intercepted connections whose certificate was ready.",
                Show::Number,
                Unit::Share,
                &[query(
                    r#"sum(rate(tollgate_leaf_cache_total{job=~"$job", result="hit"}[$__rate_interval])) / sum(rate(tollgate_leaf_cache_total{job=~"$job"}[$__rate_interval]))"#,
                    "",
                )],
            )
            .wide(6),
        ],
    },
    Row {
        title: "Latency and health",
        panels: &[
            panel(
                "Added latency",
                "What the proxy adds before an answer begins.",
                Show::Lines,
                Unit::Seconds,
                &[
                    query(
                        r#"histogram_quantile(0.5, sum by (le) (rate(tollgate_added_latency_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p50",
                    ),
                    query(
                        r#"histogram_quantile(0.99, sum by (le) (rate(tollgate_added_latency_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p99",
                    ),
                ],
            ),
            panel(
                "Answers",
                "Until the origin's response head, and until the last byte.",
                Show::Lines,
                Unit::Seconds,
                &[
                    query(
                        r#"histogram_quantile(0.5, sum by (le) (rate(tollgate_upstream_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "head p50",
                    ),
                    query(
                        r#"histogram_quantile(0.99, sum by (le) (rate(tollgate_upstream_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "head p99",
                    ),
                    query(
                        r#"histogram_quantile(0.99, sum by (le) (rate(tollgate_request_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "whole p99",
                    ),
                ],
            ),
            panel(
                "Origins that do not answer",
                "Requests a second, by host and the stage that failed.",
                Show::Lines,
                Unit::PerSecond,
                &[query(
                    r#"sum by (host, stage) (rate(tollgate_upstream_failures_total{job=~"$job", host=~"$host"}[$__rate_interval]))"#,
                    "{{host}} {{stage}}",
                )],
            ),
            panel(
                "Connecting to origins",
                "Time for name, TCP and TLS, and new connections a second.",
                Show::Lines,
                Unit::Seconds,
                &[
                    query(
                        r#"histogram_quantile(0.99, sum by (le) (rate(tollgate_upstream_connect_seconds_bucket{job=~"$job"}[$__rate_interval])))"#,
                        "p99",
                    ),
                    query(
                        r#"sum(rate(tollgate_upstream_connect_seconds_count{job=~"$job"}[$__rate_interval]))"#,
                        "new connections a second",
                    ),
                ],
            ),
            panel(
                "Memory",
                "Resident, by process.",
                Show::Lines,
                Unit::Bytes,
                &[query(
                    r#"process_resident_memory_bytes{job=~"$job"} and on (job, instance) tollgate_build_info"#,
                    "{{instance}}",
                )],
            )
            .wide(8),
            panel(
                "Processor",
                "Cores in use, by process.",
                Show::Lines,
                Unit::Count,
                &[query(
                    r#"rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval]) and on (job, instance) tollgate_build_info"#,
                    "{{instance}}",
                )],
            )
            .wide(8),
            panel(
                "Records lost",
                "By sinks that did not keep up, in the time that is shown.",
                Show::Bars,
                Unit::Count,
                &[query(
                    r#"sum by (sink) (increase(tollgate_telemetry_dropped_total{job=~"$job"}[$__range]))"#,
                    "{{sink}}",
                )],
            )
            .colored(NONE_IS_WELL)
            .wide(8),
            panel(
                "Secrets taken out",
                "Of answers that repeated one (`scrubbed`), and at the last gate before a sink, which should never happen.",
                Show::Lines,
                Unit::Count,
                &[
                    query(
                        r#"sum(increase(tollgate_scrubbed_total{job=~"$job"}[$__rate_interval]))"#,
                        "scrubbed",
                    ),
                    query(
                        r#"sum by (sink) (increase(tollgate_redactions_total{job=~"$job"}[$__rate_interval]))"#,
                        "last gate of {{sink}}",
                    ),
                ],
            )
            .wide(24),
            panel(
                "Documents in force are the latest",
                "0 while newer ones are refused; `tollgate check` says why.",
                Show::Number,
                Unit::Count,
                &[query(
                    r#"min(tollgate_policy_last_reload_successful{job=~"$job"})"#,
                    "",
                )],
            )
            .colored(ONE_IS_WELL)
            .wide(6),
            panel(
                "Ledger can be written",
                "Nothing is shown before the first budget.",
                Show::Number,
                Unit::Count,
                &[query(r#"min(tollgate_ledger_ok{job=~"$job"})"#, "")],
            )
            .colored(ONE_IS_WELL)
            .wide(6),
            panel(
                "Versions",
                "Processes of each.",
                Show::Number,
                Unit::Count,
                &[query(
                    r#"count by (version) (tollgate_build_info{job=~"$job"})"#,
                    "{{version}}",
                )],
            )
            .wide(12),
        ],
    },
];
